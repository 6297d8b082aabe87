"""Bring records of several folders, as of two machines, into one."""

from __future__ import annotations

import argparse
import sys

from attnbench.errors import say

STOPPED = "; each record that is there is whole, the same command copies the rest"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `attnbench merge`."""
    parser.add_argument("folders", nargs="+", metavar="DIR", help="the folders of records to copy from")
    parser.add_argument(
        "--into",
        required=True,
        metavar="DIR",
        help="the folder to copy to; what is there is never overwritten",
    )


def execute(options: argparse.Namespace) -> int:
    """Copy records, of looks too, and name what conflicts. Returns 0, or 1 where one stayed where it was."""
    from attnbench.records import merging
    from attnbench.studies import merging as looked

    found = [merging.merge(options.folders, options.into), looked.merge(options.folders, options.into)]
    problems = [line for each in found for line in each.problems]
    for line in problems:
        say(f"attnbench: {line}")
    written, there = (sum(getattr(each, what) for each in found) for what in ("written", "there"))
    left = f", {len(problems)} left where they are" if problems else ""
    say(f"{options.into}: {written} written, {there} there already{left}", sys.stdout)
    return 1 if problems else 0
