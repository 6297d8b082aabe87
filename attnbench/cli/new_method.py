"""Write a plugin file with a method, or a study, that works, and its test; or a package around it."""

from __future__ import annotations

import argparse

from attnbench.cli.screen import laid_out

STOPPED = ""  # some of the files may be there


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `attnbench new-method`."""
    parser.add_argument("name", help="the name of the method, as in my-method or heads:mine")
    parser.add_argument(
        "--kind",
        default="transform",
        metavar="KIND",
        help="what it does: transform, calibrated, trained, criterion, random-control, cache or study "
        "(transform)",
    )
    parser.add_argument(
        "--package", action="store_true", help="write a folder to install and publish: entry point, test, CI"
    )
    parser.add_argument(
        "--output", default=".", metavar="DIR", help="the folder to write to (the current one)"
    )


def execute(options: argparse.Namespace) -> int:
    """Write a method's plugin file and its test, or its package, and say what to do with them."""
    import shlex

    from attnbench.methods.scaffold import files, package

    if options.package:
        home = package.write(options.name, options.kind, options.output)
        print(home)
        does = f"pip install -e {shlex.quote(str(home))} && attnbench check {options.name}"
    else:
        method, test = files.write(options.name, options.kind, options.output)
        print(f"{method}\n{test}")
        does = f"attnbench check {options.name} --plugin {shlex.quote(str(method))}"
    laid_out.follow(does, before="next: edit, then ")
    return 0
