"""Integer caches: keys and values of the prompt in a few bits, with a scale and a minimum for each group."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from attnbench import Kept, Method, NotApplicable, hookimpl

if TYPE_CHECKING:
    from torch import Tensor

    from attnbench import Prompt, Site

WHOLE = 16  # bits of a value that is not quantised, and of a scale or a minimum


def rounded(x: Tensor, bits: int) -> Tensor:
    """Quantise groups along the last axis: lo + round((x - lo) / s) s, s = (max - min) / (2^b - 1)."""
    import torch

    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    low = wide.amin(-1, keepdim=True)
    step = (wide.amax(-1, keepdim=True) - low) / (2**bits - 1)
    found = low + ((wide - low) / step).round() * step
    return torch.where(step > 0, found, wide).to(x.dtype)


@dataclass
class Integers(Method):
    """What integer caches share: their number of bits."""

    bits: int

    def __post_init__(self) -> None:
        if not 1 <= self.bits <= 16:
            raise ValueError("an integer of a cache has 1 to 16 bits")


@dataclass
class KvInt(Integers):
    """Keep the keys and values of a prompt as integers, each token and head by itself.

    y = lo + round((x - lo) / s) s, lo = min x, s = (max x - min x) / (2^b - 1) over head_dim, unchanged where
    s = 0, of what queries after the prompt see. Shapes: keys and values (key-value heads, tokens, head_dim).
    Source: the per-token asymmetric quantiser of Liu et al. 2024, https://arxiv.org/abs/2402.02750 (their
    baseline). Differs: no token stays whole, scales are not rounded to 16 bits, which `kv` counts.
    """

    name = "kvint"
    examples: ClassVar[tuple[str, ...]] = ("kvint4", "kvint8")

    def cache(self, prompt: Prompt, site: Site) -> Kept:
        keys, values = (rounded(x, self.bits) for x in (prompt.keys, prompt.values))
        return Kept(keys, values, bits=self.bits + 2 * WHOLE / prompt.keys.shape[-1])


@dataclass
class KvIntKivi(Integers):
    """Keep the keys of a prompt as integers by channel and its values by token, the last ones whole.

    Keys: each channel over groups of `group` tokens, the last n mod `residual` tokens whole. Values: each
    token over groups of min(group, head_dim) channels, the last `residual` tokens whole. In a group y = lo +
    round((x - lo) / s) s, lo = min x, s = (max x - min x) / (2^b - 1), unchanged where s = 0. Shapes: keys
    and values (key-value heads, tokens, head_dim). Source: KIVI, Liu et al. 2024,
    https://arxiv.org/abs/2402.02750. Differs: tokens after the prompt stay whole, scales are not rounded to
    16 bits.
    """

    name = "kvint:kivi"
    examples = ("kvint2:kivi:group=4:residual=8", "kvint2:kivi")

    group: int = field(default=32, kw_only=True)
    residual: int = field(default=128, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.group < 1 or self.residual < 1 or self.residual % self.group:
            raise ValueError("residual= is a multiple of group=, and that at least 1 token")

    def cache(self, prompt: Prompt, site: Site) -> Kept:
        import torch

        n, dim = prompt.keys.shape[1:]
        width = min(self.group, dim)
        if dim % width:
            raise NotApplicable(f"{self.name}: heads of {dim} channels have no groups of {width}")
        keys, values = prompt.keys.clone(), prompt.values.clone()
        first, second = n - n % self.residual, max(0, n - self.residual)
        if first:
            groups = keys[:, :first].mT.unflatten(-1, (-1, self.group))
            keys[:, :first] = rounded(groups, self.bits).flatten(-2).mT
        if second:
            parts = values[:, :second].unflatten(-1, (-1, width))
            values[:, :second] = rounded(parts, self.bits).flatten(-2)
        place = torch.arange(n, device=keys.device)
        bits = [
            torch.where(place < end, self.bits + 2 * WHOLE / size, float(WHOLE))
            for end, size in ((first, self.group), (second, width))
        ]
        return Kept(keys, values, bits=(sum(bits) / 2).expand(prompt.keys.shape[:2]))


@dataclass
class KvIntEverywhere(Integers):
    """Quantise every key and value to integers as it enters attention, each token and head by itself.

    As `kvint`, for every query: the prompt's own too, in encoders, and in texts without a prompt. Shapes:
    keys and values (batch, key-value heads, tokens, head_dim). Source: the per-token asymmetric quantiser of
    Liu et al. 2024, https://arxiv.org/abs/2402.02750 (their baseline). Differs: as `kvint`.
    """

    name = "kvint:everywhere"
    examples = ("kvint4:everywhere",)

    def keys(self, keys: Tensor, site: Site) -> Tensor:
        return rounded(keys, self.bits)

    def values(self, values: Tensor, site: Site) -> Tensor:
        return rounded(values, self.bits)


@hookimpl
def register_methods(register):
    register(KvInt)
    register(KvIntKivi)
    register(KvIntEverywhere)
