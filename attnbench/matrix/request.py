"""What is asked of a run, read and checked once: models, tasks, methods, repeats and settings. No weights."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from typing import Any

from attnbench.errors import UserError, unknown
from attnbench.inputs.endings import ended, plain
from attnbench.inputs.files import expanded
from attnbench.inputs.names import is_place, named
from attnbench.inputs.prompting import NAMES, Prompting
from attnbench.inputs.settings import Settings, check_whole
from attnbench.methods.expand import expand

REPEATS = 3
Names = Iterable[str] | str


@dataclass(frozen=True)
class Request:
    """Models on tasks with methods; what draws is measured `repeats` times. No tasks are the models' own.

    The command line, a part of a suite and a call from Python all make one; `plan.plan` gives its cells.
    Raises UserError for no model and for a number or a setting that makes no sense.
    """

    models: tuple[str, ...]
    methods: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    repeats: int = REPEATS
    settings: Settings = field(default_factory=Settings)

    def __post_init__(self) -> None:
        check_whole("repeats", self.repeats, 1)
        if not self.models:
            raise UserError("no model: give --models, as in --models bert,roberta")

    @classmethod
    def of(
        cls,
        models: Names,
        methods: Names = (),
        tasks: Names = (),
        repeats: int = REPEATS,
        cache_after: str | None = None,
        prompt: int | None = None,
        **settings: Any,
    ) -> Request:
        """Read names as people give them: one text or several, comma lists among them.

        `cache_after` and `prompt` say of all tasks where their prompts end.
        """
        prompting = Prompting(**{name: settings.pop(name) for name in NAMES if name in settings})
        known = [each.name for each in fields(Settings)]
        for name in settings:
            if name not in known:
                raise unknown("setting", name, known, "`attnbench run --help` says what each does.")
        chosen = Settings(**settings, prompting=prompting)
        chosen_tasks = ended(split_tasks(tasks), cache_after, prompt)
        return cls(split_models(models), split_methods(methods), chosen_tasks, repeats, chosen)


def split(values: Names) -> tuple[str, ...]:
    """Flatten comma lists, several words and repeats, keeping the first of each.

    Raises UserError for a word of several that holds no name: a shell's empty variable, as a rule.
    """
    words = ([values] if values else []) if isinstance(values, str) else list(values or ())
    for word in words:
        if not word.strip(" ,"):
            raise UserError(f"{word!r} holds no name: give one, or leave its option out.")
    return tuple(dict.fromkeys(_name(part) for word in words for part in word.split(",") if part.strip()))


def _name(part: str) -> str:
    """Leave the blanks around a name out. Raises UserError where a file is named with them."""
    if part != part.strip() and os.path.lexists(part):
        raise UserError(f"'{part}' is there, with the blank in its name, which no list takes: rename it")
    return part.strip()


def split_methods(values: Names) -> tuple[str, ...]:
    """Split specs, with their braces written out: heads{10,30}:entropy is two.

    Raises UserError for a word that holds none, and for braces that are none.
    """
    words = ([values] if values else []) if isinstance(values, str) else list(values or ())
    return split([part for word in words for part in expand(word) or [word]])


def split_models(values: Names) -> tuple[str, ...]:
    """Split names of models, of which a word NAME=PLACE is one, commas and all.

    Raises UserError for a folder whose own name has a comma.
    """
    found: list[str] = []
    words = ([values] if values else []) if isinstance(values, str) else list(values or ())
    for word in map(str.strip, words):
        if "," in word and is_place(word) and expanded(word).exists():
            raise UserError(
                f"model '{word}': commas part names, and a folder here has one in its own: write NAME={word}"
            )
        found += [word] if named(word)[0] is not None else split([word])
    return tuple(dict.fromkeys(found))


def split_tasks(values: Names) -> tuple[str, ...]:
    """Split names of tasks. Raises UserError for a file whose own name has a comma."""
    for word in [values] if isinstance(values, str) else values:
        if "," in word and expanded(plain(word)).is_file():
            raise UserError(
                f"task '{word}': commas part names, and a file here has one in its own: rename it"
            )
    return split(values)
