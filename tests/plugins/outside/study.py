"""A study from outside: an observer, sums of each head, a table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from attnbench import NotApplicable, Site, Study, View, by_head, hookimpl

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class Distance(Study):
    """Say how far from a token its head looks.

    distance = mean over queries of sum_k p |k - q| / sum_k p, in tokens, of queries with a mass; `moved` the
    share of queries whose own token has less than half of it. Shapes: probs (batch, heads, queries, keys).
    Source: https://arxiv.org/abs/1706.03762, whose path lengths these are.
    """

    name, examples, shown = "distance", ("distance",), ("distance", "moved")

    def begin(self, model: Any, sites: list[Site]) -> None:
        own = [site for site in sites if site.kind != "cross"]
        if not own:
            raise NotApplicable("distance: a token has no place among the keys of a cross-attention")
        self.rows = {(site.kind, site.layer): torch.zeros(site.heads) for site in own}
        self.sums = {key: torch.zeros(2, len(rows), dtype=torch.float64) for key, rows in self.rows.items()}

    def probs(self, probs: Tensor, site: View) -> None:
        key = site.kind, site.layer
        if key not in self.rows:
            return
        places = torch.arange(site.columns, device=probs.device)
        apart = (places - (torch.arange(site.rows, device=probs.device) + site.offset)[:, None]).abs()
        weights = probs.double()
        mass = weights.sum(-1)
        real = mass > 0
        whole = mass.clamp(min=torch.finfo(torch.float64).tiny)
        near = (weights * (apart == 0)).sum(-1) / whole
        self.sums[key][0] += (((weights * apart).sum(-1) / whole) * real).sum((0, 2)).cpu()
        self.sums[key][1] += ((near < 0.5) & real).sum((0, 2)).cpu()
        self.rows[key] += real.sum((0, 2)).cpu()

    def tables(self) -> dict[str, Any]:
        found = {key: (sums / self.rows[key]).numpy() for key, sums in self.sums.items()}
        return {
            "heads": by_head(
                {name: {key: each[k] for key, each in found.items()} for k, name in enumerate(self.shown)}
            )
        }


@hookimpl
def register_studies(register: Any) -> None:
    register(Distance)
