"""Windows: each query attends to the keys near it, and perhaps to the first ones."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from attnbench import Method, hookimpl

if TYPE_CHECKING:
    from torch import Tensor

    from attnbench import Site

FURTHEST = 2**31 - 1  # positions have 32 bits


class Local(Method):
    """What windows share: self-attention only, where a query and a key have a distance."""

    def far(self, queries: Tensor, keys: Tensor) -> Tensor:
        """Tell which keys are out of reach: positions (queries, 1) and (1, keys) to (queries, keys)."""
        raise TypeError(f"{type(self).__name__} does not say which keys are far")

    def selects(self, site: Site) -> bool:
        return site.kind != "cross" and super().selects(site)

    def scores(self, scores: Tensor, site: Site) -> Tensor:
        import torch

        rows, columns = (torch.arange(n, dtype=torch.int32, device=scores.device) for n in scores.shape[-2:])
        far = self.far(rows[:, None] + site.offset, columns)
        shift = scores.new_zeros(far.shape).masked_fill_(far, float("-inf"))  # adding is faster than filling
        return scores + shift if scores.requires_grad else scores.add_(shift)


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

    def far(self, queries: Tensor, keys: Tensor) -> Tensor:
        return (queries - keys).abs() >= min(self.width, FURTHEST)


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

    def far(self, queries: Tensor, keys: Tensor) -> Tensor:
        return ((queries - keys).abs() >= min(self.window, FURTHEST)) & (keys >= min(self.keys, FURTHEST))


@hookimpl
def register_methods(register):
    register(Window)
    register(Sink)
