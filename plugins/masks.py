"""Global masks: the same attention entries hidden for every input."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING, Any, ClassVar

from attnbench import Method, hookimpl

if TYPE_CHECKING:
    from torch import Tensor

    from attnbench import Site

EXAMPLES = 32  # summed in single precision before they join the double one, which costs more


class Pattern:
    """Attention summed over examples, entry by entry (heads, tokens, tokens), and who has the entry."""

    def __init__(self, like: Tensor) -> None:
        import torch

        self.part = like.new_zeros(like.shape[1], 0, 0, dtype=torch.float32)
        self.total, self.seen = self.part.double(), self.part[:1]
        self.waiting = 0

    def add(self, probs: Tensor, site: Site) -> None:
        from torch.nn.functional import pad

        queries, keys = probs.shape[-2:]
        rows = slice(site.offset, site.offset + queries)
        more = max(0, keys - self.seen.shape[2]), max(0, rows.stop - self.seen.shape[1])
        if any(more):
            self.part, self.total, self.seen = (
                pad(table, (0, more[0], 0, more[1])) for table in (self.part, self.total, self.seen)
            )
        for example in probs:
            self.part[:, rows, :keys] += example
        seen = site.visible
        self.seen[:, rows, :keys] += (
            len(probs) if seen is None else seen.expand(len(probs), -1, -1, -1).sum(0)
        )
        self.waiting += len(probs)
        if self.waiting >= EXAMPLES:
            self._join()

    def _join(self) -> None:
        self.total += self.part
        self.part.zero_()
        self.waiting = 0

    def average(self) -> Tensor:
        self._join()
        return self.total / self.seen.clamp(min=1)


@dataclass
class Mask(Method):
    """Hide the entries of smallest average attention over the calibration data, the same for every input.

    Per layer, with P[h, q, k] the mean probability over the calibration examples that have positions q and k,
    the floor(n p / 100) smallest of the n entries seen, heads pooled, are hidden before the softmax; ties go
    to the first. A query with no key left attends uniformly. Entries beyond the calibrated length are kept.
    Positions count from an example's first token, wherever its padding is. Shapes: scores (batch, heads,
    queries, keys); hide_ (heads, tokens, tokens) per layer; sparsity_, per layer, the share hidden of the
    entries seen (live) and that of the whole table where the others count as hidden (nominal, the paper's).
    Source: Rugina et al. 2020, https://arxiv.org/abs/2012.02030. Differs: padding and the structural zeros
    of causal attention are left out of the percentile (there they count, so that 40 % hides nothing of a
    causal pattern), exactly the asked share is hidden (there every entry equal to the threshold, a constant
    pattern entirely, and all beyond the pattern's length), and the model is not trained with the mask, unless
    `finetune` follows.
    """

    name = "mask"
    examples: ClassVar[tuple[str, ...]] = ("mask50", "mask90")
    empty = "uniform"
    zero, grows = 0.0, "sparsity"

    percent: float

    def __post_init__(self) -> None:
        if not 0 <= self.percent <= 100:
            raise ValueError("the share to hide is between 0 and 100 percent")

    def fit(self, model: Any, batches: list[dict[str, Tensor]]) -> None:
        import torch

        from attnbench import watch

        patterns: dict[tuple[str, int], Pattern] = {}

        def add(probs: Tensor, site: Site) -> None:
            if self.selects(site):
                patterns.setdefault((site.kind, site.layer), Pattern(probs)).add(probs, site)

        with watch(model, probs=add), torch.no_grad():
            for batch in batches:
                model(**batch)
        self.hide_, self.sparsity_ = {}, {}
        for key, pattern in patterns.items():
            average = pattern.average()
            live = (pattern.seen > 0).expand_as(average)
            hide = self._hide(average, live, key)
            hidden, unseen = hide.double().mean().item(), 1 - live.double().mean().item()
            self.hide_[key] = hide
            self.sparsity_[key] = {"live": hidden / (1 - unseen), "nominal": hidden + unseen}

    def _hide(self, average: Tensor, live: Tensor, key: tuple[str, int]) -> Tensor:
        """Tell which floor(n p / 100) of the n live entries (heads, q, k) are smallest, ties to the first."""
        count = int(int(live.sum()) * Fraction(str(self.percent)) / 100)
        if not count:
            return live.new_zeros(live.shape)
        values = average.masked_fill(~live, float("inf")).flatten()
        last = values.kthvalue(count).values
        hide = values < last
        hide[(values == last).nonzero()[: count - int(hide.sum())]] = True
        return hide.view(live.shape)

    def scores(self, scores: Tensor, site: Site) -> Tensor:
        from torch.nn.functional import pad

        if (site.kind, site.layer) not in self.hide_:
            return scores
        queries, keys = scores.shape[-2:]
        shift = self._shift(scores, site)[:, site.offset : site.offset + queries, :keys]
        if shift.shape[1:] != (queries, keys):
            shift = pad(shift, (0, keys - shift.shape[2], 0, queries - shift.shape[1]))
        return scores + shift if scores.requires_grad else scores.add_(shift)

    def _shift(self, scores: Tensor, site: Site) -> Tensor:
        """Return what is added to the scores: -inf where they are hidden; adding is faster than filling."""
        hide = self.hide_[site.kind, site.layer]
        known = vars(self).setdefault("_shifts", {})
        key = site.kind, site.layer, scores.device, scores.dtype
        if key not in known or known[key][0] is not hide:
            table = scores.new_zeros(hide.shape).masked_fill_(hide.to(scores.device), float("-inf"))
            known[key] = hide, table
        return known[key][1]


@dataclass
class MaskRandom(Mask):
    """Hide as many entries as `mask`, drawn uniformly: the control at equal sparsity.

    Per layer, of the live entries with max(q, k) = n, heads pooled, as many as `mask` hides of them, for
    every n: an example of any length loses as large a share as under `mask`. Shapes as `mask`. Source: the
    random baseline of Rugina et al. 2020, https://arxiv.org/abs/2012.02030. Differs: there the draw is over
    the whole block, and as `mask` hides most of what only long examples have, the control hides far more of
    a short one than the mask it is compared with; nor is anything outside the block hidden there.
    """

    name = "mask:random"
    examples = ("mask50:random",)

    seed: int = field(default=0, kw_only=True)

    def _hide(self, average: Tensor, live: Tensor, key: tuple[str, int]) -> Tensor:
        import torch

        draw = torch.Generator().manual_seed(hash_seed(self.seed, *key))
        wanted = super()._hide(average, live, key).cpu()
        queries, keys = (torch.arange(size) for size in live.shape[1:])
        needs = torch.maximum(queries[:, None], keys).expand(live.shape)  # only longer examples have it
        places = live.cpu().flatten().nonzero().flatten()
        luck = torch.rand(len(places), generator=draw, dtype=torch.float64)
        order = (needs.flatten()[places] + luck).argsort()
        lengths = needs.flatten()[places[order]]
        counts = lengths.bincount()
        rank = torch.arange(len(order)) - (counts.cumsum(0) - counts)[lengths]
        asked = needs[wanted].bincount(minlength=len(counts))
        hide = torch.zeros(live.numel(), dtype=torch.bool)
        hide[places[order[rank < asked[lengths]]]] = True
        return hide.view(live.shape).to(live.device)


@dataclass
class MaskBlock(Mask):
    """Hide the square blocks of smallest average attention, the same for every input.

    Queries and keys are cut into blocks of `size`; a block's score is the mean of the average pattern over
    its entries seen. Per layer, the floor(n p / 100) lowest of the n blocks seen, heads pooled, are hidden
    before the softmax. Shapes as `mask`. Source: the block-sparse branch of Rugina et al. 2020,
    https://arxiv.org/abs/2012.02030. Differs: there a block is hidden only if `mask` hides all of it, which
    at 90 % may be none; here exactly the asked share of the blocks is hidden. Blocks at the end of the
    calibrated length may be smaller and count as whole ones.
    """

    name = "mask:block"
    examples = ("mask50:block:size=4", "mask90:block")
    grows = ""  # a query whose blocks are all hidden attends to everything

    size: int = field(default=32, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.size < 1:
            raise ValueError("a block is at least 1 entry wide")

    def _hide(self, average: Tensor, live: Tensor, key: tuple[str, int]) -> Tensor:
        count = self._sums(live.to(average.dtype))
        score = self._sums(average * live) / count.clamp(min=1)
        hide = super()._hide(score, count > 0, key)
        for axis in (1, 2):
            hide = hide.repeat_interleave(self._width(live), axis).narrow(axis, 0, average.shape[axis])
        return hide & live

    def _width(self, table: Tensor) -> int:
        return min(self.size, max(table.shape[1:]))

    def _sums(self, table: Tensor) -> Tensor:
        """Add up each block of (heads, queries, keys)."""
        from torch.nn.functional import pad

        size = self._width(table)
        over = [-length % size for length in table.shape[1:]]
        whole = pad(table, (0, over[1], 0, over[0]))
        return whole.unflatten(2, (-1, size)).sum(3).unflatten(1, (-1, size)).sum(2)


def hash_seed(*parts: object) -> int:
    """Return a generator seed that differs for every layer and is the same in every process."""
    import hashlib

    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:7], "big")


@hookimpl
def register_methods(register):
    register(Mask)
    register(MaskRandom)
    register(MaskBlock)
