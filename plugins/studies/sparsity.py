"""How sparse attention is: what is zero, and how few keys hold half of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from attnbench import Study, by_head, hookimpl


@dataclass
class Sparsity(Study):
    """Count the probabilities that are exactly zero, of each head.

    zeros = #{p = 0} / #p over the (query, key) pairs that a query may see. Shapes: probs (batch, heads,
    queries, keys). Source: https://aclanthology.org/2021.findings-acl.363/.
    """

    name, examples, shown = "sparsity", ("sparsity",), ("zeros",)

    def begin(self, model: Any, sites: Any) -> None:
        self.zeros = {(site.kind, site.layer): 0.0 for site in sites}
        self.visible = dict(self.zeros)

    def probs(self, probs: Any, site: Any) -> None:
        import torch

        seen = torch.ones_like(probs[:, :1], dtype=torch.bool) if site.visible is None else site.visible
        key = site.kind, site.layer
        self.zeros[key] += ((probs == 0) & seen).sum((0, 2, 3)).double().cpu().numpy()
        self.visible[key] += float(seen.expand(len(probs), -1, -1, -1).sum())

    def tables(self) -> Any:
        return {"heads": by_head({"zeros": {key: self.zeros[key] / self.visible[key] for key in self.zeros}})}


@hookimpl
def register_studies(register: Callable[[type[Study]], None]) -> None:
    register(Sparsity)
