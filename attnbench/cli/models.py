"""List the models that have a short name: size, licence, tasks, dense scores."""

from __future__ import annotations

import argparse

from attnbench.errors import screen_width


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `attnbench models`: none of its own."""


def execute(options: argparse.Namespace) -> int:
    """List the models that have a short name."""
    from attnbench.inputs import listing

    print("\n".join(listing.model_lines(screen_width())))
    print("Any Hub id (with a slash), folder (./NAME) or .gguf file is a model too.")
    return 0
