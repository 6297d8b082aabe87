"""Tell whether attention has become a code, and how many bits it takes."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

LEVELS = 256  # more distinct values than this are no quantisation, nor are those of which most occur once


@dataclass
class Codes:
    """The distinct values of attention, example by example, while there are few enough to be a code."""

    most: int = 0
    known: Tensor | None = None  # all values so far, in order
    entropies: list[float] = field(default_factory=list)
    found: dict[tuple[str, int], list[tuple[Tensor, Tensor]]] = field(
        default_factory=lambda: defaultdict(list)
    )

    def add(self, key: tuple[str, int], values: Tensor) -> None:
        """Count the values of one example at one site."""
        if self.most > LEVELS or not values.numel():
            return
        distinct, counts = self._counted(values)
        self.most = max(self.most, len(counts))
        shares = counts.double() / counts.sum()
        self.entropies.append(-float((shares * shares.log2()).sum()))
        self.found[key].append((distinct, counts))

    def _counted(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Return distinct values in order and how often each occurs: a level is looked up, not sorted for."""
        import torch

        if self.known is not None:
            place = torch.searchsorted(self.known, values).clamp_(max=len(self.known) - 1)
            if bool((self.known[place] == values).all()):
                counts = place.bincount(minlength=len(self.known))
                return self.known[counts > 0], counts[counts > 0]
        distinct, counts = values.unique(return_counts=True)
        self.known = distinct if self.known is None else torch.cat([self.known, distinct]).unique()
        return distinct, counts

    def few(self) -> bool:
        """Tell whether the values are levels: few, and of those that are not 0 at least half occur again."""
        import torch

        once = others = 0
        for pairs in self.found.values():
            values, counts = (torch.cat(parts) for parts in zip(*pairs, strict=True))
            distinct, place = values.unique(return_inverse=True)
            total = torch.zeros_like(distinct, dtype=counts.dtype).index_add_(0, place, counts)
            once += int((total[distinct != 0] == 1).sum())
            others += int((distinct != 0).sum())
        return 0 < self.most <= LEVELS and 2 * once <= others
