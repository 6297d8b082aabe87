"""Eviction: tokens of the prompt that later queries no longer see, a number of them per key-value head.

A prompt of n tokens keeps k = n - floor(n p / 100) of them in every head, or k = min(keep, n) where `keep=`
stands instead of an amount. Protected tokens are inside k. Positions stay the true ones, ties go to the lower
index, and tokens after the prompt stay whole.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING, Any, ClassVar

from attnbench import Kept, Method, NotApplicable, hookimpl

if TYPE_CHECKING:
    from torch import Tensor

    from attnbench import Prompt, Site

GOLDEN, MIX = 0x9E3779B97F4A7C15, (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)  # of splitmix64
SINKS = 4


@dataclass
class Evict(Method):
    """What evicting methods share: how many tokens of a prompt stay in each key-value head."""

    zero: ClassVar[float | None] = 0.0

    percent: float | None = None
    keep: int | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        if (self.percent is None) == (self.keep is None):
            raise ValueError("either the share to evict, as in evict50, or keep= with the tokens to keep")
        if self.percent is not None and not 0 <= self.percent < 100:
            raise ValueError("the share to evict is at least 0 and under 100 percent")
        if self.keep is not None and self.keep < 1:
            raise ValueError("at least 1 token is kept")

    def budget_of(self, tokens: int) -> int:
        """Return how many tokens of a prompt each head keeps."""
        if self.keep is not None:
            return min(self.keep, tokens)
        return tokens - int(tokens * Fraction(str(self.percent)) / 100)


def best(scores: Tensor, protected: Tensor, counts: Tensor | int) -> Tensor:
    """Tell which tokens (heads, tokens) stay: the protected ones, and in each head the `counts` best others.

    `scores` is (heads, tokens), `protected` (tokens,), `counts` one number or (heads, 1).
    """
    order = scores.masked_fill(protected, float("-inf")).argsort(dim=-1, descending=True, stable=True)
    return protected | (order.argsort(-1) < counts)


def require_even(prompt: Prompt, text: str) -> None:
    """Raise NotApplicable where a window holds less of a prompt than other layers may."""
    if prompt.start:
        raise NotApplicable(f"{text} moves budgets between layers, of which some hold only a window")


def first_and_last(tokens: int, first: int, last: int, like: Tensor) -> Tensor:
    """Tell which of a prompt's tokens (tokens,) are among the first few or the last few."""
    import torch

    place = torch.arange(tokens, device=like.device)
    return (place < first) | (place >= tokens - last)


@dataclass
class EvictStreaming(Evict):
    """Keep the first tokens of a prompt and the last ones.

    The first min(sink, k) and the last k - min(sink, k). Shapes: keys and values (key-value heads, tokens,
    head_dim). Source: Xiao et al. 2023, https://arxiv.org/abs/2309.17453. Differs: their selection alone,
    once, when the prompt is complete; there it goes on with every token, and numbers tokens by their place in
    the cache, which `rerotate` does: key i of the k kept is rotated to position n - k + i.
    """

    name = "evict:streamingllm"
    examples: ClassVar[tuple[str, ...]] = ("evict50:streamingllm", "evict:streamingllm:keep=8")

    sink: int = field(default=SINKS, kw_only=True)
    rerotate: bool = field(default=False, kw_only=True)

    def cache(self, prompt: Prompt, site: Site) -> Kept:
        budget = self.budget_of(prompt.tokens)
        sinks = min(self.sink, budget)
        kept = first_and_last(prompt.tokens, sinks, budget - sinks, prompt.keys)
        note = f"fewer tokens than its {self.sink} first ones are kept" if budget < self.sink else ""
        keys = self._moved(prompt, budget, sinks) if self.rerotate and budget < prompt.tokens else None
        return Kept(keys=keys, tokens=kept.expand(prompt.keys.shape[:2]), note=note)

    def _moved(self, prompt: Prompt, budget: int, sinks: int) -> Tensor:
        """Rotate the first keys to where they would stand without the gap after them."""
        import torch

        plain = prompt.unrotated
        if plain is None:
            raise NotApplicable(f"{self.name}:rerotate: this model's keys are not rotated to their positions")
        gap = prompt.start + prompt.tokens - budget
        tables = prompt.rotation(torch.arange(sinks, device=prompt.keys.device) + gap)
        assert tables is not None
        keys = prompt.keys.clone()
        keys[:, :sinks] = prompt.rotate(plain[1][:, :sinks], *tables).to(keys)
        return keys


@dataclass
class EvictTova(Evict):
    """Keep the tokens of a prompt that its last query attends to most.

    By the mean over all heads of the layer of A[h, n - 1, j], the same tokens in every head; A (heads,
    queries, keys) is the prompt's dense attention. Source: Oren et al. 2024,
    https://arxiv.org/abs/2401.06104. Differs: once, when the prompt is complete; theirs drops one token at
    every step.
    """

    name = "evict:tova"
    examples = ("evict50:tova",)

    def cache(self, prompt: Prompt, site: Site) -> Kept:
        scores = prompt.probs(slice(prompt.tokens - 1, None)).mean((0, 1))
        none = first_and_last(prompt.tokens, 0, 0, prompt.keys)
        kept = best(scores[None], none, self.budget_of(prompt.tokens))
        return Kept(tokens=kept.expand(prompt.keys.shape[:2]))


