"""Whole heads removed, by a score of how much each matters."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from attnbench import Method, hookimpl

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from attnbench import Site

Scores = dict[tuple[str, int], "Tensor"]  # (kind, layer) -> (heads,)


@dataclass
class Heads(Method):
    """What the criteria share: rank the selected heads, zero the context of the floor(n p / 100) lowest."""

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
            self._fail_on_ties(scores)
            self.scores_ = {
                key: score.where(self.alive_[key] > 0, self.scores_.get(key, score))
                for key, score in scores.items()
            }
            self._remove(self.percent * step / self.steps)

    def _fail_on_ties(self, scores: Scores) -> None:
        import torch

        together = torch.cat([score[self.alive_[key] > 0] for key, score in sorted(scores.items())])
        if not together.isfinite().all():
            raise ValueError(f"{self.name}: some heads have no finite score")
        if len(together) > 1 and (together.max() - together.min()) <= 1e-6 * together.abs().max():
            raise ValueError(f"{self.name} cannot tell the heads apart: all score {together[0].item():.6g}")

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

    def context(self, context: Tensor, site: Site) -> Tensor:
        alive = self.alive_.get((site.kind, site.layer))
        if alive is None or bool(alive.all()):
            return context
        gate = alive.to(context.dtype).view(1, -1, 1, 1)
        return context * gate if context.requires_grad else context.mul_(gate)


@dataclass
class HeadsRandom(Heads):
    """Remove heads drawn at random: the control for every criterion at the same number of heads.

    Importance ~ U(0, 1) per head. Shapes: context (batch, heads, queries, head_dim), scores_ (heads,) per
    layer. Source: the control of Michel et al. 2019, https://arxiv.org/abs/1905.10650.
    """

    name = "heads:random"
    examples = ("heads50:random",)

    seed: int = field(default=0, kw_only=True)

    def importance(self, model: Any, batches: list[dict[str, Tensor]]) -> Scores:
        import torch

        from attnbench.sites import discover

        draw = torch.Generator().manual_seed(self.seed)
        sites = {(site.kind, site.layer): site.heads for site in discover(model) if self.selects(site)}
        return {key: torch.rand(heads, generator=draw) for key, heads in sorted(sites.items())}


@dataclass
class HeadsEntropy(Heads):
    """Remove the heads that look everywhere: a low entropy of attention counts as importance.

    importance = -mean over examples and queries of (-sum_k p log p) / log n, over queries that see n > 1
    keys, with 0 log 0 = 0. Shapes: probs (batch, heads, queries, keys), scores_ (heads,) per layer. Source:
    the head-importance exercise of Dive into Deep Learning, section 11.5,
    https://d2l.ai/chapter_attention-mechanisms-and-transformers/multihead-attention.html. Differs: divided by
    log n, so that examples of different lengths weigh alike.
    """

    name = "heads:entropy"
    examples = ("heads50:entropy",)

    def importance(self, model: Any, batches: list[dict[str, Tensor]]) -> Scores:
        def entropy(probs: Tensor, site: Site) -> Tensor:
            import torch

            if site.visible is None:
                seen = probs.new_full((1, 1, 1), probs.shape[-1])
            else:
                seen = site.visible.sum(-1).to(probs.dtype)  # (batch, 1, queries)
            row = torch.special.entr(probs).sum(-1) / seen.log().clamp(min=1e-9)
            counted = (seen > 1).to(probs.dtype).expand_as(row[:, :1])
            return torch.stack([-(row * counted).sum((0, 2)), counted.sum().expand(probs.shape[1])])

        return _averages(self, model, batches, entropy)


def _averages(
    method: Heads, model: Any, batches: list[dict[str, Tensor]], measure: Callable[[Tensor, Site], Tensor]
) -> Scores:
    """Average over all tiles what `measure` returns: (sums, counts) stacked, each (heads,)."""
    import torch

    from attnbench import watch

    sums: Scores = {}

    def add(probs: Tensor, site: Site) -> None:
        if method.selects(site):
            key = (site.kind, site.layer)
            sums[key] = sums.get(key, 0.0) + measure(probs, site).double().cpu()

    with watch(model, probs=add), torch.no_grad():
        for batch in batches:
            model(**batch)
    return {key: (total / count.clamp(min=1)).float() for key, (total, count) in sums.items()}


@dataclass
class HeadsGradient(Heads):
    """Remove the heads to which the loss is least sensitive.

    importance_h = sum over examples and tokens of |context_h . dL/dcontext_h|, divided by the L2 norm of its
    layer; the product is the derivative by a gate on that head and token, taken at 1. Shapes: context (batch,
    heads, queries, head_dim), one gate (batch, heads, queries, 1), scores_ (heads,) per layer. Needs labels.
    Source: Michel et al. 2019, https://arxiv.org/abs/1905.10650, with the paper's normalisation by layer.
    Differs from their code: L is the sum over examples, not the batch mean, so that scores do not depend on
    the batch size; the per-layer denominators drop out.
    """

    name = "heads:gradient"
    examples = ("heads50:gradient",)

    def importance(self, model: Any, batches: list[dict[str, Tensor]]) -> Scores:
        from attnbench.gates import head_sensitivity

        sums = head_sensitivity(model, batches, self.selects)
        return {key: score / (score.norm() + 1e-20) for key, score in sums.items()}


@hookimpl
def register_methods(register):
    register(HeadsRandom)
    register(HeadsEntropy)
    register(HeadsGradient)
