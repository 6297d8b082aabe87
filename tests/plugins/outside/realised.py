"""A realised method from outside: what is masked in simulation is cut out of the weights."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from attnbench import Method, Site, hookimpl

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class FirstHeads(Method):
    """Remove the first heads of every layer, all but one at most.

    context_h = 0 for h < min(n, heads - 1). Shapes: context (batch, heads, queries, head_dim).
    Source: https://arxiv.org/abs/1905.10650.
    """

    name = "first-heads"
    examples = ("first-heads1", "first-heads2")
    zero = 0

    count: int

    def context(self, context: Tensor, site: Site) -> Tensor:
        gone = min(self.count, site.heads - 1)
        if context.requires_grad:
            context = context.clone()
        context[:, :gone] = 0
        return context

    def realize(self, model: Any) -> contextlib.AbstractContextManager[None]:
        from attnbench import discover, without_heads

        kept = {
            (site.kind, site.layer): range(min(self.count, site.heads - 1), site.heads)
            for site in discover(model)
            if self.selects(site)
        }
        return without_heads(model, kept)


@hookimpl
def register_methods(register: Any) -> None:
    register(FirstHeads)
