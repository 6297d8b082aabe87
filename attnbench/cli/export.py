"""Write a model without the heads that a method removes."""

from __future__ import annotations

import argparse
import sys

from attnbench.cli.parsing import Once, add_include_path, add_max_length
from attnbench.cli.screen import laid_out
from attnbench.errors import say
from attnbench.inputs.settings import Settings
from attnbench.matrix import console

STOPPED = "; the folder, where it is there, is unfinished: delete it"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `attnbench export`."""
    parser.add_argument("folder", metavar="OUT", help="a new folder for the checkpoint")
    parser.add_argument(
        "--model", required=True, metavar="NAME", help="a model, written as for `attnbench run`"
    )
    parser.add_argument(
        "--task", required=True, metavar="TASK", help="the task on whose training split the method is fitted"
    )
    parser.add_argument(
        "--method",
        required=True,
        metavar="SPEC",
        help="a method that removes heads, as in heads50:gradient or gates:l0",
    )
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="the seed by which calibration samples are drawn (0)"
    )
    parser.add_argument("--device", default="cpu", metavar="NAME", help="cpu or cuda (cpu)")
    parser.add_argument(
        "--calibration", metavar="DATASET:SPLIT", help="the samples to fit on, as for `attnbench run`"
    )
    parser.add_argument(
        "--records", action=Once, metavar="DIR",
        help="measure it and the model it is made from, keep the records here, state the scores in its card",
    )  # fmt: skip
    add_max_length(parser)
    add_include_path(parser)


def execute(options: argparse.Namespace) -> int:
    """Write a checkpoint without the heads that a method removes."""
    from attnbench.matrix.export import export, place

    settings = Settings(
        seed=options.seed, device=options.device, calibration=options.calibration,
        include_path=options.include_path, max_length=options.max_length,
    )  # fmt: skip
    console.quiet(options.verbose)
    console.introduce(options.model)
    content = export(options.model, options.task, options.method, options.folder, settings, options.records)
    for layer, heads in content["heads"].items():
        kept = ", ".join(map(str, heads)) or "-"
        say(f"{layer}: {len(heads)} of {content['of'][layer]} heads left: {kept}", sys.stdout)
    shown = place(options.folder)
    own = f" --include-path {options.include_path}" if options.include_path else ""
    laid_out.follow(f"attnbench compare {shown} {options.model} --task {options.task}{own}")
    return 0
