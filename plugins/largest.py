"""Sparse attention that knows its scores: each query attends to the keys of its largest scores alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from attnbench import Method, hookimpl

if TYPE_CHECKING:
    from torch import Tensor

    from attnbench import Site


def hide(scores: Tensor, hidden: Tensor) -> Tensor:
    """Return scores with -inf where they are hidden, in place where no gradient is needed."""
    if scores.requires_grad:
        return scores.masked_fill(hidden, float("-inf"))
    return scores.masked_fill_(hidden, float("-inf"))


@dataclass
class TopK(Method):
    """Let every query attend to its k largest scores alone, renormalised.

    All but the min(k, n) largest of the n scores that a query may see become -inf before the softmax, ties to
    the lower key. Shapes: scores (batch, heads, queries, keys). Source: the oracle top-k of Lin et al. 2025,
    https://arxiv.org/abs/2502.02770. It computes every score to choose: what sparse attention with a perfect
    guess would give, no saving.
    """

    name = "topk"
    examples: ClassVar[tuple[str, ...]] = ("topk64", "topk4")

    count: int

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ValueError("at least 1 key is kept")

    def scores(self, scores: Tensor, site: Site) -> Tensor:
        if self.count >= scores.shape[-1]:
            return scores
        given = scores.detach()
        least = given.topk(self.count, sorted=False).values.amin(-1, keepdim=True)
        hidden = given < least
        if bool((hidden.sum(-1) < scores.shape[-1] - self.count).any()):  # more than one has the least score
            ties = given == least
            room = self.count - (given > least).sum(-1, keepdim=True)
            hidden |= ties & (ties.cumsum(-1) > room)
        return hide(scores, hidden)


@dataclass
class TopP(Method):
    """Let every query attend to the fewest keys whose attention sums to a share, renormalised.

    Of the probabilities of a query, largest first and ties to the lower key, those stay before which the sum
    is under p; the scores of the others become -inf before the softmax. Shapes: scores (batch, heads,
    queries, keys). Source: the oracle top-p of Lin et al. 2025, https://arxiv.org/abs/2502.02770. It computes
    every score to choose: what sparse attention with a perfect guess would give, no saving.
    """

    name = "topp"
    examples: ClassVar[tuple[str, ...]] = ("topp0.95", "topp0.5")
    zero = 1.0

    share: float

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise ValueError("the share of attention is over 0 and at most 1")

    def scores(self, scores: Tensor, site: Site) -> Tensor:
        import torch

        if self.share == 1:
            return scores
        probs = scores.detach().to(torch.promote_types(scores.dtype, torch.float32)).softmax(-1)
        ordered, order = probs.sort(dim=-1, descending=True, stable=True)
        before = ordered.cumsum(-1).sub_(ordered)
        return hide(
            scores, torch.empty_like(before, dtype=torch.bool).scatter_(-1, order, before >= self.share)
        )


@hookimpl
def register_methods(register):
    register(TopK)
    register(TopP)
