"""A method for caches from outside: what its own attention tells of a prompt, packed where it stays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from attnbench import Kept, Method, hookimpl

if TYPE_CHECKING:
    from attnbench import Prompt, Site


@dataclass
class Seen(Method):
    """Keep the tokens of a prompt that the most of its queries attend to more than evenly, values at 8 bits.

    Token j of head g is kept where it is among the k of the largest count of queries q with a[q, j] > 1 / (q
    + 1), a the mean of A over the query heads of g; of a window the queries that it holds; ties go to the
    lower index. Values are rounded to
    lo + round((v - lo) / s) s, s = (max - min) / 255 of each token. Shapes: A (heads, queries, keys), keys
    and values (key-value heads, tokens, head_dim). Source: https://arxiv.org/abs/2306.14048. Differs: it
    counts where theirs adds up.
    """

    name = "seen"
    examples = ("seen50",)

    percent: float

    def __post_init__(self) -> None:
        if not 0 <= self.percent < 100:
            raise ValueError("the share to evict is at least 0 and under 100 percent")

    def cache(self, prompt: Prompt, site: Site) -> Kept:
        import torch

        heads, tokens = prompt.keys.shape[:2]
        counts = torch.zeros(heads, tokens, device=prompt.keys.device)
        for rows in prompt.tiles():
            mean = prompt.probs(rows).unflatten(0, (heads, -1)).mean(1)
            even = 1 / (prompt.start + torch.arange(rows.start, rows.stop, device=mean.device) + 1)
            counts += (mean > even[:, None]).sum(1)
        keep = tokens - int(tokens * self.percent / 100)
        order = counts.argsort(dim=-1, descending=True, stable=True).argsort(-1)
        low, high = (prompt.values.amin(-1, keepdim=True), prompt.values.amax(-1, keepdim=True))
        step = ((high - low) / 255).clamp(min=torch.finfo(low.dtype).tiny)
        values = low + ((prompt.values - low) / step).round() * step
        return Kept(values=values, tokens=order < keep, bits=(16 + 8 + 32 / site.head_dim) / 2)


@hookimpl
def register_methods(register: Any) -> None:
    register(Seen)
