"""What each query of a text sees, where that is a run of keys: its first and the one after its last."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from attnbench.engine.places.blocks import Block


@dataclass
class Span:
    """The visible keys of each query, from `low` up to `high`, of one block of examples."""

    queries: int
    keys: int
    offset: int
    low: Tensor
    high: Tensor

    @property
    def key(self) -> tuple[object, ...]:
        return self.queries, self.keys, self.offset, *(x.numpy(force=True).tobytes() for x in self.ends)

    @property
    def ends(self) -> tuple[Tensor, Tensor]:
        return self.low, self.high

    def visible(self, start: int, stop: int, keys: int) -> Tensor:
        """Tell which keys queries from `start` to `stop` see (queries, keys)."""
        at = torch.arange(keys, device=self.low.device)
        return (at >= self.low[start:stop, None]) & (at < self.high[start:stop, None])


# what queries see -> its span: all layers of a pass share one, and nothing here keeps it alive
_spans: WeakTensorKeyDictionary = WeakTensorKeyDictionary()


def span(block: Block) -> Span | None:
    """Return what the queries of a block see, None where it is no run of keys or differs among examples."""
    _, queries, keys = block.shape()
    if block.visible is None:
        low = torch.zeros(queries, dtype=torch.long)
        return Span(queries, keys, block.offset, low, low + keys)
    known = _spans.get(block.visible)
    if known is None or known[0] != block.offset:
        known = _spans[block.visible] = block.offset, _runs(block.visible[:, 0], block.offset)
    return known[1]


def _runs(visible: Tensor, offset: int) -> Span | None:
    first = visible[0]
    queries, keys = first.shape
    count = first.sum(-1)
    low = first.to(torch.uint8).argmax(-1)
    found = Span(queries, keys, offset, low, low + count)
    same = len(visible) == 1 or bool((visible == first).all())
    return found if same and torch.equal(found.visible(0, queries, keys), first) else None
