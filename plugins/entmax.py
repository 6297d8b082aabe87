"""Entmax: a sparse map in place of the softmax."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from attnbench import Method, hookimpl

if TYPE_CHECKING:
    from torch import Tensor

    from attnbench import Site


SORTED = 16  # keys sorted at first: most rows give no more than a few keys any weight


@dataclass
class Entmax(Method):
    """Replace the softmax by entmax 1.5, which gives small scores exactly 0.

    p = max(z / 2 - t, 0)^2 with t such that sum_k p[q, k] = 1. Shapes: scores (batch, heads, queries, keys).
    Source: Peters et al. 2019, https://arxiv.org/abs/1905.05702, by their package `entmax`; used as attention
    by Rugina et al. 2020, https://arxiv.org/abs/2012.02030. Differs: neither the model nor its scale is
    trained for it. Scores are first raised to the row's maximum - 3, p being 0 up to the maximum - 2: hidden
    keys would overflow, and very small scores cost digits.
    """

    name = "entmax"
    examples = ("entmax",)

    def normalize(self, scores: Tensor, site: Site) -> Tensor:
        from entmax import entmax15

        exact = scores.float()  # its sums over keys need more digits than bfloat16 has
        lowest = exact.detach().amax(-1, keepdim=True).sub_(3)
        near = exact.maximum(lowest) if exact.requires_grad else exact.clamp_(min=lowest)
        return entmax15(near, dim=-1, k=SORTED).to(scores.dtype)


@hookimpl
def register_methods(register):
    register(Entmax)
