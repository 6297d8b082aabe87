"""List the tasks and the models that fit."""

from __future__ import annotations

import argparse

from attnbench.cli.parsing import add_include_path
from attnbench.errors import screen_width


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `attnbench tasks`."""
    add_include_path(parser)


def execute(options: argparse.Namespace) -> int:
    """List the tasks, bundled and in a folder, with the models that fit."""
    from attnbench.inputs import listing

    print("\n".join(listing.task_lines(options.include_path, screen_width())))
    return 0
