"""Write docs/commands.md from the command line's own parser.

python -m attnbench.cli.manual > docs/commands.md
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from attnbench.cli.main import parser

HEAD = """# Commands

<!-- written by: python -m attnbench.cli.manual > docs/commands.md -->

What `attnbench COMMAND --help` says. Every command also takes {shared}.
"""


def render() -> str:
    """Return docs/commands.md."""
    commands = subcommands(parser())
    parts = [HEAD.format(shared=", ".join(f"`{name}`" for name in shared(commands)))]
    for name, command in commands.items():
        parts.append(f"## attnbench {name}\n\n{command.description or summary(name)}\n")
        rows = [row for action in command._actions for row in _row(action, shared(commands))]
        if rows:
            parts.append("\n".join(["| argument | what |", "| --- | --- |", *rows]) + "\n")
    return "\n".join(parts)


def subcommands(top: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """Return the parsers of the commands by name."""
    (found,) = [action for action in top._actions if isinstance(action, argparse._SubParsersAction)]
    return dict(found.choices)


def summary(name: str) -> str:
    """Return what the list of commands says of one."""
    (found,) = [action for action in parser()._actions if isinstance(action, argparse._SubParsersAction)]
    return next(str(choice.help) for choice in found._choices_actions if choice.dest == name)


def shared(commands: dict[str, argparse.ArgumentParser]) -> list[str]:
    """List the options that every command has whose arguments attnbench reads itself."""
    own = [
        {option for action in command._actions for option in action.option_strings}
        for command in commands.values()
        if command.add_help
    ]
    first = next(command for command in commands.values() if command.add_help)
    common = set.intersection(*own)
    return [", ".join(a.option_strings) for a in first._actions if set(a.option_strings) & common]


def _row(action: argparse.Action, common: list[str]) -> Iterator[str]:
    names = ", ".join(action.option_strings)
    if names in common or action.help == argparse.SUPPRESS or action.nargs == argparse.REMAINDER:
        return
    value = action.metavar or (
        "{" + ",".join(map(str, action.choices)) + "}" if action.choices else action.dest
    )
    shown = f"{names} {value}" if names and action.nargs != 0 else names or str(value)
    yield f"| `{shown}` | {(action.help or '').replace('|', chr(92) + '|')} |"


if __name__ == "__main__":
    print(render(), end="")
