"""Whole heads removed: by a criterion's ranking, at random, or those that are named."""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from attnbench import Method, NotApplicable, hookimpl

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from attnbench import Site

Scores = dict[tuple[str, int], "Tensor"]  # (kind, layer) -> (heads,)


class Removal(Method):
    """What all share: `alive` says which heads of a site stay, the context of the others is zero."""

    def nowhere(self) -> NotApplicable:
        """Build the error for a model without a head where the method is to act."""
        limits = [*(f"on={kind}" for kind in self.on), *(f"layers={layers}" for layers in self.layers)]
        return NotApplicable(f"{self.name}: no heads at {' '.join(limits) or 'all'}")

    def alive(self, site: Site) -> Tensor | None:
        """Return 1 for a head that stays, 0 for one that goes: (heads,), or None where all stay."""
        raise TypeError(f"{type(self).__name__} does not say which heads stay")

    def context(self, context: Tensor, site: Site) -> Tensor:
        alive = self.alive(site)
        if alive is None or bool(alive.all()):
            return context
        gate = alive.to(context).view(1, -1, 1, 1)
        return context * gate if context.requires_grad else context.mul_(gate)

    def realize(self, model: Any) -> contextlib.AbstractContextManager[None]:
        from attnbench import discover, without_heads

        kept = {}
        for site in discover(model):
            alive = self.alive(site) if self.selects(site) else None
            if alive is not None:
                kept[site.kind, site.layer] = alive.nonzero().flatten().tolist()
        return without_heads(model, kept)


@dataclass
class Heads(Removal):
    """What the criteria share: rank the selected heads, remove the floor(n p / 100) lowest.

    `removed_` tells how many were to go and how many went: fewer where `min-per-layer` keeps them.
    """

    criterion = True

    percent: float
    per_layer: bool = field(default=False, kw_only=True)
    min_per_layer: int = field(default=0, kw_only=True)
    steps: int = field(default=1, kw_only=True)

    def __post_init__(self) -> None:
        if not 0 <= self.percent <= 100:
            raise ValueError("the share of heads to remove is between 0 and 100 percent")
        if self.steps < 1 or self.min_per_layer < 0:
            raise ValueError("steps is at least 1 and min-per-layer at least 0")

    def importance(self, model: Any, batches: list[dict[str, Tensor]]) -> Scores:
        """Score every head, higher is more important; heads removed in an earlier step are gone already."""
        raise TypeError(f"{type(self).__name__} defines no importance")

    def fit(self, model: Any, batches: list[dict[str, Tensor]]) -> None:
        from attnbench import apply

        self.alive_: Scores = {}
        self.scores_: Scores = {}
        for step in range(1, self.steps + 1):
            if step == 1:
                scores = self.importance(model, batches)
                self.alive_ = {key: score.new_ones(len(score)) for key, score in scores.items()}
            else:
                with apply(model, self):
                    scores = self.importance(model, batches)
            if not scores:
                raise self.nowhere()
            self._fail_on_ties(scores, getattr(model, "dtype", None))
            self.scores_ = {
                key: score.where(self.alive_[key] > 0, self.scores_.get(key, score))
                for key, score in scores.items()
            }
            self._remove(self.percent * step / self.steps)

    def _fail_on_ties(self, scores: Scores, dtype: torch.dtype | None) -> None:
        """Raise ValueError where no kind of attention tells its heads apart.

        Kinds have sequences of different lengths: a sum over queries differs from kind to kind by that alone.
        """
        import torch

        eps = torch.finfo(dtype or torch.float32).eps  # what is scored was computed that precisely
        kinds: dict[str, list[Tensor]] = {}
        for key, score in sorted(scores.items()):
            kinds.setdefault(key[0], []).append(score[self.alive_[key] > 0])
        pooled = {kind: torch.cat(left) for kind, left in kinds.items()}
        if not torch.cat(list(pooled.values())).isfinite().all():
            raise ValueError(f"{self.name}: some heads have no finite score")
        several = {kind: left for kind, left in pooled.items() if len(left) > 1}
        if several and all(
            left.max() - left.min() <= max(1e-6, eps) * left.abs().max() for left in several.values()
        ):
            scores_of = {kind: f"{left[0].item():.6g}" for kind, left in several.items()}
            found = " and ".join(f"{score} in {kind}" for kind, score in scores_of.items())
            shown = found if len(set(scores_of.values())) > 1 else next(iter(scores_of.values()))
            raise ValueError(f"{self.name} cannot tell the heads apart: all score {shown}")

    def _remove(self, percent: float) -> None:
        ranked = sorted(  # heads of an earlier step come first: removed once, removed for good
            (bool(self.alive_[key][head]), score, key, head)
            for key, scores in self.scores_.items()
            for head, score in enumerate(scores.tolist())
        )
        budget = {key: int(len(scores) * percent / 100) for key, scores in self.scores_.items()}
        total = sum(budget.values()) if self.per_layer else int(len(ranked) * percent / 100)
        removed = dict.fromkeys(self.scores_, 0)
        for _, _, key, head in ranked:
            most = min(
                budget[key] if self.per_layer else len(self.scores_[key]),
                len(self.scores_[key]) - self.min_per_layer,
            )
            if sum(removed.values()) < total and removed[key] < most:
                self.alive_[key][head] = 0
                removed[key] += 1
        self.removed_ = {"asked": total, "removed": sum(removed.values())}

    def alive(self, site: Site) -> Tensor | None:
        return self.alive_.get((site.kind, site.layer))


