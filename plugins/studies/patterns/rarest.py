"""The rarest token of a text, by a corpus count, and how often a head points at it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from attnbench_plugins.studies.patterns.largest import largest

if TYPE_CHECKING:
    import numpy as np
    from pandas import DataFrame
    from torch import Tensor

Key = tuple[str, int]  # kind, layer
COMMON = 500  # a rarest token among so many most frequent ones is not rare
TARGETS = (1, 2)  # the rarest token, one of the two rarest


def rarest(ids: np.ndarray, plain: np.ndarray, counts: np.ndarray, most: int) -> frozenset[int]:
    """Return the places of the `most` rarest tokens of a text, none where that is not decided.

    `ids` and `plain` (no special token) are (tokens,), `counts` (vocabulary,) how often a corpus has each. It
    is not decided where the next token is as rare, or the rarest among the COMMON most frequent.
    """
    import numpy as np

    places = np.flatnonzero(plain)
    if len(places) <= most:
        return frozenset()
    order = places[np.argsort(counts[ids[places]], kind="stable")]
    rare = counts[ids[order]]
    if rare[most - 1] == rare[most] or int((counts > rare[0]).sum()) < COMMON:
        return frozenset()
    return frozenset(order[:most].tolist())


@dataclass
class Rarest:
    """Texts in which a head points at the rarest token: a text's largest weight, summed over its queries.

    Special tokens are neither queries nor keys. `counts` (vocabulary,) is how often a corpus has each token.
    """

    counts: np.ndarray
    hits: dict[tuple[Key, int], Any] = field(default_factory=lambda: defaultdict(float))
    texts: dict[tuple[Key, int], int] = field(default_factory=lambda: defaultdict(int))
    chance: dict[tuple[Key, int], float] = field(default_factory=lambda: defaultdict(float))
    places: dict[tuple[Key, int], dict[int, int]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(int))
    )
    _open: dict[Key, Any] = field(default_factory=dict)

    def add(
        self,
        key: Key,
        probs: Tensor,
        ids: Sequence[np.ndarray],
        special: Sequence[np.ndarray],
        offset: int = 0,
    ) -> None:
        """Take in a tile (batch, heads, queries, keys); `ids` and `special` are those of the whole texts."""
        import torch

        queries, keys, tokens = probs.shape[2], probs.shape[3], len(ids[0])
        plain = ~torch.from_numpy(special[0] if len(ids) == 1 else _stack(special)).to(probs.device)
        plain = plain.view(len(ids), tokens)
        asks = plain[:, None, offset : offset + queries, None]
        summed = (probs.double() * asks).sum(2)  # (batch, heads, keys)
        summed = torch.nn.functional.pad(summed, (0, tokens - keys))
        summed = summed + self._open.pop(key, 0) if offset else summed
        if offset + queries < tokens:
            self._open[key] = summed
            return
        points = largest(summed, plain[:, None]).cpu().numpy()  # (batch, heads)
        for row, (own, marks) in enumerate(zip(ids, special, strict=True)):
            for most in TARGETS:
                self._text(key, most, points[row], rarest(own, ~marks, self.counts, most), ~marks)

    def _text(
        self, key: Key, most: int, points: np.ndarray, wanted: frozenset[int], plain: np.ndarray
    ) -> None:
        import numpy as np

        if not wanted:
            return
        at, own = (key, most), np.flatnonzero(plain)
        self.hits[at] += np.isin(points, list(wanted)).astype(float)
        self.texts[at] += 1
        self.chance[at] += most / len(own)
        for place in {int(np.searchsorted(own, each)) for each in wanted}:
            self.places[at][place] += 1
            self.places[at][place - len(own)] += 1

    def table(self) -> DataFrame:
        """Return a row a head and target: 1 the rarest token, 2 one of the two rarest.

        `share` of `texts` in which the head points there, `chance` mean of 1/n (2/n), `place` the one place,
        from 0 for the first token or -1 for the last, that is right most often, and `at_place` how often.
        """
        import pandas as pd

        rows = []
        for (key, most), hits in sorted(self.hits.items()):
            at, texts = (key, most), self.texts[key, most]
            place, right = max(self.places[at].items(), key=lambda item: (item[1], -abs(item[0])))
            for head, hit in enumerate(hits):
                rows.append(
                    (*key, head, most, hit / texts, texts, self.chance[at] / texts, place, right / texts)
                )
        names = ["kind", "layer", "head", "target", "share", "texts", "chance", "place", "at_place"]
        return pd.DataFrame(rows, columns=names).set_index(names[:4])


def _stack(arrays: Sequence[np.ndarray]) -> np.ndarray:
    import numpy as np

    return np.stack(arrays)
