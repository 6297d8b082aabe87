"""Trained methods from outside: numbers of their own, the model's weights, gates that close heads."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from attnbench import Method, NotApplicable, Removal, Site, hookimpl

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class Warm(Method):
    """Multiply each head's scores by a trained factor, the model frozen.

    y = f_h x, f_h after that many steps of Adam on the task's loss plus 0.01 sum (f - 1)^2, from 1. Shapes:
    scores (batch, heads, queries, keys); factor_ (heads,) per layer. Needs labels.
    Source: https://arxiv.org/abs/1706.03762.
    """

    name = "warm"
    examples = ("warm5",)

    steps: int
    seed: int = field(default=0, kw_only=True)

    def fit(self, model: Any, batches: list[dict[str, Tensor]]) -> None:
        import torch

        from attnbench import apply, discover, train

        device = next(model.parameters()).device
        self.factor_ = {
            (site.kind, site.layer): torch.ones(site.heads, device=device, requires_grad=True)
            for site in discover(model)
            if self.selects(site)
        }
        factors = list(self.factor_.values())
        if not factors:
            raise NotApplicable("warm: on= and layers= choose no layer of this model")
        with apply(model, self):
            train(
                model,
                batches,
                [{"params": factors, "lr": 0.1}],
                lambda: 0.01 * sum(((factor - 1) ** 2).sum() for factor in factors),
                steps=self.steps,
                seed=self.seed,
            )
        self.factor_ = {key: factor.detach() for key, factor in self.factor_.items()}

    def scores(self, scores: Tensor, site: Site) -> Tensor:
        return scores * self.factor_[site.kind, site.layer].to(scores)[:, None, None]


@dataclass
class Retouch(Method):
    """Train the biases of the layers that attend.

    weights = argmin over that many steps of Adam of the task's loss. Shapes: every bias keeps its own. Needs
    labels. Source: https://arxiv.org/abs/2106.10199.
    """

    name = "retouch"
    examples = ("retouch5",)

    steps: int
    seed: int = field(default=0, kw_only=True)

    def fit(self, model: Any, batches: list[dict[str, Tensor]]) -> None:
        from attnbench import discover, layer_of, own_weights, train

        layers = tuple(
            f"{layer_of(model, site.path) or site.path}." for site in discover(model) if self.selects(site)
        )
        with own_weights(model) as weights:
            chosen = {
                name: weight
                for name, weight in weights.items()
                if name.startswith(layers) and name.endswith("bias")
            }
            if not chosen:
                raise NotApplicable("retouch: the layers chosen have no biases")
            groups = [{"params": list(chosen.values()), "lr": 0.01}]
            self.losses_ = train(model, batches, groups, steps=self.steps, seed=self.seed)
            self._weights = {name: weight.detach() for name, weight in chosen.items()}

    def installed(self, model: Any) -> contextlib.AbstractContextManager[None]:
        from attnbench import with_weights

        return with_weights(model, self._weights)

    def realize(self, model: Any) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()  # other weights cost nothing


@dataclass
class Closed(Removal):
    """Close the heads that the loss misses less than a penalty.

    A head stays where log alpha > 0, after that many steps on the loss plus 0.1 sum P(gate > 0). Shapes:
    context (batch, heads, queries, head_dim); alive_, gates_ (heads,) per layer. Needs labels.
    Source: https://arxiv.org/abs/1905.09418.
    """

    name = "closed"
    examples = ("closed30",)

    steps: int
    seed: int = field(default=0, kw_only=True)

    def fit(self, model: Any, batches: list[dict[str, Tensor]]) -> None:
        from attnbench import HardConcrete, discover, final_gate, openness, train

        device = next(model.parameters()).device
        sites = {(site.kind, site.layer): site.heads for site in discover(model) if self.selects(site)}
        if not sites:
            raise self.nowhere()
        gates = HardConcrete(sites, self.seed, device)
        learned = list(gates.log_alpha.values())
        with gates.sampled(model):
            train(
                model,
                batches,
                [{"params": learned, "lr": 0.3}],
                lambda: 0.1 * sum(openness(each).sum() for each in learned),
                steps=self.steps,
                seed=self.seed,
            )
        final = {key: each.detach().cpu() for key, each in gates.log_alpha.items()}
        self.gates_ = {key: final_gate(each) for key, each in final.items()}
        self.alive_ = {key: (each > 0).float() for key, each in final.items()}

    def alive(self, site: Site) -> Tensor | None:
        return self.alive_.get((site.kind, site.layer))


@hookimpl
def register_methods(register: Any) -> None:
    register(Warm)
    register(Retouch)
    register(Closed)
