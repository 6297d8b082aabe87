"""Lay out a repository of results that others can load, check and add to."""

from __future__ import annotations

import argparse
import sys

from attnbench.cli.parsing import Once
from attnbench.errors import UserError, say

STOPPED = "; each file that is there is whole, the same command writes the rest"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `attnbench publish`."""
    parser.add_argument("folder", metavar="DIR", help="the repository, or a new folder")
    parser.add_argument(
        "suites", nargs="*", metavar="FILE.toml",
        help="suites and files of looks to bring into it, with their records (default: all that is there)",
    )  # fmt: skip
    parser.add_argument(
        "--keep-as", action=Once, metavar="NAME",
        help="also copy all boards under this name, as in 2026.1, where they stay as they are",
    )  # fmt: skip
    parser.add_argument(
        "--against", action=Once, metavar="DIR",
        help="write nothing; print how the rows differ from those of an older version in this folder",
    )  # fmt: skip


def execute(options: argparse.Namespace) -> int:
    """Lay out a repository, or compare two versions of one."""
    from attnbench.boards.repository import comparison, layout

    if options.against is not None:
        if options.suites or options.keep_as:
            raise UserError("--against compares what lies in two folders: leave --keep-as and the suites out")
        print(comparison.against(options.folder, options.against), end="")
        return 0
    for each in layout.lay_out(options.folder, options.suites, options.keep_as):
        say(f"{each.path.with_suffix('.md')}: {each.title}", sys.stdout)
    say(f"next: git add {options.folder} and commit; a push to a code host is yours")
    return 0
