"""Say how far suites are: what is done, missing, failed or stale, by model and task."""

from __future__ import annotations

import argparse
import shlex
import sys

from attnbench.cli.parsing import MANY, Once
from attnbench.cli.screen import laid_out
from attnbench.errors import UserError, message, say, screen_width


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `attnbench status`."""
    parser.add_argument("suites", nargs="+", metavar="SUITE.toml", help="the suites to look at")
    parser.add_argument(
        "--models",
        **MANY,
        metavar="NAME",
        help="some of the suite's models only; NAME=./FOLDER says where one is",
    )
    parser.add_argument(
        "--records", action=Once, metavar="DIR", help="the folder of records (records/NAME beside the suite)"
    )
    parser.add_argument(
        "--missing", action="store_true",
        help="print one command for each model and task with cells to measure, for a shell or a queue",
    )  # fmt: skip


def execute(options: argparse.Namespace) -> int:
    """Print a row a model and task, or the commands. Returns 0 where all is done, else 1."""
    from attnbench.boards import chosen, progress, suite
    from attnbench.matrix.request import split_models
    from attnbench.matrix.sharing import leases

    if options.records and len(options.suites) > 1:
        raise UserError("--records: each suite has its own folder of records. Give one suite with it.")
    rows: list[tuple[str, ...]] = [("model", "task", *progress.STATES)]
    lines: list[str] = []
    done = True
    more = [text for each in options.plugin for text in ("--plugin", each)]
    more += [text for each in options.plugins_dir for text in ("--plugins-dir", each)]
    more += ["--records", options.records] if options.records else []
    for path in options.suites:
        each = suite.load(path)
        folder = options.records or each.records
        parts = chosen.parts(each, split_models(options.models), locate=False)
        for column in progress.columns(each, parts, folder):
            done &= column.cells["done"] == sum(column.cells.values())
            rows.append((column.model, column.task, *map(str, column.cells.values())))
            lines += column.lines
            if options.missing and column.open:
                print(progress.command(each, column, more))
        lines += [f"being measured: {cell}, by {owner}" for cell, owner in leases.held(folder)]
    if not options.missing:
        table, _ = laid_out.table(rows, 2, screen_width(), left=2)
        print("\n".join(table))
        for line in lines:
            say(message(line), sys.stdout)
        if not done:
            laid_out.follow(f"attnbench status {shlex.join(options.suites)} --missing")
    return 0 if done else 1
