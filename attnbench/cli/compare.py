"""Compare two recorded methods on the same samples."""

from __future__ import annotations

import argparse

from attnbench.cli.parsing import Once
from attnbench.methods import spec
from attnbench.records.record import RECORDS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `attnbench compare`."""
    parser.add_argument("a", metavar="A", help="a recorded method, as in prune80")
    parser.add_argument("b", metavar="B", help="another")
    parser.add_argument(
        "--records", action=Once, default=RECORDS, metavar="DIR", help=f"where they are ({RECORDS})"
    )
    parser.add_argument("--model", metavar="NAME", help="of this model only")
    parser.add_argument("--task", metavar="TASK", help="on this task only")


def execute(options: argparse.Namespace) -> int:
    """Print the difference of two methods with interval, p and the samples that flipped."""
    from attnbench.records import record
    from attnbench.statistics import pairs

    items = list(record.read_all(options.records))
    known = {method for methods in pairs.groups(items).values() for method in methods}
    # as it is recorded it needs no plugin
    a, b = (text if text in known else spec.format(spec.parse(text)) for text in (options.a, options.b))
    print("\n".join(pairs.report(items, a, b, options.model, options.task)))
    return 0
