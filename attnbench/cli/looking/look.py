"""Look inside models: where heads attend to, what a method changes, as tables and pictures."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import shlex
import sys
from typing import TYPE_CHECKING, Any

from attnbench.cli.looking.wanted import wanted
from attnbench.cli.parsing import MANY, Once, add_include_path, add_max_length, positive
from attnbench.cli.screen import laid_out, stdout
from attnbench.errors import NotApplicable, UserError, message, say, screen_width, tell
from attnbench.inputs import models
from attnbench.inputs.settings import EAGER_TOLERANCE, default_device
from attnbench.matrix import console
from attnbench.matrix.plan import refuse_twins
from attnbench.methods import spec
from attnbench.records.record import RECORDS

if TYPE_CHECKING:
    from attnbench.studies.looking import Look

STOPPED = "; what was said to be written stays"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `attnbench look`."""
    parser.add_argument(
        "files", nargs="*", metavar="LOOKS.toml",
        help="a board of looks to measure instead; --models then chooses among its models",
    )  # fmt: skip
    parser.add_argument("--models", **MANY, metavar="NAME", help="models, written as for `attnbench run`")
    parser.add_argument(
        "--text", action="append", default=[], metavar="TEXT", help="a text to look at (repeatable)"
    )
    parser.add_argument(
        "--tasks",
        **MANY,
        metavar="TASK",
        help="tasks whose documents to look at (default: the model's own tasks)",
    )
    parser.add_argument(
        "--studies", **MANY, metavar="SPEC",
        help="specs, as in sparsity,clamp4 (default: all studies that need no data of their own)",
    )  # fmt: skip
    parser.add_argument(
        "--treebank", **MANY, metavar="FILE",
        help="CoNLL-U files for studies of syntax: DEV,TEST, one to choose heads on and one to report on; a "
        "single file is halved",
    )  # fmt: skip
    parser.add_argument(
        "--methods", **MANY, metavar="SPEC", help="look with each of these methods too, as in prune80"
    )
    parser.add_argument(
        "--output",
        metavar="DIR",
        help="a folder for a page (index.html), CSV tables, pictures and heads.json",
    )
    parser.add_argument("--json", action="store_true", help="print all tables as one JSON array")
    parser.add_argument(
        "--save-arrays", type=positive, metavar="N",
        help="write queries, keys, values, scores, probabilities, contexts, hidden states of N samples too",
    )  # fmt: skip
    parser.add_argument(
        "--limit", type=positive, metavar="N", help="look at the first N documents of a task (200)"
    )
    add_max_length(parser)
    parser.add_argument("--seed", type=int, metavar="N", help="the seed of sampled methods and studies (0)")
    parser.add_argument("--device", default=None, metavar="NAME", help="cpu or cuda (cuda if there is a GPU)")
    parser.add_argument("--dtype", choices=[*EAGER_TOLERANCE], help="the type of weights (float32)")
    parser.add_argument(
        "--calibration",
        metavar="DATASET:SPLIT",
        help="what fitted methods learn from, as for `attnbench run`",
    )
    parser.add_argument(
        "--records", action=Once, metavar="DIR",
        help=f"the folder of records ({RECORDS}; for a board records/NAME beside it)",
    )  # fmt: skip
    parser.add_argument("--force", action="store_true", help="look again at what is recorded already")
    parser.add_argument(
        "--trust-remote-code",
        action="store_true",
        help="let a checkpoint run Python code of its own; this is recorded",
    )
    add_include_path(parser)


def execute(options: argparse.Namespace) -> int:
    """Look at every model; numbers of heads or JSON go to stdout, tables and pictures to a folder."""
    console.quiet(options.verbose)
    looks = wanted(options)
    if options.save_arrays and not options.output:
        raise UserError("--save-arrays writes into --output DIR: give one")
    from attnbench.cli.looking import output, terminal

    if options.output:
        output.prepare(options.output)
    from attnbench.studies import compared, looking, opening

    bodies: list[dict[str, Any]] = []
    seen = failed = 0
    found_of: list[Any] = []
    for each in looks:
        settings = each.settings
        if options.device is None:
            settings = dataclasses.replace(settings, device=default_device())
        methods = opening.parsed(each.methods)
        refuse_twins("methods", {text: text for text in methods}, "--output")
        usual = looking.usual() if each.usual else []
        chosen = [spec.parse_study(text) for text in (*usual, *each.studies)]
        console.introduce(each.model)
        where = f"{models.label(each.model)} · {each.task or 'text'}"
        try:
            with stdout.aside(), _bar(where) as progress:
                opened = opening.Opened(each.model, each.task, each.texts, settings)
                look = looking.look_at(opened, chosen, methods, each.records, options.force, progress)
        except NotApplicable as reason:
            tell(f"{where}: not applicable: {reason}")
            continue
        except ArithmeticError as reason:
            tell(f"{where}: failed: {reason}")
            failed += 1
            continue
        seen += any(found.tables for found in look.found.values())
        failed += len(look.failed) + sum(found.status == looking.FAILED for found in look.found.values())
        _told(look)
        found_of.append(compared.means(look))
        if options.json:
            bodies += terminal.bodies(look)
        else:
            print(terminal.described(look, screen_width()), flush=True)
        if options.output:
            with stdout.aside():
                page = output.write(look, options.output, options.save_arrays or 0)
            say(f"written to {page}, tables and pictures beside it")
    together = compared.across(found_of)
    if together and options.output:
        output.write_models(together, options.output)
    if options.json:
        print(json.dumps(bodies, ensure_ascii=False))
    elif together:
        print(terminal.side_by_side(together, screen_width()))
    if found_of and not options.json:
        more = [] if options.output else [shlex.join(["attnbench", *options.typed, "--output", "look"])]
        laid_out.follow(f"attnbench studies {chosen[0].name}", *more)
    if not (seen or failed):
        raise UserError("nothing was found: no study applies. `attnbench studies` says what each looks at.")
    return 1 if failed else 0


@contextlib.contextmanager
def _bar(where: str) -> Any:
    """Show how many passes of samples are done, and of what data; nothing where nobody looks."""
    from tqdm import tqdm

    with tqdm(
        desc=where, leave=False, disable=not sys.stderr.isatty(), dynamic_ncols=True,
        bar_format="{desc}: {n_fmt} samples read, {elapsed}",
    ) as bar:  # fmt: skip

        def progress(data: str, samples: int) -> None:
            bar.set_description_str(f"{where} · {data}")
            bar.update(samples)

        yield progress


def _told(look: Look) -> None:
    from attnbench.studies.compared import left_out

    where = f"{look.model} · {look.data}"
    for text, found in look.found.items():
        if found.error:
            say(message(f"{where}: {text}: {found.status}: {found.error}"))
        for part, why, number in left_out(found):
            times = f" ({number} times)" if number > 1 else ""
            say(message(f"{where}: {text} leaves out {part}: {why}{times}"))
    for kind, reasons in (("not applicable", look.left_out), ("failed", look.failed)):
        for method, reason in reasons.items():
            say(message(f"{where}: {method}: {kind}: {reason}"))
