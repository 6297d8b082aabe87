"""The rarest token of a text, by a corpus count, and how often a head points at it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from attnbench_plugins.studies.patterns.largest import largest

if TYPE_CHECKING:
    import numpy as np
    from pandas import DataFrame
    from torch import Tensor

Key = tuple[str, int]  # kind, layer
Text = tuple[int, int]  # batch, number
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
    """Which token of each text each head points at: the one with the largest weight summed over the queries.

    Special tokens are neither queries nor keys. What is rare is asked at the end, of `table`: a number for
    each head and text is kept, and no weights.
    """

    points: dict[Key, list[tuple[Text, np.ndarray]]] = field(default_factory=lambda: defaultdict(list))
    texts: dict[tuple[str, Text], tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)
    _open: dict[Key, Any] = field(default_factory=dict)

    def add(
        self,
        key: Key,
        probs: Tensor,
        asks: Tensor,
        texts: Mapping[Text, tuple[np.ndarray, np.ndarray]],
        last: bool,
    ) -> None:
        """Take in a tile (batch, heads, queries, keys) of the site (kind, layer).

        `asks` (batch, queries) tells which queries count, `texts` the ids of each text's keys and which are
        plain, (tokens,) each, by its batch and number. `last` where the tile has the texts' last query.
        """
        import numpy as np
        import torch

        plain = torch.from_numpy(np.stack([each for _, each in texts.values()])).to(probs.device)
        summed = (asks[:, None, None].double() @ probs.double())[:, :, 0]  # (batch, heads, keys)
        summed = torch.nn.functional.pad(summed, (0, plain.shape[1] - summed.shape[2]))
        summed = summed + self._open.pop(key, 0)
        if not last:
            self._open[key] = summed
            return
        found = largest(summed, plain[:, None])[0].cpu().numpy()  # (batch, heads)
        for (number, text), row in zip(texts.items(), found, strict=True):
            self.points[key].append((number, row))
            self.texts[key[0], number] = text

    def counts(self) -> np.ndarray:
        """Count the plain tokens of the texts seen (vocabulary,): the corpus where no other is named."""
        import numpy as np

        seen = [ids[plain] for ids, plain in self.texts.values()]
        most = max((int(ids.max()) for ids, _ in self.texts.values()), default=0)
        return np.bincount(np.concatenate(seen), minlength=most + 1) if seen else np.zeros(1, dtype=int)

    def table(self, counts: np.ndarray) -> DataFrame:
        """Return a row a head and target: 1 the rarest token, 2 one of the two rarest by these counts.

        `share` of `texts` in which the head points there, `chance` mean of 1/n (2/n) over them, `place` the
        one place, from 0 for the first token or -1 for the last, that is right most often, `at_place` how
        often it is.
        """
        import numpy as np
        import pandas as pd

        rows: list[tuple[Any, ...]] = []
        wanted = {
            (*at, most): rarest(*text, counts, most) for at, text in self.texts.items() for most in TARGETS
        }
        for key, points in sorted(self.points.items()):
            for most in TARGETS:
                asked = [(number, row) for number, row in points if wanted[key[0], number, most]]
                if not asked:
                    continue
                rare = [wanted[key[0], number, most] for number, _ in asked]
                lengths = [int(self.texts[key[0], number][1].sum()) for number, _ in asked]
                right, place = self._best(key[0], [number for number, _ in asked], rare)
                hits = np.mean(
                    [np.isin(row, list(at)) for (_, row), at in zip(asked, rare, strict=True)], axis=0
                )
                known = (len(asked), most * float(np.mean(1 / np.array(lengths))), place, right / len(asked))
                rows += [(*key, head, most, float(hit), *known) for head, hit in enumerate(hits)]
        names = ["kind", "layer", "head", "target", "share", "texts", "chance", "place", "at_place"]
        return pd.DataFrame(rows, columns=names).set_index(names[:4])

    def _best(self, kind: str, numbers: Sequence[Text], rare: Sequence[frozenset[int]]) -> tuple[int, int]:
        """Return how often the best one place, counted from either end of the plain tokens, is right."""
        import numpy as np

        found: Counter[int] = Counter()
        for number, at in zip(numbers, rare, strict=True):
            own = np.flatnonzero(self.texts[kind, number][1])
            for place in {int(np.searchsorted(own, each)) for each in at}:
                found.update([place, place - len(own)])
        return max((count, -abs(place), place) for place, count in found.items())[::2]
