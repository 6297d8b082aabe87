"""Heads of language models that look for what stood there before, on a sequence that repeats itself."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

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
