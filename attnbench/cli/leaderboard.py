"""Render records as tables, pictures or a page."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from types import ModuleType

from attnbench.cli.measured import of_terminal
from attnbench.cli.parsing import Once, add_table
from attnbench.errors import UserError, message, require_folder, say
from attnbench.records.record import RECORDS

NAMED = 4  # files written that are listed one by one
STOPPED = "; each file that is there is whole, the same command writes the rest"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `attnbench leaderboard`."""
    parser.add_argument("suites", nargs="*", metavar="SUITE.toml", help="a suite; its records lie beside it")
    parser.add_argument(
        "--records", action=Once, metavar="DIR", help=f"the folder of records to render ({RECORDS})"
    )
    parser.add_argument(
        "--format",
        metavar="LIST",
        help="one or several of md, html, csv, latex, text and plots (default: by the ending of --output; "
        "md,csv,plots for a suite into a folder; text in a terminal; else md); ranks says which methods are "
        "separable; eee (Every Eval Ever), lm-eval and parquet are for other programs",
    )
    parser.add_argument("--output", metavar="PATH", help="write into this folder or file instead of stdout")
    parser.add_argument(
        "--check",
        action="store_true",
        help="print which records are wrong, and which rendered files of a suite are stale",
    )
    add_table(parser)


def execute(options: argparse.Namespace) -> int:
    """Render records, all or those of suites, to stdout, a file or a folder; or check them."""
    from attnbench.boards import publish

    paths = options.suites or [None]
    if options.records and len(paths) > 1:
        raise UserError("--records: each suite has its own folder of records. Give one suite with it.")
    if options.check:
        folder = options.records or (None if options.suites else RECORDS)
        found = [line for path in paths for line in _room(path).problems(path, folder)]
        for line in found or ["nothing wrong"]:
            say(message(line), sys.stdout)
        return 1 if found else 0
    if options.suites and options.output and options.sort != "family":
        raise UserError("--sort: what is written of a suite is in one order, by family. Leave --sort out.")
    target = Path(options.output) if options.output else None
    into_folder = target is not None and (target.is_dir() or not target.suffix)
    asked = publish.formats(options.format)
    if into_folder:
        require_folder("--output", options.output)
    if target is not None and not into_folder:
        if len(paths) > 1:
            raise UserError(f"--output {target}: one file for {len(paths)} suites. Give a folder.")
        asked = [publish.format_of(target, asked)]
    for path in paths:
        room = _room(path)
        seen = target is None and sys.stdout.isatty()
        usual = room.STANDARD if path and into_folder else (room.ON_SCREEN if seen else "md",)
        wanted = asked or list(usual)
        if target is None and publish.of_several_files(wanted):
            raise UserError(publish.NO_FOLDER)
        board = room.load(path, options.records or (None if path else RECORDS), options.sort)
        if target is None:
            print(room.text(board, wanted[0], screen=of_terminal(options)), end="")
        elif into_folder:
            files = room.files(board, wanted, Path(path).stem if path else "leaderboard")
            publish.write(files, target)
            names = ", ".join(files) if len(files) <= NAMED else f"{len(files)} files"
            say(f"written to {target}: {names}")
        else:
            publish.write({target.name: room.text(board, wanted[0]).encode()}, target.parent)
            say(f"written to {target}")
    return 0


def _room(path: str | None) -> ModuleType:
    """Return what reads and renders a file: a suite, one of looks, or none."""
    from attnbench.boards import publish
    from attnbench.boards.findings import asked
    from attnbench.boards.findings import publish as findings

    return findings if path and asked.is_of_looks(path) else publish
