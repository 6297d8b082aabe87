"""List the methods, or show one."""

from __future__ import annotations

import argparse
import inspect

from attnbench.cli.screen import laid_out
from attnbench.errors import UserError, screen_width
from attnbench.methods import catalogue, spec
from attnbench.methods.plugins import registry

DENSE = "The unmodified model."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `attnbench methods`."""
    parser.add_argument(
        "name",
        nargs="?",
        help="a name (prune, heads:entropy), a spec (prune80), or a word to look for in their texts (voita)",
    )
    parser.add_argument(
        "--examples", action="store_true", help="print one comma-separated line of specs to try"
    )


def execute(options: argparse.Namespace) -> int:
    """List every method with its first line, or show one whole."""
    known = registry().methods
    if options.examples:
        print(",".join(example for name in sorted(known) for example in known[name].examples))
    elif options.name:
        from attnbench.methods.describe import describe

        if options.name == "dense":
            print(DENSE)
        elif options.name not in known:
            variants = [name for name in sorted(known) if name.partition(":")[0] == options.name]
            try:
                names = variants or _named(options.name)
                print("\n\n".join(describe(name, screen_width()) for name in names))
            except UserError:
                if not (found := _about(options.name)):
                    raise
                _print_list([(name, _first_line(known[name])) for name in found])
        else:
            print(describe(options.name, screen_width()))
    else:
        rows = [(catalogue.usual(name), _first_line(known[name])) for name in sorted(known)]
        _print_list([("dense", DENSE), *rows])
    return 0


def _print_list(rows: list[tuple[str, str]]) -> None:
    print("\n".join(laid_out.listed(rows, screen_width())))


def _about(text: str) -> list[str]:
    """List the methods that have all these words in their name or docstring, as in voita or 2309.17453."""
    words = text.casefold().split()
    told = {name: f"{name} {inspect.getdoc(cls)}".casefold() for name, cls in registry().methods.items()}
    return [name for name in sorted(told) if words and all(word in told[name] for word in words)]


def _named(text: str) -> list[str]:
    try:
        return list(dict.fromkeys(method.name for method in spec.parse(text)))
    except UserError:
        raise spec.unknown_name(text) from None


def _first_line(cls: type) -> str:
    return (cls.__doc__ or "").strip().partition("\n")[0]
