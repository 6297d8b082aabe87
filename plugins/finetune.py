"""The weights trained on, under the methods before it in a spec."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from attnbench import Method, NotApplicable, hookimpl

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class FineTune(Method):
    """Train the weights for some steps with the earlier terms applied, as in mask90+finetune500.

    weights = argmin over `steps` steps of Adam (learning rate `lr`, rising for a tenth of the steps, then
    falling to 0 in a straight line; dropout as in the model's configuration, gradients clipped to norm 1) of
    the task's loss on the calibration batches. The model gets them while the method is applied and its own
    back afterwards; a record keeps the losses, not the weights. A quantiser's gradient is the identity's. All
    weights are trained; with `on=` or `layers=` those of the layers that hold such a site, and no others.
    Shapes: every weight keeps its own. Source: training sparse models of Rugina et al. 2020,
    https://arxiv.org/abs/2012.02030, and of Voita et al. 2019, https://arxiv.org/abs/1905.09418. Differs: a
    number of steps on the calibration split, not the source's whole training; what the earlier terms learned
    stays fixed.
    """

    name = "finetune"
    examples = ("finetune20", "mask50+finetune20")

    steps: int
    lr: float = field(default=0.00005, kw_only=True)
    seed: int = field(default=0, kw_only=True)

    def __post_init__(self) -> None:
        if self.steps < 1 or self.lr <= 0:
            raise ValueError("steps is at least 1 and lr above 0")

    def fit(self, model: Any, batches: list[dict[str, Tensor]]) -> None:
        from attnbench import own_weights, train

        layers = self._layers(model)
        with own_weights(model) as weights:
            trained = {name: weight for name, weight in weights.items() if name.startswith(layers)}
            groups = [{"params": list(trained.values()), "lr": self.lr}]
            losses = train(model, batches, groups, steps=self.steps, seed=self.seed)
            self._weights = {name: weight.detach() for name, weight in trained.items()}
        self.losses_ = losses

    def _layers(self, model: Any) -> tuple[str, ...]:
        """Return what the names of weights to train begin with. Raises NotApplicable for no site."""
        from attnbench import discover, layer_of

        if not self.on and not self.layers:
            return ("",)
        chosen = [site.path for site in discover(model) if self.selects(site)]
        if not chosen:
            raise NotApplicable("finetune: on= and layers= choose no layer of this model")
        return tuple(f"{layer_of(model, path) or path}." for path in chosen)

    def installed(self, model: Any) -> contextlib.AbstractContextManager[None]:
        from attnbench import with_weights

        return with_weights(model, self._weights)

    def realize(self, model: Any) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()  # other weights cost nothing: `installed` is all there is to do


@hookimpl
def register_methods(register):
    register(FineTune)
