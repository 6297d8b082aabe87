"""Eviction by scores of attention: SnapKV, H2O, expected attention, with an even budget or a shared one."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal

from attnbench import Kept, NotApplicable, hookimpl
from attnbench_plugins.caches import budgets
from attnbench_plugins.caches.evict import SINKS, Evict, best, first_and_last, require_even

if TYPE_CHECKING:
    from torch import Tensor

    from attnbench import Prompt, Site

FUTURE = 512  # positions after the prompt over which a rotation is averaged
FLAT = "no effect of budget=pyramidkv: one layer, nothing to share, or a prompt under twice the budget"


@dataclass
class EvictScored(Evict):
    """What these methods share: protected tokens, a score for each token and head, a budget to share."""

    budget: Literal["even", "adakv", "safeguard", "pyramidkv"] = field(default="even", kw_only=True)

    def worth(self, prompt: Prompt, k: int) -> Tensor:
        """Return a score for each token (key-value heads, tokens); it counts for nothing where protected."""
        raise TypeError(f"{type(self).__name__} does not say what a token is worth")

    def protects(self, tokens: int, k: int) -> tuple[int, int]:
        """Return how many first and last tokens stay in any case."""
        raise TypeError(f"{type(self).__name__} does not say what it protects")

    def wanted(self) -> int:
        """Return how many tokens would be protected if the budget were large enough."""
        return 0

    def cache(self, prompt: Prompt, site: Site) -> Kept:
        n, k = prompt.tokens, self.budget_of(prompt.tokens)
        first, last = self.protects(n, k)
        protected = first_and_last(n, first, last, prompt.keys)
        scores, r = self.worth(prompt, k), first + last
        note = f"fewer tokens are kept than the {self.wanted()} to protect" if k < self.wanted() else ""
        if self.budget == "adakv":
            kept = budgets.adakv(scores, protected, k)
        elif self.budget == "safeguard":
            kept = budgets.safeguard(scores, protected, k)
        elif self.budget == "pyramidkv":
            require_even(prompt, f"{self.name}:budget=pyramidkv")
            kept = best(scores, protected, budgets.pyramidkv(n, r, k, site.rank, site.layers))
            note = FLAT if budgets.flat(n, r, k, site.layers) else note
        else:
            kept = best(scores, protected, k - r)
        return Kept(tokens=kept, note=note)


@dataclass
class EvictSnapKV(EvictScored):
    """Keep the last tokens of a prompt and those that they attend to most.

    The last w = min(window, max(1, floor(k / 2))) stay, and the k - w others largest by: the mean over the
    last w queries of A[h, q, j] over the n - w keys before the window, average-pooled over them (`kernel`
    wide, padded with zeros that count, or `pool=max`, padded with -inf), mean over the query heads of a
    key-value head. A (heads, queries, keys) is the prompt's dense attention. `budget=` shares the budget.
    Source: Li et al. 2024, https://arxiv.org/abs/2404.14469; AdaKV https://arxiv.org/abs/2407.11550,
    PyramidKV https://arxiv.org/abs/2406.02069. Differs: window 64, kernel 5 and the mean over query heads are
    kvpress's; the paper runs window=32:kernel=7:pool=max and chooses for each query head.
    """

    name = "evict:snapkv"
    examples: ClassVar[tuple[str, ...]] = (
        "evict50:snapkv",
        "evict50:snapkv:kernel=7:pool=max:window=32",
        "evict75:snapkv:budget=adakv",
        "evict75:snapkv:budget=safeguard",
        "evict75:snapkv:budget=pyramidkv:window=2",
    )

    window: int = field(default=64, kw_only=True)
    kernel: int = field(default=5, kw_only=True)
    pool: Literal["avg", "max"] = field(default="avg", kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.window < 1 or self.kernel < 1 or self.kernel % 2 == 0:
            raise ValueError("a window is at least 1 token wide, a kernel an odd number of tokens")

    def wanted(self) -> int:
        return self.window

    def protects(self, tokens: int, k: int) -> tuple[int, int]:
        return 0, min(self.window, max(1, k // 2))

    def worth(self, prompt: Prompt, k: int) -> Tensor:
        from torch.nn import functional

        n, heads = prompt.tokens, prompt.keys.shape[0]
        w = self.protects(n, k)[1]
        mean = prompt.probs(slice(n - w, n))[..., : n - w].mean(1)
        if n > w and self.pool == "max":
            mean = functional.max_pool1d(mean, self.kernel, 1, self.kernel // 2)
        elif n > w:
            mean = functional.avg_pool1d(mean, self.kernel, 1, self.kernel // 2)
        return functional.pad(mean.unflatten(0, (heads, -1)).mean(1), (0, w))


@dataclass
class EvictH2O(EvictScored):
    """Keep the last tokens of a prompt and those that all its queries attend to most.

    The last floor(k / 2) stay, and of the others those with the largest sum over all queries of the mean over
    a key-value head's query heads of A; A (heads, queries, keys) is the prompt's dense attention. `budget=`
    shares the budget. Source: Zhang et al. 2023, https://arxiv.org/abs/2306.14048. Differs: once, when the
    prompt is complete; theirs drops one token at every step, and so do its sums.
    """

    name = "evict:h2o"
    examples = ("evict50:h2o", "evict75:h2o:budget=adakv")

    def protects(self, tokens: int, k: int) -> tuple[int, int]:
        return 0, k // 2

    def worth(self, prompt: Prompt, k: int) -> Tensor:
        import torch

        total = torch.stack([prompt.probs(rows).sum(1) for rows in prompt.tiles()]).sum(0)
        return total.unflatten(0, (prompt.keys.shape[0], -1)).mean(1)


@dataclass
class EvictExpected(EvictScored):
    """Keep the first tokens of a prompt and those that queries to come are expected to attend to.

    The first s = min(4, k) stay, the others by: with mean mu and covariance S of the unrotated queries after
    them, both rotated by the mean rotation of the next 512 positions, the softmax over the other keys x of
    x mu / sqrt(d) + x S x / (2 d), mean over the query heads of a key-value head, times the norm of the
    value. Shapes: queries (heads, tokens, head_dim), keys and values (key-value heads, tokens, head_dim).
    `budget=` shares the budget. Source: ExpectedAttentionPress of https://github.com/NVIDIA/kvpress. Differs:
    padding is left out. Where nothing rotates, queries are taken as they are.
    """

    name = "evict:expected"
    examples = ("evict50:expected", "evict75:expected:budget=safeguard")

    def wanted(self) -> int:
        return SINKS

    def protects(self, tokens: int, k: int) -> tuple[int, int]:
        return min(SINKS, k), 0

    def worth(self, prompt: Prompt, k: int) -> Tensor:
        import torch
        from torch.nn import functional

        first = self.protects(prompt.tokens, k)[0]
        heads, n, dim = prompt.keys.shape
        if n == first:
            return prompt.keys.new_zeros(heads, n)
        plain = prompt.unrotated
        queries = (prompt.queries if plain is None else plain[0])[:, first:]
        wide = torch.promote_types(queries.dtype, torch.float32)
        queries, keys, values = (
            x.to(wide) for x in (queries, prompt.keys[:, first:], prompt.values[:, first:])
        )
        mean = queries.mean(1, keepdim=True)
        spread = (queries - mean).mT @ (queries - mean) / queries.shape[1]
        if plain is not None:
            end = prompt.start + n
            tables = prompt.rotation(torch.arange(end, end + FUTURE, device=keys.device))
            if tables is None:
                raise NotApplicable(f"{self.name}: how this model rotates queries is not known")
            average = [table.to(wide).mean(0, keepdim=True) for table in tables]
            mean = prompt.rotate(mean, *average)
            spread = prompt.rotate(spread, *average)  # its rows, then its columns
            spread = prompt.rotate(spread.mT, *average)
        x = keys[:, None]
        mean, spread = (part.unflatten(0, (heads, -1)) for part in (mean, spread))
        scores = (x @ mean.mT).squeeze(-1) / math.sqrt(dim) + ((x @ spread) * x).sum(-1) / (2 * dim)
        shares = scores.softmax(-1).mean(1) * values.norm(dim=-1)
        return functional.pad(shares, (first, 0))


@hookimpl
def register_methods(register):
    register(EvictSnapKV)
    register(EvictH2O)
    register(EvictExpected)
