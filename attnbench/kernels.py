"""The steps that dominate once attention is tiled: exact, without a sort or a logarithm where it matters.

Every function edits its tensor in place where it does not require grad, and returns the result.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

CHAIN = 8  # up to so many levels one pass a level costs less than a logarithm and an exponential
COUNTS = 5  # after so many guesses most rows have their threshold or are one key off
WALK = 6  # steps from key to key before a row is sorted


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
    probs.neg_()
    for edge, level in zip(reversed(edges), reversed(levels), strict=True):
        torch.threshold_(probs, -edge, level)
    return torch.threshold_(probs, 0.0, 0.0)


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
    torch.threshold_(probs, under, 2.0 ** (first - 2 * step))  # no logarithm of 0: infinities are slow
    probs.clamp_(max=2.0 ** (first + step * (count - 1))).log2_()
    probs.mul_(1 / step).add_(0.5 - first / step).floor_().mul_(step).add_(first).exp2_()
    return torch.threshold_(probs, 2.0 ** (first - 0.5 * step), 0.0)


def quantise_linear(probs: Tensor, step: float, shift: float, offset: float, top: float) -> Tensor:
    """Round to a grid: offset + step i with i = floor(x / step + shift), 0 where i < 1, at most `top`.

    The gradient is the identity's (straight-through).
    """
    import torch

    if probs.requires_grad:
        return probs + (quantise_linear(probs.detach().clone(), step, shift, offset, top) - probs).detach()
    probs = probs.div_(step).add_(shift).floor_().mul_(step).add_(offset)
    return torch.threshold_(probs, offset + step / 2, 0.0).clamp_(max=top)


def threshold(probs: Tensor, bound: float) -> Tensor:
    """Keep x > bound, zero the rest."""
    from torch.nn import functional

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
        _drop(rows, dropped.float(), None if hidden is None else hidden.float())
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
    axes = (range(heads), range(offset, offset + queries), range(keys))
    state = torch.zeros(1, dtype=torch.int32, device=probs.device)
    for part in key:
        state = _scramble(state + part)
    for axis in axes:
        state = _scramble(
            state[..., None] + torch.arange(axis.start, axis.stop, dtype=torch.int32, device=probs.device)
        )
    # (1, heads, queries, keys), as floats from 1 up to 2
    draw = state.bitwise_and_(0x7FFFFF).bitwise_or_(0x3F800000).view(torch.float32)
    if visible is not None:
        draw = draw * visible
    kept = (drop_smallest(draw, percent, visible) > 0).to(probs.dtype)
    return probs * kept if probs.requires_grad else probs.mul_(kept)


def _scramble(state: Tensor) -> Tensor:
    """Mix the bits of 32-bit integers, overflowing: xor-shift and multiply, in place."""
    for factor in (0x7FEB352D, 0x846CA68B - 2**32):
        state.bitwise_xor_(state >> 16).mul_(factor)
    return state.bitwise_xor_(state >> 15)


def _amount(percent: float, visible: Tensor) -> Tensor:
    """Return min(floor(n percent / 100), n - 1) of integers n, exactly."""
    share = Fraction(str(percent)) / 100
    return (visible * share.numerator // share.denominator).minimum(visible - 1).clamp(min=0)


def _drop(rows: Tensor, dropped: Tensor, hidden: Tensor | None) -> None:
    """Zero the `dropped` (rows or 1) smallest of each row (rows, keys), besides the `hidden` zeros, in place.

    A row's threshold separates goal = dropped + hidden keys from the rest. It is guessed from the mean and
    spread of some of the row's logarithms (the bit pattern of a positive float is nearly its logarithm),
    corrected a few times by counting the keys below it, then walked from key to key. Rows with ties at the
    threshold are sorted.
    """
    import torch

    keys = rows.shape[1]
    goal = dropped if hidden is None else dropped + hidden
    if rows.dtype != torch.float32 or keys < 8:
        return _drop_sorted(rows, goal)
    bound, off = _guess(rows, dropped, hidden, goal)
    if hidden is not None:
        idle = dropped == 0
        bound, off = bound.masked_fill(idle, 0), off.masked_fill(idle, 0)
        goal = goal.masked_fill(idle, 0)
    _walk(rows, bound, off)
    kept = torch.ge(rows, bound[:, None], out=torch.empty_like(rows))
    wrong = (kept.sum(-1) != keys - goal).nonzero().squeeze(1)
    if len(wrong):
        ties = rows.index_select(0, wrong)
        _drop_sorted(ties, goal.expand(len(rows)).index_select(0, wrong))
        rows.mul_(kept).index_copy_(0, wrong, ties)
    else:
        rows.mul_(kept)


def _drop_sorted(rows: Tensor, goal: Tensor) -> None:
    import torch

    values, order = rows.sort(dim=-1, stable=True)
    below = torch.arange(rows.shape[1], device=rows.device) < goal[:, None]
    rows.scatter_(1, order, values.masked_fill_(below, 0))


def _guess(rows: Tensor, dropped: Tensor, hidden: Tensor | None, goal: Tensor) -> tuple[Tensor, Tensor]:
    """Return a threshold for each row, and how many keys too many it cuts off.

    Secant steps on the logit of the count of keys below.
    """
    import torch

    keys = rows.shape[1]
    seen = keys if hidden is None else keys - hidden
    share = (dropped + 0.5) / (seen + 1)
    normal, wanted = torch.special.ndtri(share), torch.logit(share)
    logs = rows.view(torch.int32)[:, :: max(1, keys // 32)].to(torch.float32)
    some = (logs > 0).float() if hidden is not None else None
    number = logs.shape[1] if some is None else some.sum(-1).clamp_(min=1)
    mean = logs.sum(-1) / number
    logs.sub_(mean[:, None])
    if some is not None:
        logs.mul_(some)
    spread = (torch.linalg.vector_norm(logs, dim=-1) / number**0.5).clamp_(min=2.0**20)
    at = torch.addcmul(mean, spread, normal)
    per_logit = spread * (share * (1 - share) * math.sqrt(2 * math.pi) * torch.exp(normal * normal / 2))
    before, slope, below = None, per_logit, torch.empty_like(rows)
    for guess in range(COUNTS):
        bound = at.clamp_(1, 2.0**30).to(torch.int32).view(torch.float32)
        count = torch.lt(rows, bound[:, None], out=below).sum(-1)
        if guess == COUNTS - 1:
            break
        now = torch.logit(((count if hidden is None else count - hidden).add_(0.5) / (seen + 1)), eps=1e-6)
        if before is not None:
            secant = ((at - before[0]) / (now - before[1])).nan_to_num_(0.0, 0.0, 0.0)
            slope = secant.clamp_(per_logit * 0.3, per_logit * 3)
        before = at, now
        at = torch.addcmul(at, slope, wanted - now)
    return bound, count - goal


def _walk(rows: Tensor, bound: Tensor, off: Tensor) -> None:
    """Move each threshold by `off` keys, one key a step; edits `bound`."""
    import torch

    which = off.nonzero().squeeze(1)
    if not len(which):
        return
    off = off.index_select(0, which)
    sign, steps = off.sign(), off.abs()
    near = rows.index_select(0, which).mul_(
        sign[:, None]
    )  # where keys are missing, walk down on the negated row
    above = torch.full((), 4.0, device=rows.device)
    at = bound.index_select(0, which).mul_(sign)
    at = torch.where(sign < 0, torch.nextafter(at, above), at)
    for step in range(1, WALK + 1):
        over = torch.ge(near, at[:, None], out=torch.empty_like(near))
        at = torch.where(steps >= step, torch.add(near, over, alpha=-8.0, out=over).amax(-1), at)
        if step in (2, WALK):  # most rows are there after two steps
            bound.index_copy_(0, which, torch.where(sign > 0, at, torch.nextafter(-at, above)))
            go = (steps > step).nonzero().squeeze(1)
            if not len(go):
                return
            which, sign, steps, at, near = (x.index_select(0, go) for x in (which, sign, steps, at, near))
