"""The commands that read records: leaderboard, compare, verify."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from attnbench.errors import UserError, require_folder
from attnbench.matrix import console
from attnbench.methods import spec
from attnbench.records.record import RECORDS

NAMED = 4  # files written that are listed one by one


def add_leaderboard(parser: argparse.ArgumentParser) -> None:
    """Add the options of `attnbench leaderboard`."""
    parser.add_argument(
        "suites", nargs="*", metavar="SUITE.toml", help="what to show of the records beside it"
    )
    parser.add_argument("--records", metavar="DIR", help=f"what to render ({RECORDS})")
    parser.add_argument(
        "--format",
        metavar="LIST",
        help="of md, html, csv, latex, text, plots (md; as a file given with --output ends; a suite with a "
        "folder: md,csv,plots)",
    )
    parser.add_argument("--output", metavar="PATH", help="write into this folder, or file, instead of stdout")
    parser.add_argument(
        "--check", action="store_true", help="print what is wrong with records or stale beside a suite"
    )


def add_compare(parser: argparse.ArgumentParser) -> None:
    """Add the options of `attnbench compare`."""
    parser.add_argument("a", metavar="A", help="a recorded method, as in prune80")
    parser.add_argument("b", metavar="B", help="another")
    parser.add_argument("--records", default=RECORDS, metavar="DIR", help=f"where they are ({RECORDS})")
    parser.add_argument("--model", metavar="NAME", help="of this model only")
    parser.add_argument("--task", metavar="TASK", help="on this task only")


def add_verify(parser: argparse.ArgumentParser, positive: Callable[[str], int]) -> None:
    """Add the options of `attnbench verify`."""
    parser.add_argument("record", metavar="RECORD.json", help="a record's file")
    parser.add_argument("--sample", type=positive, default=100, metavar="N", help="samples to measure (100)")
    parser.add_argument("--model", metavar="PATH", help="the checkpoint, where the record's was a folder")
    parser.add_argument("--task", metavar="FILE", help="where the task was a file: its YAML, .csv or .jsonl")
    parser.add_argument("--calibration", metavar="FILE", help="where samples to fit on came from a file")
    parser.add_argument("--trust-remote-code", action="store_true", help="run a checkpoint's own Python")


def leaderboard(options: argparse.Namespace) -> int:
    """Render records, all or those of suites, to stdout, a file or a folder; or check them."""
    from attnbench.boards import publish, suite

    paths = options.suites or [None]
    if options.records and len(paths) > 1:
        raise UserError("--records: each suite has its own folder of records. Give one suite with it.")
    if options.check:
        folder = options.records or (None if options.suites else RECORDS)
        found = [line for path in paths for line in publish.problems(path, folder)]
        print("\n".join(found) or "nothing wrong")
        return 1 if found else 0
    target = Path(options.output) if options.output else None
    into_folder = target is not None and (target.is_dir() or not target.suffix)
    asked = publish.formats(options.format)
    if into_folder:
        require_folder("--output", options.output)
    if target is not None and not into_folder:
        if len(paths) > 1:
            raise UserError(f"--output {target}: one file for {len(paths)} suites. Give a folder.")
        formats = [publish.format_of(target, asked)]
    else:
        formats = asked or list(publish.STANDARD if options.suites and into_folder else ("md",))
        if target is None and (len(formats) > 1 or publish.PLOTS in formats):
            raise UserError("--format: several files and plots need --output DIR")
    for path in paths:
        folder = options.records or (suite.load(path).records if path else RECORDS)
        board = publish.load(path, folder)
        if target is None:
            sys.stdout.write(publish.text(board, formats[0]))
        elif into_folder:
            files = publish.files(board, formats, Path(path).stem if path else "leaderboard")
            publish.write(files, target)
            names = ", ".join(files) if len(files) <= NAMED else f"{len(files)} files"
            print(f"written to {target}: {names}", file=sys.stderr)
        else:
            publish.write({target.name: publish.text(board, formats[0]).encode()}, target.parent)
            print(f"written to {target}", file=sys.stderr)
    return 0


def compare(options: argparse.Namespace) -> int:
    """Print the difference of two methods with interval, p and the samples that flipped."""
    from attnbench.records import record
    from attnbench.statistics import pairs

    items = list(record.read_all(options.records))
    known = {method for methods in pairs.groups(items).values() for method in methods}
    # as it is recorded it needs no plugin
    a, b = (text if text in known else spec.format(spec.parse(text)) for text in (options.a, options.b))
    print("\n".join(pairs.report(items, a, b, options.model, options.task)))
    return 0


def verify(options: argparse.Namespace) -> int:
    """Print how a cell measured again compares; 1 where the record does not stand."""
    console.quiet(options.verbose)
    from attnbench.matrix import verify as again

    lines, stands = again.verify(
        options.record, options.sample, model=options.model, task=options.task,
        include_path=options.include_path, calibration=options.calibration,
        trust_remote_code=options.trust_remote_code,
    )  # fmt: skip
    print("\n".join(lines))
    return 0 if stands else 1