@dataclass
class HeadsRandom(Heads):
    """Remove heads drawn at random: the control for every criterion at the same number of heads.

    Importance ~ U(0, 1) per head. Shapes: context (batch, heads, queries, head_dim), scores_ (heads,) per
    layer. Source: none of Michel et al. 2019 (https://arxiv.org/abs/1905.10650); the control its claim needs.
    """

    name = "heads:random"
    examples = ("heads50:random",)

    seed: int = field(default=0, kw_only=True)

    def importance(self, model: Any, batches: list[dict[str, Tensor]]) -> Scores:
        import torch

        from attnbench import discover

        draw = torch.Generator().manual_seed(self.seed)
        sites = {(site.kind, site.layer): site.heads for site in discover(model) if self.selects(site)}
        return {key: torch.rand(heads, generator=draw) for key, heads in sorted(sites.items())}


@dataclass
class HeadsFixed(Removal):
    """Remove the heads that are named: `off=3.5` is head 5 of layer 3, `off=4` all of layer 4.

    context_h = 0 for each of them, in every kind of attention that `on=` leaves. Shapes: context (batch,
    heads, queries, head_dim). Source: `alive_heads` of Voita et al. 2019, https://arxiv.org/abs/1905.09418,
    and the head mask of Ji et al. 2021, https://github.com/StonyBrookNLP/spiqa. Differs: those list what
    stays, of every layer; a head that no kind there has is an error. Counting begins at 0.
    """

    name = "heads:fixed"
    examples = ("heads:fixed:off=0.1", "heads:fixed:off=0.1:off=1")

    off: tuple[str, ...] = field(default=(), kw_only=True)

    def __post_init__(self) -> None:
        if not self.off:
            raise ValueError("name at least one head, as in off=3.5, or a layer, as in off=4")
        for item in self.off:
            if not re.fullmatch(r"[0-9]+(\.[0-9]+)?", item):
                raise ValueError(f"off={item} is neither a head such as 3.5 nor a layer such as 4")

    def alive(self, site: Site) -> Tensor | None:
        import torch

        named = [self._head(item) for item in self.off if int(item.partition(".")[0]) == site.layer]
        closed = [head for head in named if head is None or head < site.heads]
        if not closed:
            return None
        alive = torch.ones(site.heads)
        alive[[head for head in closed if head is not None]] = 0
        return alive * 0 if None in closed else alive

    def _head(self, item: str) -> int | None:
        head = item.partition(".")[2]
        return int(head) if head else None

    @contextlib.contextmanager
    def installed(self, model: Any):
        from attnbench import discover

        sites = [site for site in discover(model) if self.selects(site)]
        if not sites:
            raise self.nowhere()
        for item in self.off:
            layer, head = int(item.partition(".")[0]), self._head(item)
            at = [site for site in sites if site.layer == layer]
            if not at:
                layers = sorted({site.layer for site in sites})
                known = f"{layers[0]} to {layers[-1]}"
                if len(layers) <= layers[-1] - layers[0]:
                    known = ", ".join(map(str, layers))
                raise ValueError(f"off={item}: no layer {layer} there, only {known}")
            if head is not None and all(head >= site.heads for site in at):
                raise ValueError(f"off={item}: layer {layer} has heads 0 to {max(s.heads for s in at) - 1}")
        yield


@hookimpl
def register_methods(register):
    register(HeadsRandom)
    register(HeadsFixed)
