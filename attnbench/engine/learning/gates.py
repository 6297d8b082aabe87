"""Gates on heads: of one, for what the loss would do if a head were turned down, and Hard Concrete ones."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from attnbench.errors import NotApplicable
from attnbench.methods.protocol import Method, Site

if TYPE_CHECKING:
    from torch import Tensor, nn


PART_OF_METHODS = True  # what is learned here is learned by a method: its identity covers this file
TEMPERATURE, LOW, HIGH, EPSILON = 0.33, -0.1, 1.1, 1e-6
IGNORED = -100  # of a loss: transformers' own
OPEN = math.log((1 - LOW) / (HIGH - 1))  # from here on a test gate is 1


@dataclass
class TokenGates(Method):
    """Multiply each head's context at each token by a gate of one that asks for its gradient."""

    selected: Callable[[Site], bool]
    gates: list[tuple[tuple[str, int], Tensor]] = field(default_factory=list)

    def context(self, context: Tensor, site: Site) -> Tensor:
        if not self.selected(site):
            return context
        gate = context.new_ones(*context.shape[:3], 1).requires_grad_()
        self.gates.append(((site.kind, site.layer), gate))
        return context * gate


@dataclass
class Silenced(Method):
    """Zero the context of one head, at the sites that `on` and `layers` select."""

    head: int

    def context(self, context: Tensor, site: Site) -> Tensor:
        if context.requires_grad:
            context = context.clone()
        context[:, self.head] = 0
        return context


def head_sensitivity(
    model: nn.Module, batches: list[dict[str, Tensor]], selected: Callable[[Site], bool]
) -> dict[tuple[str, int], Tensor]:
    """Sum |dL/dgate| over examples and tokens: (kind, layer) -> (heads,).

    L is the sum of the losses that a batch's loss is the mean of: of examples, or of tokens with a label.
    Raises NotApplicable where the batches carry no labels.
    """
    import torch

    from attnbench.engine.places.sites import discover
    from attnbench.engine.serving.attention import apply

    gates = TokenGates(selected)
    causal = {site.kind for site in discover(model, headless=True)} == {"decoder"}
    sums: dict[tuple[str, int], Tensor] = {}
    with apply(model, gates), torch.enable_grad():
        for batch in batches:
            gates.gates.clear()
            loss = getattr(model(**batch), "loss", None)
            if loss is None:
                raise NotApplicable(
                    "a gradient criterion needs labels, and this task's calibration data has none"
                )
            if not gates.gates:
                break
            total = loss * _losses(batch, causal)
            gradients = torch.autograd.grad(total, [gate for _, gate in gates.gates])
            for (key, _), gradient in zip(gates.gates, gradients, strict=True):
                wide = torch.promote_types(gradient.dtype, torch.float32)
                sums[key] = (
                    sums.get(key, torch.zeros((), dtype=torch.float64))
                    + gradient.abs().to(wide).sum((0, 2, 3)).double().cpu()
                )
    return {key: total.float() for key, total in sums.items()}


def _losses(batch: dict[str, Tensor], causal: bool) -> int:
    """Count what a batch's loss is the mean of; a causal model has nothing to say of the first token."""
    labels = batch.get("labels")
    if labels is None or labels.dim() != 2 or labels.is_floating_point():
        return len(batch["input_ids"])
    return int((labels[:, causal:] != IGNORED).sum())


class HardConcrete(Method):
    """Multiply each head's context by a gate in [0, 1], drawn anew before every forward pass.

    `log_alpha`: (kind, layer) -> (heads,), at first OPEN.
    """

    name = "hard-concrete"

    def __init__(self, sites: Mapping[tuple[str, int], int], seed: int, device: Any) -> None:
        import torch

        super().__init__()
        self.log_alpha = {
            key: torch.full((heads,), OPEN, device=device, requires_grad=True)
            for key, heads in sorted(sites.items())
        }
        self._draw = torch.Generator().manual_seed(seed)
        self._gates: dict[tuple[str, int], Tensor] = {}

    @contextlib.contextmanager
    def sampled(self, model: nn.Module) -> Iterator[None]:
        """Apply the gates to a model."""
        from attnbench.engine.serving.attention import apply

        handle = model.register_forward_pre_hook(lambda *_: self._sample())
        try:
            with apply(model, self):
                yield
        finally:
            handle.remove()

    def _sample(self) -> None:
        import torch

        for key, log_alpha in self.log_alpha.items():
            uniform = torch.rand(len(log_alpha), generator=self._draw).clamp(EPSILON, 1 - EPSILON)
            self._gates[key] = sample_gate(log_alpha, uniform.to(log_alpha))

    def context(self, context: Tensor, site: Site) -> Tensor:
        gate = self._gates.get((site.kind, site.layer))
        return context if gate is None else context * gate.to(context.dtype).view(1, -1, 1, 1)


def sample_gate(log_alpha: Tensor, uniform: Tensor) -> Tensor:
    """Return a training gate: clip(sigmoid((logit u + log alpha) / 0.33) 1.2 - 0.1, 0, 1)."""
    return _stretched(((uniform.logit() + log_alpha) / TEMPERATURE).sigmoid())


def final_gate(log_alpha: Tensor) -> Tensor:
    """Return a gate without noise or temperature: clip(sigmoid(log alpha) 1.2 - 0.1, 0, 1)."""
    return _stretched(log_alpha.sigmoid())


def openness(log_alpha: Tensor) -> Tensor:
    """Return P(training gate > 0) = sigmoid(log alpha - 0.33 ln(0.1 / 1.1))."""
    return (log_alpha - TEMPERATURE * math.log(-LOW / HIGH)).sigmoid().clamp(EPSILON, 1 - EPSILON)


def _stretched(share: Tensor) -> Tensor:
    return (share * (HIGH - LOW) + LOW).clamp(0, 1)
