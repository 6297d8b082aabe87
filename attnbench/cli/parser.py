"""An argparse whose mistakes are UserError, and whose help breaks between words."""

from __future__ import annotations

import argparse
import textwrap
from typing import Any, NoReturn

from attnbench.errors import UserError, near, unknown

MISSING = "the following arguments are required"
MOST = 8  # choices that a message names itself


class Help(argparse.RawDescriptionHelpFormatter):
    """Breaks help between its words alone: a command's name or an option holds hyphens."""

    def _split_lines(self, text: str, width: int) -> list[str]:
        return textwrap.wrap(text, width, break_on_hyphens=False, break_long_words=False)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        if "\n" in text:
            return super()._fill_text(text, width, indent)
        return textwrap.indent("\n".join(self._split_lines(text, width - len(indent))), indent)


class Parser(argparse.ArgumentParser):
    """Raises UserError, with the near name, where argparse would print its usage and leave."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**{"formatter_class": Help, **settings})
        self._given: list[str] = []

    def error(self, message: str) -> NoReturn:
        for token in self._given if message.startswith(MISSING) else ():  # it may stand by another name
            option = token.partition("=")[0]
            if option.startswith("--") and not any(n.startswith(option) for n in self._option_string_actions):
                raise self._unknown(option)
        raise UserError(f"{message}. {self._next()}")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        self._given = [*map(str, args or ())]
        found, rest = super().parse_known_args(args, namespace)
        if rest:
            raise self._unknown(rest[0].partition("=")[0])
        return found, rest

    def _unknown(self, token: str) -> UserError:
        nearest = near(token, self._option_string_actions, most=1)
        return UserError(f"unknown argument '{token}'.{nearest} {self._next()}")

    def _check_value(self, action: argparse.Action, value: object) -> None:
        if action.choices is not None and value not in action.choices:
            kind = (action.metavar or action.dest) if action.metavar != "COMMAND" else "command"
            few = len([*action.choices]) <= MOST
            told = f"Known: {', '.join(map(str, action.choices))}." if few else self._next()
            raise unknown(str(kind), str(value), action.choices, told)

    def _next(self) -> str:
        return f"`{self.prog} --help` shows what there is."
