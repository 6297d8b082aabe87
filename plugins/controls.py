"""Controls: what a model can do without choosing where to look."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from attnbench import Method, hookimpl

if TYPE_CHECKING:
    from torch import Tensor

    from attnbench import Site


@dataclass
class Uniform(Method):
    """Weight every visible key equally: the uniform-attention baseline, which every method should beat.

    p[q, k] = 1 / n for each of the n keys that query q may see and no earlier method hides; shapes (batch,
    heads, queries, keys). With no selection left, the model is a bag of words per layer. Source: the uniform
    baseline of Wiegreffe and Pinter 2019, https://aclanthology.org/D19-1002/; theirs is trained so, ours
    replaces the weights of a trained model.
    """

    name = "uniform"
    examples = ("uniform",)

    def normalize(self, scores: Tensor, site: Site) -> Tensor:
        import torch

        lowest = torch.finfo(scores.dtype).min / 4  # what is hidden has a score under it
        given = scores.detach()
        seen = torch.gt(given, lowest, out=torch.empty_like(given) if scores.requires_grad else scores)
        if site.visible is not None:
            seen.mul_(site.visible)
        return seen.div_(seen.sum(-1, keepdim=True).clamp_(min=1))


@hookimpl
def register_methods(register):
    register(Uniform)
