"""List the studies, or show one."""

from __future__ import annotations

import argparse

from attnbench.cli.screen import laid_out
from attnbench.errors import UserError, screen_width
from attnbench.methods import spec
from attnbench.methods.plugins import registry


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `attnbench studies`."""
    parser.add_argument("name", nargs="?", help="a name (sparsity) or a spec (clamp4)")


def execute(options: argparse.Namespace) -> int:
    """List every study with its first line, or show one whole."""
    known = registry().studies
    if options.name:
        from attnbench.methods.describe import describe_study

        names = [name for name in sorted(known) if name.partition(":")[0] == options.name]
        if options.name in known:
            names = [options.name]
        print("\n\n".join(describe_study(name, screen_width()) for name in names or [_named(options.name)]))
        return 0
    classes = [known[name] for name in sorted(known)]
    rows = [
        (cls.examples[0] if cls.examples else cls.name, (cls.__doc__ or "").strip().partition("\n")[0])
        for cls in classes
    ]
    print("\n".join(laid_out.listed(rows, screen_width())))
    return 0


def _named(text: str) -> str:
    try:
        return spec.parse_study(text).name
    except UserError:
        raise spec.unknown_name(text.partition(":")[0], spec.STUDY) from None
