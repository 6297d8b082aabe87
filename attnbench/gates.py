"""Gates of one on every head and token: what the loss would do if a head were turned down."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from attnbench.errors import NotApplicable
from attnbench.method import Method, Site

if TYPE_CHECKING:
    from torch import Tensor, nn


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


def head_sensitivity(
    model: nn.Module, batches: list[dict[str, Tensor]], selected: Callable[[Site], bool]
) -> dict[tuple[str, int], Tensor]:
    """Sum |dL/dgate| over examples and tokens: (kind, layer) -> (heads,), with L summed over the examples.

    Raises NotApplicable where the batches carry no labels.
    """
    import torch

    from attnbench.attention import apply

    gates = TokenGates(selected)
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
            gradients = torch.autograd.grad(loss * len(batch["input_ids"]), [gate for _, gate in gates.gates])
            for (key, _), gradient in zip(gates.gates, gradients, strict=True):
                sums[key] = (
                    sums.get(key, torch.zeros((), dtype=torch.float64))
                    + gradient.abs().sum((0, 2, 3)).double().cpu()
                )
    return {key: total.float() for key, total in sums.items()}
