"""Bring records of several folders, as of two machines, into one."""

from __future__ import annotations

import argparse
import sys

STOPPED = "; each record that is there is whole, the same command copies the rest"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `attnbench merge`."""
    parser.add_argument("folders", nargs="+", metavar="DIR", help="folders of records, as in A B")
    parser.add_argument(
        "--into", required=True, metavar="DIR", help="where they go; what is there is never overwritten"
    )


def execute(options: argparse.Namespace) -> int:
    """Copy records and name what conflicts. Returns 0, or 1 where a record stayed where it was."""
    from attnbench.records import merging

    found = merging.merge(options.folders, options.into)
    for line in found.problems:
        print(f"attnbench: {line}", file=sys.stderr)
    left = f", {len(found.problems)} left where they are" if found.problems else ""
    print(f"{options.into}: {found.written} written, {found.there} there already{left}")
    return 1 if found.problems else 0
