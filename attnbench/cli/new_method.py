"""Write a plugin file with a method that works, and its test."""

from __future__ import annotations

import argparse
import sys

STOPPED = ""  # one of the two files may be there


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `attnbench new-method`."""
    parser.add_argument("name", help="the name of the method, as in my-method or heads:mine")
    parser.add_argument(
        "--kind",
        default="transform",
        metavar="KIND",
        help="what the method does: transform, calibrated, trained or cache (transform)",
    )
    parser.add_argument(
        "--output", default=".", metavar="DIR", help="the folder to write to (the current one)"
    )


def execute(options: argparse.Namespace) -> int:
    """Write a method's plugin file and its test, and say what to do with them."""
    from attnbench.methods import scaffold

    method, test = scaffold.write(options.name, options.kind, options.output)
    print(f"{method}\n{test}")
    print(f"next: edit, then attnbench check {options.name} --plugin {method}", file=sys.stderr)
    return 0
