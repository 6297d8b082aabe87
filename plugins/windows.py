"""Windows: each query attends to the keys near it, and perhaps to the first ones."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from attnbench import Method, hookimpl

if TYPE_CHECKING:
    from torch import Tensor

    from attnbench import Site

FURTHEST = 2**62  # more than any distance, and an integer that torch can hold


class Local(Method):
    """What windows share: self-attention only, where a query and a key have a distance."""

    def reach(self) -> tuple[int, int]:
        """Return how many first keys every query sees, and the distance from which it sees no others."""
        raise TypeError(f"{type(self).__name__} does not say which keys are near")

    def selects(self, site: Site) -> bool:
        return site.kind != "cross" and super().selects(site)

    def scores(self, scores: Tensor, site: Site) -> Tensor:
        import torch

        first, width = (min(number, FURTHEST) for number in self.reach())
        queries, keys = scores.shape[-2:]
        # every row of the table is a piece of one line of distances, its last row the first piece
        distance = torch.arange(1 - queries, keys, device=scores.device) - site.offset
        line = scores.new_zeros(len(distance)).masked_fill_(distance.abs() >= width, float("-inf"))
        shift = line.unfold(0, keys, 1).flip(0)
        shift[:, : min(first, keys)] = 0
        return scores + shift if scores.requires_grad else scores.add_(shift)  # faster than to fill


@dataclass
class Window(Local):
    """Hide the keys further away than a local window.

    Query q sees key k where |q - k| < w, before the softmax: itself and w - 1 keys before it, in an encoder
    as many after it. Positions are the example's own, padding not counted; cross-attention is left alone.
    Shapes: scores (batch, heads, queries, keys). Source: the sliding window of Beltagy et al. 2020,
    https://arxiv.org/abs/2004.05150. Differs: their w counts both sides together, no token is global, and
    the model is not trained with it.
    """

    name = "window"
    examples = ("window64", "window8")

    width: int

    def __post_init__(self) -> None:
        if self.width < 1:
            raise ValueError("a window is at least 1 key wide: the query's own")

    def reach(self) -> tuple[int, int]:
        return 0, self.width


@dataclass
class Sink(Local):
    """Hide all keys but the first few and those in a local window.

    Query q sees key k where k < n or |q - k| < w, before the softmax; w is `window=`, 64 unless given.
    Positions are the example's own, padding not counted; cross-attention is left alone. Shapes: scores
    (batch, heads, queries, keys). Source: the attention sinks of Xiao et al. 2023,
    https://arxiv.org/abs/2309.17453. Differs: tokens keep their positions (there they count within the
    cache), and an encoder's window has two sides.
    """

    name = "sink"
    examples = ("sink4", "sink4:window=8")

    keys: int
    window: int = field(default=64, kw_only=True)

    def __post_init__(self) -> None:
        if self.keys < 1 or self.window < 1:
            raise ValueError("at least 1 first key and a window of at least 1 key, the query's own")

    def reach(self) -> tuple[int, int]:
        return self.keys, self.window


@hookimpl
def register_methods(register):
    register(Window)
    register(Sink)
