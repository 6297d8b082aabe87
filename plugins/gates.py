"""Gates on heads, trained to close as many as a penalty is worth."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from attnbench import hookimpl
from attnbench_plugins.heads import Removal

if TYPE_CHECKING:
    from torch import Tensor

    from attnbench import Site


@dataclass
class GatesL0(Removal):
    """Close the heads that the loss misses less than a penalty, by Hard Concrete gates trained on the task.

    Per head one number a, one sample a batch: s = sigmoid((ln u - ln(1 - u) + a) / 0.33), u ~ U(0, 1),
    g = clip(1.2 s - 0.1, 0, 1) multiplies the head's context. Minimised is the task's loss plus `penalty`
    times the sum over heads of P(g > 0) = sigmoid(a + 0.33 ln 11). At the end a head stays where a > 0: there
    the test gate clip(1.2 sigmoid(a) - 0.1, 0, 1) is above a half, and g = 1 is likelier than g = 0. Weights
    stay frozen, or with `train=all` are trained along at `weights-lr` and restored afterwards. Shapes:
    context (batch, heads, queries, head_dim); alive_, gates_ (heads,) per layer. Source: Voita et al. 2019,
    https://arxiv.org/abs/1905.09418, the constants of its code
    https://github.com/lena-voita/the-story-of-heads. Differs: the penalty is the paper's sum over heads (the
    code divides by the number of attention modules); gates begin open at a = ln 11 (there around 0, where
    every head is halved at once); in the end they are exactly 0 or 1 (there they may stay fractions); weights
    are frozen unless asked for (there they are trained along and stay so).
    """

    name = "gates:l0"
    examples = ("gates:l0:lr=0.3:penalty=0.1:steps=30",)

    penalty: float = field(default=0.03, kw_only=True)
    steps: int = field(default=300, kw_only=True)
    lr: float = field(default=0.05, kw_only=True)
    train: str = field(default="gates", kw_only=True)
    weights_lr: float = field(default=0.00005, kw_only=True)
    seed: int = field(default=0, kw_only=True)

    def __post_init__(self) -> None:
        if self.penalty < 0 or self.steps < 1 or self.lr <= 0 or self.weights_lr <= 0:
            raise ValueError("steps is at least 1, penalty at least 0, lr and weights-lr above 0")
        if self.train not in ("gates", "all"):
            raise ValueError(f"train={self.train} is neither gates nor all")

    def fit(self, model: Any, batches: list[dict[str, Tensor]]) -> None:
        from attnbench import HardConcrete, discover, final_gate, openness, own_weights, train

        device = next(model.parameters()).device
        sites = {(site.kind, site.layer): site.heads for site in discover(model) if self.selects(site)}
        if not sites:
            raise self.nowhere()
        gates = HardConcrete(sites, self.seed, device)
        groups = [{"params": list(gates.log_alpha.values()), "lr": self.lr}]
        with contextlib.ExitStack() as stack:
            if self.train == "all":
                weights = stack.enter_context(own_weights(model))
                groups.append({"params": list(weights.values()), "lr": self.weights_lr})
            stack.enter_context(gates.sampled(model))
            losses = train(
                model,
                batches,
                groups,
                lambda: self.penalty * sum(openness(a).sum() for a in gates.log_alpha.values()),
                steps=self.steps,
                seed=self.seed,
            )
            self._weights = {}
            if self.train == "all":
                self._weights = {name: weight.detach() for name, weight in weights.items()}
        final = {key: a.detach().cpu() for key, a in gates.log_alpha.items()}
        self.gates_ = {key: final_gate(a) for key, a in final.items()}
        self.alive_ = {key: (a > 0).float() for key, a in final.items()}
        self.losses_ = losses

    def alive(self, site: Site) -> Tensor | None:
        return self.alive_.get((site.kind, site.layer))

    def installed(self, model: Any) -> contextlib.AbstractContextManager[None]:
        from attnbench import with_weights

        return with_weights(model, self._weights)


@hookimpl
def register_methods(register):
    register(GatesL0)
