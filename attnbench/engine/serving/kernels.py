"""The steps that dominate once attention is tiled: exact, without a sort or a logarithm where it matters.

Every function edits its tensor in place where it does not require grad, and returns the result.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import TYPE_CHECKING

from attnbench.engine.serving import smallest
from attnbench.methods.protocol import KINDS

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from attnbench.methods.protocol import Site

__all__ = [
    "draw",
    "drop_random",
    "drop_smallest",
    "quantise",
    "quantise_linear",
    "quantise_log",
    "threshold",
    "threshold_rows",
]
CHAIN = 8  # up to so many levels one pass a level costs less than a logarithm and an exponential
PIECE = 1 << 18  # elements on which all passes of a quantiser run before the next: the cache holds them


def quantise(probs: Tensor, edges: Sequence[float], levels: Sequence[float]) -> Tensor:
    """Replace each value by its bin's level: levels[i] for edges[i] <= x < edges[i + 1], 0 under edges[0].

    Values from the last edge up get the last level. One pass a level. The gradient is the identity's
    (straight-through).
    """
    import torch

    if probs.requires_grad:
        return probs + (quantise(probs.detach().clone(), edges, levels) - probs).detach()
    if probs.dtype != torch.float32:
        return probs.copy_(quantise(probs.float(), edges, levels))
    # threshold_ replaces what is not above its bound: of negated values, those from an edge up. Levels are
    # positive and so above all bounds still to come.
    for piece in _pieces(probs):
        piece.neg_()
        for edge, level in zip(reversed(edges), reversed(levels), strict=True):
            torch.threshold_(piece, -edge, level)
        torch.threshold_(piece, 0.0, 0.0)
    return probs


def _pieces(tensor: Tensor) -> Sequence[Tensor]:
    """Cut a tensor into views that stay in the cache from one pass to the next."""
    whole = tensor.is_cuda or not tensor.is_contiguous() or tensor.numel() <= PIECE
    return [tensor] if whole else tensor.view(-1).split(PIECE)


def quantise_log(probs: Tensor, low: float, first: float, step: float, count: int) -> Tensor:
    """Round log2 x to first + step i, i = 0 .. count - 1, zero x < low; edges lie halfway between levels.

    The gradient is the identity's (straight-through).
    """
    import torch

    if count <= CHAIN:
        edges = [low, *(2.0 ** (first + step * (i - 0.5)) for i in range(1, count))]
        return quantise(probs, edges, [2.0 ** (first + step * i) for i in range(count)])
    if probs.requires_grad:
        return probs + (quantise_log(probs.detach().clone(), low, first, step, count) - probs).detach()
    if probs.dtype != torch.float32:
        return probs.copy_(quantise_log(probs.float(), low, first, step, count))
    under = torch.nextafter(torch.tensor(low), torch.zeros(())).item()
    # looked up, not computed: exp2 differs in its last bit between a vector of the processor and a rest
    levels = probs.new_tensor([0.0, *(2.0 ** (first + step * i) for i in range(count)), torch.nan])
    for piece in _pieces(probs):
        torch.threshold_(piece, under, 2.0 ** (first - 2 * step)).log2_()  # log2 of 0 is slow
        piece.mul_(1 / step).add_(1.5 - first / step).clamp_(0, count).nan_to_num_(nan=count + 1)
        index = piece.int().flatten()
        if piece.is_contiguous():
            torch.index_select(levels, 0, index, out=piece.view(-1))
        else:
            piece.copy_(levels.index_select(0, index).view_as(piece))
    return probs


def quantise_linear(probs: Tensor, step: float, shift: float, offset: float, top: float) -> Tensor:
    """Round to a grid: offset + step i with i = floor(x / step + shift), 0 where i < 1, at most `top`.

    The gradient is the identity's (straight-through).
    """
    import torch

    if probs.requires_grad:
        return probs + (quantise_linear(probs.detach().clone(), step, shift, offset, top) - probs).detach()
    if probs.dtype.itemsize < 4:
        return probs.copy_(quantise_linear(probs.float(), step, shift, offset, top))
    for piece in _pieces(probs):
        piece.div_(step).add_(shift).floor_().mul_(step).add_(offset)
        torch.threshold_(piece, offset + step / 2, 0.0).clamp_(max=top)
    return probs


def threshold(probs: Tensor, bound: float) -> Tensor:
    """Keep x > bound, zero the rest; the bound is rounded to the precision of x first."""
    import torch
    from torch.nn import functional

    if probs.dtype.itemsize < 4:  # compared in float32 on a processor and in half precision on a GPU
        bound = torch.tensor(bound, dtype=probs.dtype).item()
    return functional.threshold(probs, bound, 0.0, inplace=not probs.requires_grad)


def threshold_rows(probs: Tensor, share: float) -> Tensor:
    """Keep x > share times the largest value of its row, zero the rest."""
    bound = probs.detach().amax(-1, keepdim=True).mul_(share)
    kept = (probs.detach() > bound).to(probs.dtype)
    return probs * kept if probs.requires_grad else probs.mul_(kept)


def drop_smallest(probs: Tensor, percent: float, visible: Tensor | None = None) -> Tensor:
    """Zero the smallest min(floor(n percent / 100), n - 1) of each query's n visible probabilities.

    Ties go to the lower key. Shapes (..., queries, keys), values at least 0 and 0 where not visible;
    `visible` broadcasts to it.
    """
    import torch

    if probs.requires_grad:
        return probs * (drop_smallest(probs.detach().clone(), percent, visible) != 0).to(probs.dtype)
    keys = probs.shape[-1]
    rows = probs.reshape(-1, keys)
    hidden = None
    if visible is not None:
        hidden = keys - visible.sum(-1).expand(probs.shape[:-1]).reshape(-1)
    dropped = _amount(percent, torch.full((1,), keys) if hidden is None else keys - hidden)
    if hidden is not None or int(dropped) > 0:
        smallest.drop(rows, dropped.float(), None if hidden is None else hidden.float())
    return probs if rows.data_ptr() == probs.data_ptr() else probs.copy_(rows.view_as(probs))


def drop_random(
    probs: Tensor, percent: float, visible: Tensor | None, offset: int, key: Sequence[int]
) -> Tensor:
    """Zero as many of each query's visible probabilities as `drop_smallest`, drawn at random.

    The draw depends on `key`, the head, the query's position (`offset` plus its row) and the key's, on
    nothing else: the same in any batch. Shapes (batch, heads, queries, keys).
    """
    import torch

    _, heads, queries, keys = probs.shape
    state = _hashed(key, (range(heads), range(offset, offset + queries), range(keys)), probs.device)
    # (1, heads, queries, keys), as floats from 1 up to 2
    draw = state.bitwise_and_(0x7FFFFF).bitwise_or_(0x3F800000).view(torch.float32)
    if visible is not None:
        draw = draw * visible
    kept = (drop_smallest(draw, percent, visible) > 0).to(probs.dtype)
    return probs * kept if probs.requires_grad else probs.mul_(kept)


def draw(seed: int, site: Site, like: Tensor, first: int) -> Tensor:
    """Draw a number above 0 and under 1 for each head and position, the same in any batch, tile or cache.

    u = (h + 1/2) / 2^23 in float32, h 23 bits of a hash of (seed, kind, layer, head, position, ...) and of
    nothing else. `like` is shaped (heads, positions, ...), as one example of a stage's tensor is: `probs[0]`
    (heads, queries, keys), or `prompt.keys[..., 0]` (key-value heads, tokens). `first` is the position at
    which its second axis begins: `site.offset`, or `prompt.start`.
    """
    import torch

    heads, rows, *others = like.shape
    places = (range(heads), range(first, first + rows), *map(range, others))
    bits = _hashed((seed, KINDS.index(site.kind), site.layer), places, like.device)[0] & 0x7FFFFF
    return bits.to(torch.float32).add_(0.5).mul_(2.0**-23)


def _hashed(key: Sequence[int], places: Sequence[range], device: torch.device) -> Tensor:
    """Hash `key` and each combination of places: 32-bit integers, (1, places, ...)."""
    import torch

    state = torch.zeros(1, dtype=torch.int32, device=device)
    for part in key:
        state = _scramble(state + part)
    for axis in places:
        state = _scramble(
            state[..., None] + torch.arange(axis.start, axis.stop, dtype=torch.int32, device=device)
        )
    return state


def _scramble(state: Tensor) -> Tensor:
    """Mix the bits of 32-bit integers, overflowing: xor-shift and multiply, in place."""
    for factor in (0x7FEB352D, 0x846CA68B - 2**32):
        state.bitwise_xor_(state >> 16).mul_(factor)
    return state.bitwise_xor_(state >> 15)


def _amount(percent: float, visible: Tensor) -> Tensor:
    """Return min(floor(n percent / 100), n - 1) of integers n, exactly."""
    share = (Fraction(str(percent)) / 100).limit_denominator(10**12)  # times n it has to fit into 64 bits
    return (visible * share.numerator // share.denominator).minimum(visible - 1).clamp(min=0)
