"""Global masks: the same attention entries hidden for every input."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from attnbench import Method, hookimpl

if TYPE_CHECKING:
    from torch import Tensor

    from attnbench import Site


@dataclass
class Mask(Method):
    """Hide the entries of smallest average attention over the calibration data, the same for every input.

    Per layer, with P[h, q, k] the mean probability over the calibration examples that have positions q and k,
    the floor(n p / 100) smallest of the n entries seen, heads pooled, are hidden before the softmax; ties go
    to the first. A query with no key left attends uniformly. Entries beyond the calibrated length are kept.
    Shapes: scores (batch, heads, queries, keys); hide_ (heads, tokens, tokens) per layer. Source: Rugina et
    al. 2020, https://arxiv.org/abs/2012.02030. Differs: padding and the structural zeros of causal attention
    are left out of the percentile (there they count, so that 40 % hides nothing of a causal pattern), and
    exactly the asked share is hidden (there every entry equal to the threshold, a constant pattern entirely).
    """

    name = "mask"
    examples = ("mask50", "mask90")
    empty = "uniform"

    percent: float

    def __post_init__(self) -> None:
        if not 0 <= self.percent <= 100:
            raise ValueError("the share to hide is between 0 and 100 percent")

    def fit(self, model: Any, batches: list[dict[str, Tensor]]) -> None:
        import torch

        from attnbench import watch

        total: dict[tuple[str, int], Tensor] = {}
        seen: dict[tuple[str, int], Tensor] = {}

        def add(probs: Tensor, site: Site) -> None:
            if not self.selects(site):
                return
            key, (queries, keys) = (site.kind, site.layer), probs.shape[-2:]
            last = site.offset + queries
            for table, rows in ((total, site.heads), (seen, 1)):
                old = table.get(key)
                size = (
                    max(last, old.shape[1] if old is not None else 0),
                    max(keys, old.shape[2] if old is not None else 0),
                )
                if old is None or size != tuple(old.shape[1:]):
                    table[key] = probs.new_zeros(
                        rows, *size, dtype=torch.float64 if rows > 1 else torch.float32
                    )
                    if old is not None:
                        table[key][:, : old.shape[1], : old.shape[2]] = old
            total[key][:, site.offset : last, :keys] += probs.sum(0)
            visible = (
                site.visible
                if site.visible is not None
                else probs.new_ones(len(probs), 1, 1, 1, dtype=torch.bool)
            )
            seen[key][:, site.offset : last, :keys] += visible.sum(0)

        with watch(model, probs=add), torch.no_grad():
            for batch in batches:
                model(**batch)
        self.hide_ = {
            key: self._hide(total[key] / seen[key].clamp(min=1), seen[key] > 0, key) for key in total
        }

    def _hide(self, average: Tensor, seen: Tensor, key: tuple[str, int]) -> Tensor:
        live = seen.expand_as(average)
        order = average[live].sort(stable=True).indices
        chosen = live.new_zeros(len(order))
        chosen[order[: int(len(order) * self.percent / 100)]] = True
        hide = live.new_zeros(live.shape)
        hide[live] = chosen
        return hide

    def scores(self, scores: Tensor, site: Site) -> Tensor:
        from torch.nn.functional import pad

        if (site.kind, site.layer) not in self.hide_:
            return scores
        queries, keys = scores.shape[-2:]
        hide = self.hide_[site.kind, site.layer][:, site.offset : site.offset + queries, :keys]
        if hide.shape[1:] != (queries, keys):
            hide = pad(hide, (0, keys - hide.shape[2], 0, queries - hide.shape[1]))
        fill = scores.masked_fill if scores.requires_grad else scores.masked_fill_
        return fill(hide, float("-inf"))


@dataclass
class MaskRandom(Mask):
    """Hide as many entries as `mask`, drawn uniformly from the same: the control at equal sparsity.

    Per layer, floor(n p / 100) of the n live entries, heads pooled. Shapes as `mask`.
    Source: the random baseline of Rugina et al. 2020, https://arxiv.org/abs/2012.02030. Differs: there
    nothing outside the block of positions seen is hidden at random although the informed mask hides it; here
    both keep it.
    """

    name = "mask:random"
    examples = ("mask50:random",)

    seed: int = field(default=0, kw_only=True)

    def _hide(self, average: Tensor, seen: Tensor, key: tuple[str, int]) -> Tensor:
        import torch

        draw = torch.Generator().manual_seed(hash_seed(self.seed, *key))
        return super()._hide(torch.rand(average.shape, generator=draw).to(average.device), seen, key)


def hash_seed(*parts: object) -> int:
    """Return a generator seed that differs for every layer and is the same in every process."""
    import hashlib

    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:7], "big")


@hookimpl
def register_methods(register):
    register(Mask)
    register(MaskRandom)
