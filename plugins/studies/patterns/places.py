"""Where a head looks by position: how sure it is, at which offset, at the first token, separators, itself."""

from __future__ import annotations

import functools
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from attnbench_plugins.studies.patterns.largest import NONE, largest

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

Key = tuple[str, int]  # kind, layer
MEANS = (
    "confidence", "confidence_all", "first", "first_weight", "separator", "separator_weight", "self",
    "self_weight", "sink",
)  # fmt: skip
FROM = 16  # the position from which a query counts for `sink`: before it there are few other keys


@dataclass
class Rows:
    """The rows that a tile shows: which of its tokens are special, or separators, and what may be seen.

    `queries` and `keys` (batch, tokens) are True for special tokens, `separators` (batch, keys) for those
    that part or end texts. `visible` is (batch, 1, queries, keys), None for all. `offset` is the position of
    the first query among the keys. What follows from these is the same in all layers: reckoned once.
    """

    queries: Tensor
    keys: Tensor
    separators: Tensor
    visible: Tensor | None = None
    offset: int = 0

    @functools.cached_property
    def where(self) -> Tensor:
        """The queries' positions among the keys (queries,)."""
        import torch

        return torch.arange(self.queries.shape[1], device=self.keys.device) + self.offset

    @functools.cached_property
    def seen(self) -> Tensor:
        """Which keys each query may see (batch, 1, queries, keys)."""
        shape = (len(self.keys), 1, self.queries.shape[1], self.keys.shape[1])
        return (self.keys.new_ones(1, 1, 1, 1) if self.visible is None else self.visible).expand(shape)

    @functools.cached_property
    def asks(self) -> Tensor:
        """Which queries count (batch, 1, queries)."""
        return ~self.queries[:, None] & (self.seen.sum(-1) > 1)

    @functools.cached_property
    def barred(self) -> Tensor:
        """Special tokens as keys (batch, 1, 1, keys)."""
        return self.keys[:, None, None]

    @functools.cached_property
    def counted(self) -> dict[str, Tensor]:
        """Which queries count in each mean (batch, 1, queries)."""
        plain = self.asks & ((self.seen & ~self.barred).sum(-1) > 1)
        sink = self.seen[..., 0] & (self.where >= FROM)
        own = {"confidence_all": self.seen.any(-1), "confidence": plain, "sink": sink}
        return {name: own.get(name, self.asks) for name in MEANS}

    @functools.cached_property
    def marked(self) -> bool:
        """Whether there is a separator among the keys."""
        return bool(self.separators.any())

    @functools.cached_property
    def possible(self) -> np.ndarray:
        """How many queries that count see a key at key - query (offsets,), the middle of which is 0."""
        asked = (self.seen & self.asks[..., None]).sum((0, 1))  # (queries, keys)
        line = asked.new_ones(asked.shape[1]).cumsum(0) - 1 + self.width
        found = asked.new_zeros(2 * self.width + 1)
        found.index_add_(0, (line - self.where[:, None]).flatten(), asked.flatten())
        return found.cpu().numpy()

    @functools.cached_property
    def width(self) -> int:
        """The largest distance there can be."""
        return max(self.offset + self.queries.shape[1], self.keys.shape[1]) - 1


@dataclass
class Places:
    """Sums over queries, in float64, for each head of each site; `columns` divides them.

    Shapes: probs (batch, heads, queries, keys). A query counts where it is no special token and sees two keys
    at least: of one alone nothing can be said. Its largest weight has to be one key's alone.
    """

    sums: dict[Key, dict[str, Any]] = field(default_factory=lambda: defaultdict(dict))

    def add(self, key: Key, probs: Tensor, rows: Rows) -> None:
        """Take in a tile of attention weights of the site (kind, layer)."""
        import torch

        probs = probs.to(torch.promote_types(probs.dtype, torch.float32))
        batch, heads, queries, keys = probs.shape
        top, most = largest(probs)
        first = probs[..., 0]
        found = {
            "confidence_all": most,
            "confidence": probs.masked_fill(rows.barred, 0).amax(-1),
            "first": top == 0,
            "first_weight": first,
            "sink": first,
        }
        if rows.marked:
            parting = rows.separators[:, None]
            hit = parting.expand(-1, heads, -1).gather(-1, top.clamp(min=0))
            found["separator"] = hit & (top != NONE)
            found["separator_weight"] = (probs @ parting.to(probs)[..., None])[..., 0]
        if key[0] != "cross":
            found["self"] = top == rows.where
            own = rows.where.clamp(max=keys - 1)[:, None].expand(batch, heads, queries, 1)
            found["self_weight"] = probs.gather(-1, own)[..., 0]
            self._offsets(key, top, rows)
        values = torch.stack([each.double() for each in found.values()])
        counted = torch.stack([rows.counted[name] for name in found])
        totals, counts = (values * counted).sum((1, 3)).cpu().numpy(), counted.sum((1, 2, 3)).tolist()
        for name, total, count in zip(found, totals, counts, strict=True):
            before, number = self.sums[key].get(name, (0.0, 0))
            self.sums[key][name] = before + total, number + count

    def _offsets(self, key: Key, top: Tensor, rows: Rows) -> None:
        """Count, by key - query, largest weights (heads, offsets), queries that see a key there, and all."""
        import numpy as np

        points, asks = top.cpu().numpy(), rows.asks.cpu().numpy()
        size, heads = 2 * rows.width + 1, top.shape[1]
        at = points - rows.where.cpu().numpy() + rows.width + size * np.arange(heads)[:, None]
        hits = np.bincount(at[(points != NONE) & asks], minlength=heads * size).reshape(heads, size)
        counts, asked = self.sums[key].get("offsets", (None, 0))
        both = np.concatenate([hits, rows.possible[None]])
        self.sums[key]["offsets"] = _wider(counts, both), asked + int(asks.sum())

    def columns(self) -> dict[str, dict[Key, np.ndarray]]:
        """Return what was found, each (kind, layer) -> one number a head; a column that has none is missing.

        `positional` is the share of queries with their largest weight at `offset`, of those that see a key
        there. It is the offset where most have it, of equals the nearest, of those where half of the queries
        see a key. The others are means over queries: of a weight, or of 1 where the largest is there.
        """
        import numpy as np

        found: dict[str, dict[Key, np.ndarray]] = defaultdict(dict)
        for key, sums in self.sums.items():
            for name, value in sums.items():
                total, count = value
                if name != "offsets":
                    if count:
                        found[name][key] = np.asarray(total) / count
                    continue
                hits, possible = total[:-1], total[-1]
                if not possible.any():
                    continue
                middle = len(possible) // 2
                nearest = np.argsort(np.abs(np.arange(len(possible)) - middle), kind="stable")
                order = nearest[2 * possible[nearest] >= count]
                best = order[hits[:, order].argmax(1)]
                most = hits[np.arange(len(hits)), best]
                found["offset"][key] = np.where(most > 0, best - middle, np.nan)
                found["positional"][key] = most / np.maximum(possible[best], 1)
        return dict(found)


def _wider(before: Any, more: Any) -> Any:
    """Add counts by offset, whose middle is offset 0, to those so far."""
    import numpy as np

    if before is None:
        return more
    small, large = sorted((before, more), key=lambda counts: counts.shape[1])
    side = (large.shape[1] - small.shape[1]) // 2
    return large + np.pad(small, ((0, 0), (side, side)))
