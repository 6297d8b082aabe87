"""Heads of language models that copy: on a sequence that repeats itself, and on needles in noise."""

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
COPIES = ("previous", "duplicate", "induction")


def repeated(
    vocabulary: Sequence[int], length: int, seed: int, number: int, begin: Sequence[int] = ()
) -> list[int]:
    """Draw `length` different tokens and write them twice, after what every text begins with.

    A token occurs earlier at one place only, so that a head that looks for it can find no other.
    """
    drawn = random.Random(f"{seed} repeated {number}").sample(list(vocabulary), length)
    return [*begin, *drawn, *drawn]


@dataclass
class Copies:
    """Mean weights of the second half of repeated sequences, for each head of each site.

    For the query at i of the second half and halves of L tokens: `previous` is its weight on i - 1,
    `duplicate` on i - L, where the same token stood, `induction` on i - L + 1, the token after it. Source:
    Olsson et al. 2022, https://arxiv.org/abs/2209.11895, and the three heads of TransformerLens.
    """

    sums: dict[Key, dict[str, Any]] = field(default_factory=dict)
    queries: dict[Key, int] = field(default_factory=dict)

    def add(self, key: Key, probs: Tensor, length: int, begin: int = 0, offset: int = 0) -> None:
        """Take in a tile (batch, heads, queries, keys); a text is `begin` tokens and twice `length`."""
        import torch

        where = torch.arange(probs.shape[2], device=probs.device) + offset
        row = (where >= begin + length).nonzero().flatten()
        if not len(row):
            return
        sums = self.sums.setdefault(key, dict.fromkeys(COPIES, 0.0))
        for name, back in {"previous": 1, "duplicate": length, "induction": length - 1}.items():
            weights = probs[:, :, row, where[row] - back]  # (batch, heads, rows)
            sums[name] = sums[name] + weights.double().sum((0, 2)).cpu().numpy()
        self.queries[key] = self.queries.get(key, 0) + len(row) * len(probs)

    def columns(self) -> dict[str, dict[Key, np.ndarray]]:
        """Return the three means, each (kind, layer) -> one number a head."""
        return {
            name: {key: sums[name] / self.queries[key] for key, sums in self.sums.items()} for name in COPIES
        }


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

        points = largest(probs).cpu().numpy()  # (batch, heads, queries)
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
