"""A transform from outside: a stage by a kernel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from attnbench import Method, Site, hookimpl, kernels

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class Crop(Method):
    """Zero every attention probability up to a share of the largest of its query, and divide by what is left.

    y = x [x > s max x] / sum of these. Shapes: probs (batch, heads, queries, keys).
    Source: https://arxiv.org/abs/1706.03762.
    """

    name = "crop"
    examples = ("crop0.2",)
    zero, grows = 0.0, "sparsity"

    share: float

    def __post_init__(self) -> None:
        if not 0 <= self.share < 1:
            raise ValueError("the share is at least 0 and under 1")

    def probs(self, probs: Tensor, site: Site) -> Tensor:
        left = kernels.threshold_rows(probs, self.share)
        return left / left.sum(-1, keepdim=True).clamp(min=1e-20)


@hookimpl
def register_methods(register: Any) -> None:
    register(Crop)
