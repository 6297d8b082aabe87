"""Fit a context to a number of tokens: filler in between, and what is asked for at its depth."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from attnbench.errors import UserError

SINK, WINDOW = 4, 64  # tokens at a context's ends that a cache of sinks and a window keeps

Count = Callable[[str], int]


class Question(NamedTuple):
    """What is asked after a context: `fact` is the number of the fact that answers it, None for all text."""

    text: str
    prefix: str
    answer: str
    fact: int | None = 0


@dataclass(frozen=True)
class Draft:
    """What a context tells, each fact with its depth from 0 to 1, and what is asked of it."""

    facts: Sequence[tuple[str, float]]
    questions: Sequence[Question]


class Text(NamedTuple):
    """A context and the places of its facts: (first character, one past the last), in the draft's order."""

    context: str
    spans: list[tuple[int, int]]


def fitted(
    draft: Draft, write: Callable[[random.Random], str], rng: random.Random, count: Count, length: int
) -> Text:
    """Return the longest context whose prompts have `length` tokens at most, question and prefix included.

    A fact of depth d stands before sentence round(d n) of the n that are filled in. Raises UserError where
    not even one sentence has room.
    """
    written: list[str] = []
    more = _new(write, rng)

    def text(n: int) -> Text:
        written.extend(itertools.islice(more, max(0, n - len(written))))
        return _laid_out(draft, written[:n])

    def size(n: int) -> int:
        context = text(n).context
        return max(count(context + asked.text + asked.prefix) for asked in draft.questions)

    least = size(1)
    if least > length:
        raise UserError(
            f"a length of {length} tokens is too short: the shortest prompt has {least}. Ask for more."
        )
    n, left = 1, length - least
    while left > 0:  # about as many as there is room for, as tokens of sentences alone tell
        n += 1
        text(n)
        left -= count(f" {written[n - 1]}")
    while size(n) > length:
        n -= 1
    while size(n + 1) <= length:
        n += 1
    return text(n)


def _new(write: Callable[[random.Random], str], rng: random.Random) -> Iterator[str]:
    while True:
        yield write(rng)


def _laid_out(draft: Draft, filler: Sequence[str]) -> Text:
    order = sorted(range(len(draft.facts)), key=lambda number: draft.facts[number][1])
    before = {number: round(draft.facts[number][1] * len(filler)) for number in order}
    parts: list[tuple[int | None, str]] = [(None, sentence) for sentence in filler]
    for number in reversed(order):
        parts.insert(before[number], (number, draft.facts[number][0]))
    spans, at = [(0, 0)] * len(order), 0
    for part, sentence in parts:
        if part is not None:
            spans[part] = (at, at + len(sentence))
        at += len(sentence) + 1
    return Text(" ".join(sentence for _, sentence in parts), spans)


def in_middle(text: Text, fact: int | None, count: Count) -> bool:
    """Tell whether a fact lies outside the context's first SINK and last WINDOW tokens, every token of it."""
    if fact is None:
        return False
    start, end = text.spans[fact]
    first, last = count(text.context[:start].rstrip()), count(text.context[:end])
    return first >= SINK and last <= count(text.context) - WINDOW
