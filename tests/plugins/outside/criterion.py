"""Criteria of head importance from outside: ranking, removal and realisation are those of `Heads`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from attnbench import Heads, Site, hookimpl

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class HeadsReach(Heads):
    """Remove the heads that look nearest: the mean distance of what they attend to counts as importance.

    importance = mean over examples and queries of sum_k p |q - k|. Shapes: probs (batch, heads, queries,
    keys), scores_ (heads,) per layer. Source: https://arxiv.org/abs/1905.09418.
    """

    name = "heads:reach"
    examples = ("heads50:reach",)

    def importance(self, model: Any, batches: list[dict[str, Tensor]]) -> dict[tuple[str, int], Tensor]:
        import torch

        from attnbench import watch

        sums: dict[tuple[str, int], Any] = {}

        def see(probs: Tensor, site: Site) -> None:
            if self.selects(site):
                rows = torch.arange(probs.shape[2], dtype=torch.float64)[:, None] + site.offset
                distance = (rows - torch.arange(probs.shape[3], dtype=torch.float64)).abs()
                reached = (probs.double().cpu() * distance).sum((0, 2, 3))
                counted = torch.full_like(reached, probs.shape[0] * probs.shape[2])
                key = site.kind, site.layer
                sums[key] = sums.get(key, 0) + torch.stack([reached, counted])

        with watch(model, probs=see), torch.no_grad():
            for batch in batches:
                model(**batch)
        return {key: (total / count).float() for key, (total, count) in sums.items()}


@dataclass
class HeadsSlope(Heads):
    """Remove the heads to which the loss is least sensitive, over all layers alike.

    importance_h = sum over examples and tokens of |dL/dg|, g = 1 a gate on the head. Shapes: scores_ (heads,)
    per layer. Needs labels. Source: https://arxiv.org/abs/1905.10650.
    """

    name = "heads:slope"
    examples = ("heads50:slope",)

    def importance(self, model: Any, batches: list[dict[str, Tensor]]) -> dict[tuple[str, int], Tensor]:
        from attnbench import head_sensitivity

        return head_sensitivity(model, batches, self.selects)


@dataclass
class HeadsCarried(Heads):
    """Remove the heads that speak least for the answer.

    importance_h = mean over examples of the head's part of the top logit, by CP-LRP. Shapes: scores_ (heads,)
    per layer. Source: https://arxiv.org/abs/2202.07304.
    """

    name = "heads:carried"
    examples = ("heads50:carried",)

    def importance(self, model: Any, batches: list[dict[str, Tensor]]) -> dict[tuple[str, int], Tensor]:
        from attnbench import discover, relevance

        chosen = {(site.kind, site.layer) for site in discover(model) if self.selects(site)}
        found = [relevance(model, batch).heads for batch in batches]
        count = sum(len(batch["input_ids"]) for batch in batches)
        return {
            key: (sum(heads[key].sum(0) for heads in found) / count).float()
            for key in found[0]
            if key in chosen
        }


@hookimpl
def register_methods(register: Any) -> None:
    register(HeadsReach)
    register(HeadsSlope)
    register(HeadsCarried)
