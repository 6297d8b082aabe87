"""Where a head looks by position: how sure it is, at which offset, at the first token, separators, itself."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from attnbench_plugins.studies.patterns.largest import NONE, largest

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

Key = tuple[str, int]  # kind, layer
FROM = 16  # the position from which a query counts for `sink`: before it there are few other keys


@dataclass
class Rows:
    """The rows that a tile shows: which of its tokens are special, or separators, and what may be seen.

    `queries` and `keys` (batch, tokens) are True for special tokens, `separators` (batch, keys) for those
    that part or end texts. `visible` is (batch, 1, queries, keys), None for all. `offset` is the position of
    the first query among the keys.
    """

    queries: Tensor
    keys: Tensor
    separators: Tensor
    visible: Tensor | None = None
    offset: int = 0


@dataclass
class Places:
    """Sums over queries, in float64, for each head of each site; `columns` divides them.

    Shapes: probs (batch, heads, queries, keys). A query counts where it is no special token and sees two keys
    at least: of one alone nothing can be said. Its largest weight has to be one key's alone.
    """

    sums: dict[Key, dict[str, Any]] = field(default_factory=lambda: defaultdict(dict))
    asked: dict[Key, int] = field(default_factory=lambda: defaultdict(int))

    def add(self, key: Key, probs: Tensor, rows: Rows) -> None:
        """Take in a tile of attention weights of the site (kind, layer)."""
        import torch

        probs = probs.to(torch.promote_types(probs.dtype, torch.float32))
        batch, heads, queries, keys = probs.shape
        seen = torch.ones(1, 1, 1, 1, dtype=torch.bool, device=probs.device)
        seen = (seen if rows.visible is None else rows.visible).expand(batch, 1, queries, keys)
        plain = seen & ~rows.keys[:, None, None]
        asks = ~rows.queries[:, None] & (seen.sum(-1) > 1)  # (batch, 1, queries)
        where = torch.arange(queries, device=probs.device) + rows.offset
        top, most = largest(probs)
        found = {
            "confidence_all": (most, seen.any(-1)),
            "confidence": (probs.masked_fill(~plain, 0).amax(-1), asks & (plain.sum(-1) > 1)),
            "first": (top == 0, asks),
            "first_weight": (probs[..., 0], asks),
            "sink": (probs[..., 0], seen[..., 0] & (where >= FROM)),
        }
        if bool(rows.separators.any()):
            parting = rows.separators[:, None]
            hit = parting.expand(-1, heads, -1).gather(-1, top.clamp(min=0)) & (top != NONE)
            found["separator"] = hit, asks
            found["separator_weight"] = (probs @ parting.to(probs)[..., None])[..., 0], asks
        if key[0] != "cross":
            found["self"] = top == where, asks
            own = where.clamp(max=keys - 1)[:, None].expand(batch, heads, queries, 1)
            found["self_weight"] = probs.gather(-1, own)[..., 0], asks
            self._offsets(key, top, where, asks, seen)
        values = torch.stack([each.double() for each, _ in found.values()])
        counted = torch.stack([each for _, each in found.values()])
        totals, counts = (values * counted).sum((1, 3)).cpu().numpy(), counted.sum((1, 2, 3)).tolist()
        for name, total, count in zip(found, totals, counts, strict=True):
            before, number = self.sums[key].get(name, (0.0, 0))
            self.sums[key][name] = before + total, number + count

    def _offsets(self, key: Key, top: Tensor, where: Tensor, asks: Tensor, seen: Tensor) -> None:
        """Count, by key - query, largest weights (heads, offsets), and queries that see a key there."""
        import torch

        heads, keys, width = top.shape[1], seen.shape[-1], max(int(where[-1]), seen.shape[-1] - 1)
        line = torch.arange(keys, device=top.device)
        self.asked[key] += int(asks.sum())
        asked = (seen & asks[..., None]).sum((0, 1))  # (queries, keys)
        possible = asked.new_zeros(2 * width + 1)
        possible.index_add_(0, (line - where[:, None] + width).flatten(), asked.flatten())
        found = (top != NONE) & asks
        at = top - where + width + (2 * width + 1) * torch.arange(heads, device=top.device)[:, None]
        hits = torch.bincount(at[found], minlength=heads * (2 * width + 1)).view(heads, -1)
        both = torch.cat([hits, possible[None]]).cpu().numpy()
        self.sums[key]["offsets"] = _wider(self.sums[key].get("offsets"), both)

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
                if name != "offsets":
                    total, count = value
                    if count:
                        found[name][key] = np.asarray(total) / count
                    continue
                hits, possible = value[:-1], value[-1]
                if not possible.any():
                    continue
                middle = len(possible) // 2
                nearest = np.argsort(np.abs(np.arange(len(possible)) - middle), kind="stable")
                order = nearest[2 * possible[nearest] >= self.asked[key]]
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