@dataclass
class EvictKnorm(Evict):
    """Keep the tokens of a prompt whose keys have the smallest norm.

    By the L2 norm of each head's key, smallest first. With `skip=0-1` these layers stay whole, and the others
    keep floor((L k - s n) / (L - s)), for s of L layers skipped: the same mean. Shapes: keys (key-value
    heads, tokens, head_dim). Source: Devoto et al. 2024, https://arxiv.org/abs/2406.11430. Differs: theirs
    skips the first two layers, and leaves the mean to be larger then.
    """

    name = "evict:knorm"
    examples = ("evict50:knorm", "evict25:knorm:skip=0")

    skip: tuple[str, ...] = field(default=(), kw_only=True)

    def cache(self, prompt: Prompt, site: Site) -> Kept:
        tokens, budget = prompt.tokens, self.budget_of(prompt.tokens)
        skipped = {rank for text in self.skip for rank in _ranks(text) if rank < site.layers}
        if site.rank in skipped:
            return Kept()
        if skipped:
            require_even(prompt, f"{self.name}:skip")
            budget = (site.layers * budget - len(skipped) * tokens) // (site.layers - len(skipped))
            if budget < 1:
                raise NotApplicable(
                    f"{self.name}: with {len(skipped)} of {site.layers} layers whole, nothing is left for "
                    f"the others of a prompt of {tokens} tokens"
                )
        none = first_and_last(tokens, 0, 0, prompt.keys)
        return Kept(tokens=best(-prompt.keys.float().norm(dim=-1), none, budget))


def _ranks(text: str) -> range:
    first, _, last = text.partition("-")
    return range(int(first), int(last or first) + 1)


@dataclass
class EvictRandom(Evict):
    """Keep tokens of a prompt at random, beside the first and the last: the control at equal budget.

    The first s = min(4, k) and the last min(w, k - s) stay, w = min(window, max(1, floor(k / 2))); the rest
    is drawn by a hash of (seed, layer, key-value head, token), with `tokens` one set for all layers and
    heads, with `bare` nothing is protected. Shapes: tokens (key-value heads, tokens). Source: none; the
    control that the claims of H2O (https://arxiv.org/abs/2306.14048) and SnapKV
    (https://arxiv.org/abs/2404.14469) need.
    """

    name = "evict:random"
    examples = ("evict50:random", "evict50:random:bare")

    window: int = field(default=64, kw_only=True)
    tokens: bool = field(default=False, kw_only=True)
    bare: bool = field(default=False, kw_only=True)
    seed: int = field(default=0, kw_only=True)

    def cache(self, prompt: Prompt, site: Site) -> Kept:
        import torch

        heads, tokens = prompt.keys.shape[:2]
        budget = self.budget_of(tokens)
        sinks = 0 if self.bare else min(SINKS, budget)
        recent = 0 if self.bare else min(self.window, max(1, budget // 2), budget - sinks)
        protected = first_and_last(tokens, sinks, recent, prompt.keys)
        where = [("all",)] * heads if self.tokens else [(site.layer, head) for head in range(heads)]
        luck = torch.stack([_luck(tokens, prompt.start, self.seed, *each) for each in where])
        return Kept(tokens=best(luck.to(prompt.keys.device), protected, budget - int(protected.sum())))


def _luck(tokens: int, start: int, *parts: Any) -> Tensor:
    """Draw a number a token (tokens,): one of its position, whatever the prompt's length."""
    import numpy as np
    import torch

    base = int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:8], "big")
    with np.errstate(over="ignore"):
        x = np.uint64(base) + np.arange(start + 1, start + tokens + 1, dtype=np.uint64) * np.uint64(GOLDEN)
        for shift, factor in zip((30, 27), MIX, strict=True):
            x = (x ^ (x >> np.uint64(shift))) * np.uint64(factor)
    return torch.from_numpy(((x ^ (x >> np.uint64(31))) >> np.uint64(11)).astype(np.float64))


@dataclass
class EvictOracle(Evict):
    """Keep the tokens of a prompt that the continuation attends to most: a reference, no method.

    By the sum over the queries after the prompt of the mean over a key-value head's query heads of their
    dense attention (heads, later queries, tokens). Not applicable while generating, where they are unknown.
    Source: none; it looks ahead, as the oracles of sparse attention do (https://arxiv.org/abs/2306.14048).
    The largest mass is not the highest accuracy: it is no ceiling.
    """

    name = "evict:oracle"
    examples = ("evict50:oracle",)
    ahead = True

    def cache(self, prompt: Prompt, site: Site) -> Kept:
        heads = prompt.keys.shape[0]
        scores = prompt.later_probs().sum(1).unflatten(0, (heads, -1)).mean(1)
        none = first_and_last(prompt.tokens, 0, 0, prompt.keys)
        return Kept(tokens=best(scores, none, self.budget_of(prompt.tokens)))


@hookimpl
def register_methods(register):
    register(EvictStreaming)
    register(EvictTova)
    register(EvictKnorm)
    register(EvictRandom)
    register(EvictOracle)
