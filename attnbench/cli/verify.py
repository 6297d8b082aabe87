"""Measure a cell again and compare it with its record."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from attnbench.cli.parsing import add_include_path, positive
from attnbench.errors import message, say
from attnbench.matrix import console
from attnbench.studies.looks import FOLDER


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `attnbench verify`."""
    parser.add_argument("record", metavar="RECORD.json", help="the file of a record")
    parser.add_argument(
        "--sample", type=positive, default=100, metavar="N", help="how many samples to measure again (100)"
    )
    parser.add_argument(
        "--model", metavar="PATH", help="where the checkpoint is now, if the record's was a folder"
    )
    parser.add_argument(
        "--task", metavar="FILE", help="where the task's YAML, .csv or .jsonl is now, if the task was a file"
    )
    parser.add_argument(
        "--calibration",
        metavar="FILE",
        help="where the file is now from which the method learned, if it was a file",
    )
    parser.add_argument(
        "--file", action="append", default=[], metavar="PATH",
        help="allow to read a file that the record's method names (repeatable)",
    )  # fmt: skip
    parser.add_argument(
        "--trust-remote-code", action="store_true", help="let a checkpoint run Python code of its own"
    )
    add_include_path(parser)


def execute(options: argparse.Namespace) -> int:
    """Print how a cell measured again compares; 1 where the record does not stand."""
    console.quiet(options.verbose)
    where: dict[str, Any] = {
        "model": options.model, "task": options.task, "include_path": options.include_path,
        "calibration": options.calibration, "files": options.file,
        "trust_remote_code": options.trust_remote_code,
    }  # fmt: skip
    if FOLDER in Path(options.record).parts:
        from attnbench.studies import verify as looked

        lines, stands = looked.verify(options.record, **where)
    else:
        from attnbench.matrix import verify as again

        lines, stands = again.verify(options.record, options.sample, **where)
    for line in lines:
        say(message(line), sys.stdout)
    return 0 if stands else 1
