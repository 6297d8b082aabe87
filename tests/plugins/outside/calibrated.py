"""A calibrated method from outside: it watches the model on the calibration data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from attnbench import Method, NotApplicable, Site, hookimpl

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class Peak(Method):
    """Zero every attention probability up to a share of what its head gives one key at most, on average.

    x survives where x > s m_h, m_h the mean over calibration data of each query's largest probability.
    Shapes: probs (batch, heads, queries, keys); mean_ (heads,) per layer. Source: https://arxiv.org/abs/1706.03762.
    """

    name = "peak"
    examples = ("peak0.1",)
    grows = "sparsity"

    share: float

    def fit(self, model: Any, batches: list[dict[str, Tensor]]) -> None:
        import torch

        from attnbench import watch

        sums: dict[tuple[str, int], Any] = {}
        rows: dict[tuple[str, int], int] = {}

        def see(probs: Tensor, site: Site) -> None:
            if self.selects(site):
                key = site.kind, site.layer
                sums[key] = sums.get(key, 0) + probs.amax(-1).double().sum((0, 2))
                rows[key] = rows.get(key, 0) + probs.shape[0] * probs.shape[2]

        with watch(model, probs=see), torch.no_grad():
            for batch in batches:
                model(**batch)
        if not sums:
            raise NotApplicable("peak: on= and layers= choose no layer of this model")
        self.mean_ = {key: (total / rows[key]).float() for key, total in sums.items()}

    def probs(self, probs: Tensor, site: Site) -> Tensor:
        bound = self.share * self.mean_[site.kind, site.layer].to(probs)[:, None, None]
        return probs * (probs.detach() > bound)


@hookimpl
def register_methods(register: Any) -> None:
    register(Peak)
