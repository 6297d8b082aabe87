"""Eviction of keys that are like the others: KeyDiff."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from attnbench import Kept, hookimpl
from attnbench_plugins.caches.evict import Evict, best, first_and_last

if TYPE_CHECKING:
    from attnbench import Prompt, Site


@dataclass
class EvictKeyDiff(Evict):
    """Keep the tokens of a prompt whose keys are least like the mean key.

    By -cos(x, m), largest first, of each head's keys x, with m = (1 / n) sum x / |x| over the prompt's n
    tokens. Keys are taken as they enter attention, rotated to their positions. Shapes: keys (key-value heads,
    tokens, head_dim). Source: KeyDiff, Park et al. 2025, https://arxiv.org/abs/2504.15364. Differs: once,
    when the prompt is complete; theirs reads the prompt in blocks and evicts after each, so that the blocks
    after the first are read on a cut cache.
    """

    name = "evict:keydiff"
    examples: ClassVar[tuple[str, ...]] = ("evict50:keydiff",)

    def cache(self, prompt: Prompt, site: Site) -> Kept:
        from torch.nn import functional

        keys = functional.normalize(prompt.keys.float(), dim=-1)
        likeness = functional.cosine_similarity(keys, keys.mean(1, keepdim=True), dim=-1)
        none = first_and_last(prompt.tokens, 0, 0, prompt.keys)
        return Kept(tokens=best(-likeness, none, self.budget_of(prompt.tokens)))


@hookimpl
def register_methods(register):
    register(EvictKeyDiff)
