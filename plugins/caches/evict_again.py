"""Eviction that goes on while a model generates: what a prompt's budget holds is all that is ever kept.

A prompt of n tokens is cut to k = n - floor(n p / 100), or k = min(keep, n). After every `every` tokens read
after it the cache holds k + every tokens at most, and is cut to k again (with `keep=`, to `keep`); what went
does not come back. Not equal to one pass, so for generation alone. The measured `cache` and `kv` are those of
the first cut. Positions stay the true ones, ties go to the lower index.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from attnbench import Kept, hookimpl
from attnbench_plugins.caches.evict import SINKS, Evict, _luck, best, first_and_last

if TYPE_CHECKING:
    from torch import Tensor

    from attnbench import Prompt, Site


@dataclass
class EvictEvery(Evict):
    """What these methods share: after how many tokens a cache is cut again, and to how many."""

    zero: ClassVar[float | None] = None  # a prompt that stays whole is a budget too

    every: int = field(kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.every < 1:
            raise ValueError("a cache is cut again after 1 token or more")

    def interval(self) -> int:
        return self.every

    def size(self, prompt: Prompt) -> int:
        """Return how many tokens each head keeps of those it holds."""
        wanted = self.keep or self.budget_of(prompt.began or prompt.tokens)
        return min(wanted, prompt.tokens)

    def chosen(self, scores: Tensor, prompt: Prompt, first: int = 0, last: int = 0) -> Kept:
        """Keep the first and the last tokens and those of the largest scores (key-value heads, tokens)."""
        protected = first_and_last(prompt.tokens, first, last, prompt.keys)
        kept = best(scores, protected, self.size(prompt) - int(protected.sum()))
        return Kept(tokens=kept.expand(prompt.keys.shape[:2]))


@dataclass
class EvictStreamingEvery(EvictEvery):
    """Keep the first tokens of a prompt and the last ones of all that was read, again and again.

    After the prompt, and after every `every` tokens read after it, k tokens stay: k = n - floor(n p / 100)
    of a prompt of n tokens, or `keep`. They are the first min(sink, k) and the last k - min(sink, k) of
    those held. Shapes: keys and values (key-value heads, tokens, head_dim). Source: Xiao et al. 2023,
    https://arxiv.org/abs/2309.17453, with every=1. Differs: theirs numbers tokens by their place in the
    cache.
    """

    name = "evict:streamingllm:every"
    examples: ClassVar[tuple[str, ...]] = ("evict50:streamingllm:every=16",)

    sink: int = field(default=SINKS, kw_only=True)

    def cache(self, prompt: Prompt, site: Site) -> Kept:
        k = self.size(prompt)
        sinks = min(self.sink, k)
        kept = first_and_last(prompt.tokens, sinks, k - sinks, prompt.keys)
        note = f"fewer tokens than its {self.sink} first ones are kept" if k < self.sink else ""
        return Kept(tokens=kept.expand(prompt.keys.shape[:2]), note=note)


@dataclass
class EvictTovaEvery(EvictEvery):
    """Keep the tokens that the last query attends to most, of the prompt and of what is generated.

    After the prompt, and after every `every` tokens read after it, k tokens stay: k = n - floor(n p / 100)
    of a prompt of n tokens, or `keep`. They are those with the largest mean over all heads of the layer of
    what the last query read gives to each token held, the same in every head. Shapes: attention (heads,
    queries, keys). Source: TOVA, Oren et al. 2024, https://arxiv.org/abs/2401.06104, with every=1. Differs:
    the prompt is read whole and cut once; theirs cuts at every token of it too.
    """

    name = "evict:tova:every"
    examples = ("evict50:tova:every=16",)

    def cache(self, prompt: Prompt, site: Site) -> Kept:
        return self.chosen(prompt.probs(slice(-1, None)).mean((0, 1))[None], prompt)


@dataclass
class EvictH2OEvery(EvictEvery):
    """Keep the last tokens and those that all queries so far attended to most, again and again.

    After the prompt, and after every `every` tokens read after it, k tokens stay: k = n - floor(n p / 100)
    of a prompt of n tokens, or `keep`. They are the last floor(k / 2) of those held, and of the others
    those with the largest sum over all queries read so far of the mean over a key-value head's query heads
    of A: what each query gave to a token when it was read, of those held then. Shapes: A (heads, queries,
    keys). Source: H2O, Zhang et al. 2023, https://arxiv.org/abs/2306.14048, with every=1. Differs: the
    prompt is read whole and cut once; theirs cuts at every token of it too.
    """

    name = "evict:h2o:every"
    examples = ("evict50:h2o:every=16",)

    def cache(self, prompt: Prompt, site: Site) -> Kept:
        import torch

        total = torch.stack([prompt.probs(rows).sum(1) for rows in prompt.tiles()]).sum(0)
        scores = total.unflatten(0, (prompt.keys.shape[0], -1)).mean(1)
        return self.chosen(scores, prompt, last=self.size(prompt) // 2)


@dataclass
class EvictRandomEvery(EvictEvery):
    """Keep tokens at random, beside the first and the last, again and again: the control of the others.

    After the prompt, and after every `every` tokens read after it, k tokens stay: k = n - floor(n p / 100)
    of a prompt of n tokens, or `keep`. They are the first s = min(4, k) and the last min(w, k - s) of those
    held, w = min(window, max(1, floor(k / 2))); the rest is drawn by a hash of (seed, layer, key-value
    head, token), the same at every cut. Shapes: tokens (key-value heads, tokens). Source: none; the control
    that the claims of H2O (https://arxiv.org/abs/2306.14048) need.
    """

    name = "evict:random:every"
    examples = ("evict50:random:every=16",)

    window: int = field(default=64, kw_only=True)
    seed: int = field(default=0, kw_only=True)

    def cache(self, prompt: Prompt, site: Site) -> Kept:
        import torch

        heads, k = prompt.keys.shape[0], self.size(prompt)
        sinks = min(SINKS, k)
        recent = min(self.window, max(1, k // 2), k - sinks)
        read = prompt.queries.shape[1]
        luck = torch.stack([_luck(read, 0, self.seed, site.layer, head) for head in range(heads)])
        luck = luck.to(prompt.keys.device)
        return self.chosen(
            luck if prompt.places is None else luck.gather(1, prompt.places), prompt, sinks, recent
        )


@hookimpl
def register_methods(register):
    register(EvictStreamingEvery)
    register(EvictTovaEvery)
    register(EvictH2OEvery)
    register(EvictRandomEvery)
