"""Compare two recorded methods on the same samples, or two checkpoints: an export and its original."""

from __future__ import annotations

import argparse
import contextlib
import sys
from typing import TYPE_CHECKING

from attnbench.cli.parsing import Once, add_include_path, positive
from attnbench.errors import UserError, say, screen_width
from attnbench.inputs import names
from attnbench.methods import spec
from attnbench.records.record import RECORDS

if TYPE_CHECKING:
    from attnbench.records.record import Record


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `attnbench compare`."""
    parser.add_argument(
        "a", metavar="A", help="a recorded method, as in prune80, or the folder of a model, as in ./smaller"
    )
    parser.add_argument(
        "b", metavar="B", help="another recorded method, or the model that the folder is compared with"
    )
    parser.add_argument(
        "--records", action=Once, default=RECORDS, metavar="DIR", help=f"the folder of records ({RECORDS})"
    )
    parser.add_argument("--model", metavar="NAME", help="compare two methods on this model only")
    parser.add_argument(
        "--task", metavar="TASK", help="compare two methods on this task only; two models are measured on it"
    )
    parser.add_argument(
        "--limit", type=positive, metavar="N", help="compare two models on the first N samples"
    )
    parser.add_argument(
        "--device", metavar="NAME", help="where two models are measured: cpu or cuda (cuda if there is a GPU)"
    )
    add_include_path(parser)


def execute(options: argparse.Namespace) -> int:
    """Print how two methods, or two models, differ: interval, p and the samples that flipped."""
    if any(names.is_place(names.named(each)[1]) for each in (options.a, options.b)):
        return _models(options)
    if options.limit or options.device or options.include_path:
        raise UserError(
            "--limit, --device and --include-path are for two models, of which one is a folder: ./FOLDER"
        )
    return _methods(options)


def _methods(options: argparse.Namespace) -> int:
    from attnbench.records import record
    from attnbench.statistics import pairs

    if options.a == options.b:
        raise UserError(f"'{options.a}' beside itself: give two methods")
    items: list[Record] = list(record.read_all(options.records))
    known = {method for methods in pairs.groups(items).values() for method in methods}
    # as it is recorded it needs no plugin
    a, b = (text if text in known else spec.format(spec.parse(text)) for text in (options.a, options.b))
    for line in pairs.report(items, a, b, options.model, options.task):
        say(line, sys.stdout)
    return 0


def _models(options: argparse.Namespace) -> int:
    from attnbench.cli.screen import stdout
    from attnbench.inputs.settings import Settings, default_device
    from attnbench.matrix import console
    from attnbench.matrix.sides import side_by_side

    if options.task is None:
        raise UserError("two models are compared on a task: give --task")
    if options.model is not None:
        raise UserError("--model is for recorded methods: of two models leave it out")
    console.quiet(options.verbose)
    settings = Settings(
        limit=options.limit, device=options.device or default_device(), include_path=options.include_path
    )
    with stdout.aside(), contextlib.closing(console.Console()) as listener:
        lines = side_by_side(
            (options.a, options.b), options.task, settings, options.records, listener, screen_width()
        )
    for line in lines:
        say(line, sys.stdout)
    return 0
