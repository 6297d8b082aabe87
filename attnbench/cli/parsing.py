"""What several commands take, and how it is read."""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Sequence
from typing import Any

from attnbench.errors import UserError
from attnbench.inputs.endings import AFTER
from attnbench.inputs.settings import MAPS
from attnbench.matrix.sharing import shards

MANY: dict[str, Any] = {"nargs": "+", "action": "extend", "default": []}  # words, comma lists among them


class Once(argparse.Action):
    """Takes a folder of records; a second one is a mistake, not the one that counts."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        if vars(namespace).setdefault("once", {}).setdefault(self.dest, values) is not values:
            raise UserError(
                f"{option_string} is given twice: give one. `attnbench merge A B --into C` makes one of two."
            )
        setattr(namespace, self.dest, values)


def plugin_folders(given: Sequence[str] = ()) -> list[str]:
    """Return the folders of plugins, those of the environment first."""
    return [*filter(None, os.environ.get("ATTNBENCH_PLUGINS_DIR", "").split(os.pathsep)), *given]


def positive(text: str) -> int:
    """Read a whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number of at least 1")
    return int(text)


def seconds(text: str) -> float:
    """Read a number of seconds above 0."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not a number of seconds above 0")
    return value


def add_shared(parser: argparse.ArgumentParser) -> None:
    """Declare what every command takes."""
    add_plugins(parser)
    parser.add_argument(
        "-v",
        "--verbose",
        action="store_true",
        help="print all settings and versions, and what the libraries say",
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback of a mistake")


def add_plugins(parser: argparse.ArgumentParser) -> None:
    """Declare what loads more methods."""
    parser.add_argument(
        "--plugin",
        action="append",
        default=[],
        metavar="FILE.py",
        help="a file with more methods (repeatable)",
    )
    parser.add_argument(
        "--plugins-dir",
        action="append",
        default=[],
        metavar="DIR",
        help="a folder of such files (repeatable; $ATTNBENCH_PLUGINS_DIR names more)",
    )


def add_table(parser: argparse.ArgumentParser) -> None:
    """Declare how a table is shown."""
    parser.add_argument(
        "--sort", choices=["family", "score"], default="family",
        help="order rows by family and amount, sweeps together (family), or the best first (score)",
    )  # fmt: skip
    parser.add_argument(
        "--legend", action="store_true",
        help="explain every column below the table; files and the first run into a folder always do",
    )  # fmt: skip


def add_max_length(parser: argparse.ArgumentParser) -> None:
    """Declare --max-length."""
    parser.add_argument(
        "--max-length",
        type=positive,
        metavar="N",
        help="cut texts of a classifier after N tokens; a language model reads windows of N tokens",
    )


def add_calibration(parser: argparse.ArgumentParser) -> None:
    """Declare what fitted methods learn from."""
    parser.add_argument(
        "--calibration",
        metavar="DATASET:SPLIT",
        help="what fitted methods learn from, instead of the task's own training split: DATASET:SPLIT, "
        "DATASET:CONFIG:SPLIT, FILE.csv, FILE.jsonl, or FILE.txt for language models",
    )
    parser.add_argument(
        "--calibration-samples",
        type=positive,
        metavar="N",
        help="how many samples fitted methods learn from (512, or as the task says)",
    )
    parser.add_argument(
        "--calibration-tokens", type=positive, metavar="N",
        help="the most tokens that fitted methods learn from, for language models (65536)",
    )  # fmt: skip


def add_prompting(parser: argparse.ArgumentParser) -> None:
    """Declare how lm-eval's own tasks become prompts, by lm-eval's names."""
    parser.add_argument(
        "--num-fewshot",
        type=int,
        metavar="N",
        help="how many solved examples precede each prompt of an lm-eval task",
    )
    parser.add_argument(
        "--apply-chat-template", action="store_true", default=None,
        help="write prompts of lm-eval tasks as messages of the model's chat",
    )  # fmt: skip
    parser.add_argument(
        "--fewshot-as-multiturn",
        action="store_true",
        default=None,
        help="write the examples as turns of that chat",
    )
    parser.add_argument(
        "--system-instruction",
        metavar="TEXT",
        help="a text before the prompt, or the system message of that chat",
    )
    parser.add_argument(
        "--gen-kwargs",
        metavar="NAME=VALUE,…",
        help="settings of tasks that generate text, as in max_gen_toks=64",
    )


def add_endings(parser: argparse.ArgumentParser) -> None:
    """Declare where the prompts end that caches are cut after."""
    parser.add_argument(
        "--cache-after",
        choices=AFTER,
        help="cut caches after the context that a task marks (the default), or after its question and "
        "all that leads to the answer; recorded as NAME@question",
    )
    parser.add_argument(
        "--prompt",
        type=positive,
        metavar="N",
        help="for tasks that score whole texts: take the first N tokens of each window as a prompt, which is "
        "not scored; recorded as NAME@promptN",
    )


def add_device(parser: argparse.ArgumentParser) -> None:
    """Declare --device and --device-map."""
    parser.add_argument(
        "--device", default=None, metavar="NAME", help="cpu, cuda or cuda:1 (cuda if there is a GPU)"
    )
    parser.add_argument(
        "--device-map", choices=[*MAPS], help="spread a model over all devices, by accelerate"
    )


def add_include_path(parser: argparse.ArgumentParser) -> None:
    """Declare --include-path."""
    parser.add_argument("--include-path", metavar="DIR", help="a folder with task YAML files of your own")


def add_sharing(parser: argparse.ArgumentParser) -> None:
    """Declare --shard, --workers and --on."""
    parser.add_argument(
        "--shard",
        type=shards.parse,
        metavar="K/N",
        help="measure the K-th of N shares, each of whole model-task pairs; slurm takes K and N "
        "from the job array",
    )
    parser.add_argument(
        "--workers",
        type=positive,
        metavar="N",
        help="measure with N processes, each with its own device or its part of the threads",
    )
    parser.add_argument(
        "--on",
        type=_engine,
        metavar="ray",
        help="measure on a Ray cluster, one Ray task for each model-task pair: ray for the cluster of "
        "$RAY_ADDRESS or of this machine, or ray://HOST:PORT",
    )


def _engine(text: str) -> str:
    """Read --on. Raises UserError."""
    address = text.removeprefix("ray://")
    if text != "ray" and (address == text or not address.rpartition(":")[2].isdecimal()):
        raise UserError(f"--on {text}: give ray, or ray://HOST:PORT of a cluster")
    return text
