"""Where a task's prompts end, as its name says: needles@question, wikitext@prompt512. No heavy imports."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from attnbench.errors import UserError, unknown

AFTER = ("context", "question")
SHORTEST = 2  # tokens of a prompt
ENDED = re.compile(r"(.+)@([^@./\\]*)")


@dataclass(frozen=True)
class Ending:
    """What of a request is the prompt that caches are cut after.

    `after` the context that a task marks, as without a word, or the question too; `prompt`: so many tokens of
    each window of a text.
    """

    after: str | None = None
    prompt: int | None = None

    def __post_init__(self) -> None:
        if self.after is not None and self.after not in AFTER:
            raise unknown("cache_after", str(self.after), AFTER, f"It is {' or '.join(AFTER)}.")
        if self.prompt is not None and (type(self.prompt) is not int or self.prompt < SHORTEST):
            raise UserError(f"prompt={self.prompt!r} is not a whole number of at least {SHORTEST} tokens.")

    @property
    def option(self) -> str:
        """Name the option that says so, nothing where none does."""
        return "--cache-after" if self.after else "--prompt" if self.prompt else ""

    @property
    def written(self) -> str:
        """Return what follows a task's name."""
        return f"@prompt{self.prompt}" if self.prompt else f"@{self.after}" if self.after else ""

    @property
    def recorded(self) -> str:
        """Return what follows a task's name in records: nothing for what holds without a word."""
        return "" if self.after == "context" else self.written


def parted(name: str) -> tuple[str, Ending]:
    """Part a task's name, or its file, from what it says of prompts. Raises UserError."""
    found = ENDED.fullmatch(name)
    if found is None:
        return name, Ending()
    tokens = re.fullmatch(r"prompt(\d+)", found[2])
    if tokens:
        return found[1], Ending(prompt=int(tokens[1]))
    if found[2] not in AFTER:
        known = [*AFTER, "prompt512"]
        told = f"After @ stand {', '.join(known[:-1])} or promptN."
        raise UserError(f"task '{name}': {unknown('ending', found[2], known, told)}")
    return found[1], Ending(found[2])


def plain(name: str) -> str:
    """Return a task's name, or its file, without what it says of prompts; any other text as it is."""
    found = ENDED.fullmatch(name)
    return found[1] if found and (found[2] in AFTER or re.fullmatch(r"prompt\d+", found[2])) else name


def ended(tasks: Iterable[str], cache_after: str | None, prompt: int | None) -> tuple[str, ...]:
    """Return tasks with what is said of them all in their names. Raises UserError."""
    tasks = tuple(tasks)
    if cache_after is None and prompt is None:
        return tasks
    if cache_after is not None and prompt is not None:
        raise UserError(
            "--cache-after is for tasks that mark a context, --prompt for whole texts: say it of each task: "
            "--tasks needles@question,wikitext@prompt512"
        )
    ending = Ending(cache_after, prompt)
    if not tasks:
        raise UserError(f"{ending.option}: name the tasks that it is for: --tasks")
    for name in tasks:
        if parted(name)[1].written:
            raise UserError(f"task '{name}' says itself where its prompts end: leave {ending.option} out")
    return tuple(name + ending.written for name in tasks)
