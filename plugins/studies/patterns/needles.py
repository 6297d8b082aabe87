"""Heads of language models that copy an answer out of much else: needles in noise."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from attnbench_plugins.studies.patterns.largest import largest

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

Key = tuple[str, int]  # kind, layer
Span = tuple[int, int]

NOISE = (
    "The road bends once more before it comes to the bridge.",
    "Most of the shops open at nine and close at six.",
    "In winter the lake is too cold for anybody to swim.",
    "A bus goes to the station every quarter of an hour.",
    "The garden behind the school was planted last spring.",
    "People say that the bakery makes the best bread on Fridays.",
    "Nobody remembers when the old mill was built.",
    "The museum has a room of maps and a room of coins.",
    "After the rain the field was full of small birds.",
    "The market is held on the square, and in bad weather under the roof.",
    "Two streets further there is a workshop where chairs are mended.",
    "The night train stops here only when someone rings the bell.",
)
PLACES = ("the harbour", "the tower", "the library", "the theatre", "the castle", "the lighthouse")
COLOURS = ("blue", "green", "red", "white", "yellow", "black", "brown", "grey")
THINGS = ("lamp", "kettle", "violin", "mirror", "basket", "hammer", "blanket", "clock", "bottle", "drum")


def haystack(number: int, of: int, sentences: int, seed: int) -> tuple[str, Span, Span]:
    """Write one text: noise with a needle in it, a question, its answer.

    The needle of text `number`, from 0, lies at the depth number / (of - 1) of so many `sentences`. Returns
    the text, and the characters of the needle and of the answer.
    """
    draw = random.Random(f"{seed} needle {number}")
    noise = [draw.choice(NOISE) for _ in range(sentences)]
    first, second = draw.sample(THINGS, 2)
    place, colours = draw.choice(PLACES), draw.sample(COLOURS, 2)
    hidden = f"a {colours[0]} {first} and a {colours[1]} {second}"
    depth = round(sentences * number / max(1, of - 1))
    before, after = " ".join(noise[:depth]), " ".join(noise[depth:])
    needle = f"Hidden in {place} are {hidden}."
    start = f"{before} " if before else ""
    question = f" {after}\nWhat can be found in {place}? There you find"
    answer = len(start) + len(needle) + len(question) + 1
    text = f"{start}{needle}{question} {hidden}"
    return text, (len(start), len(start) + len(needle)), (answer, len(text))


@dataclass(frozen=True)
class Needle:
    """Where the answer of one text stands: its tokens in the text's noise, and once more at the text's end.

    `needle` and `answer` are ranges of tokens (first, one past the last): the sentence that tells the answer,
    and the answer itself, which the tokens before each of it have to predict.
    """

    needle: tuple[int, int]
    answer: tuple[int, int]


@dataclass
class Retrieved:
    """The share of an answer's tokens that a head copies from the needle, mean over texts.

    A head copies the token w at t where the query at t - 1 has its largest weight at a key of the needle that
    is w. Source: the retrieval score of Wu et al. 2024, section 2, https://arxiv.org/abs/2404.15574. Differs:
    the answer is given, not generated, and each of its tokens counts, also where two are alike.
    """

    hits: dict[Key, Any] = field(default_factory=dict)
    texts: dict[Key, int] = field(default_factory=dict)

    def add(
        self, key: Key, probs: Tensor, ids: Sequence[np.ndarray], needles: Sequence[Needle], offset: int = 0
    ) -> None:
        """Take in a tile (batch, heads, queries, keys); `ids` are those of the whole texts."""
        import numpy as np

        points = largest(probs)[0].cpu().numpy()  # (batch, heads, queries)
        for own, at, row in zip(ids, needles, points, strict=True):
            first, stop = at.answer
            for place in range(max(first - 1, offset), min(stop - 1, offset + probs.shape[2])):
                found = row[:, place - offset]
                inside = (found >= at.needle[0]) & (found < at.needle[1])
                copied = (inside & (own[found] == own[place + 1])).astype(float)
                self.hits[key] = self.hits.get(key, np.zeros(len(found))) + copied / (stop - first)
            if offset == 0:
                self.texts[key] = self.texts.get(key, 0) + 1

    def columns(self) -> dict[str, dict[Key, np.ndarray]]:
        """Return the mean, (kind, layer) -> one number a head."""
        return {"retrieval": {key: hits / self.texts[key] for key, hits in self.hits.items()}}
