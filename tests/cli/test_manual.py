"""docs/commands.md is what the parser says today."""

from __future__ import annotations

from pathlib import Path

from attnbench.cli import manual
from attnbench.cli.main import parser

DOCUMENT = Path(__file__).parents[2] / "docs" / "commands.md"


def test_the_document_is_up_to_date():
    message = "run: python -m attnbench.cli.manual > docs/commands.md"
    assert DOCUMENT.read_text(encoding="utf-8") == manual.render(), message


def test_every_argument_is_explained():
    commands = manual.subcommands(parser())
    assert {"run", "leaderboard", "methods", "check", "lm-eval", "lighteval"} <= set(commands)
    text = manual.render()
    for name, command in commands.items():
        assert f"\n## attnbench {name}\n" in text
        for action in command._actions:
            assert action.help or not command.add_help, f"{name}: {action.dest} has no help"
            assert all(option in text for option in action.option_strings)
