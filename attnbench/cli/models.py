"""List the models that have a short name: size, licence, tasks, dense scores."""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `attnbench models`: none of its own."""


def execute(options: argparse.Namespace) -> int:
    """List the models that have a short name."""
    from attnbench.inputs import listing

    print("\n".join(listing.model_lines()))
    print("Any Hub id (with a slash) and any folder (./NAME) is a model too.")
    return 0
