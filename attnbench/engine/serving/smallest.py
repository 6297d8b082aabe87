"""Zero the smallest entries of every row without a sort, by a threshold for each row."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

COUNTS = 5  # after so many guesses most rows have their threshold or are one key off
WALK = 6  # steps from key to key before a row is sorted
ALONE = 2  # threads up to which numpy, on one of them, is faster than torch on all


def drop(rows: Tensor, dropped: Tensor, hidden: Tensor | None) -> None:
    """Zero the `dropped` (rows or 1) smallest of each row (rows, keys), besides the `hidden` zeros, in place.

    A row's threshold separates goal = dropped + hidden keys from the rest; rows with ties at it are sorted.
    On few threads of a CPU it comes of a partition. Otherwise it is guessed from the mean and spread of some
    of the row's logarithms (the bit pattern of a positive float is nearly its logarithm), corrected a few
    times by counting the keys below it, then walked from key to key.
    """
    import torch

    keys = rows.shape[1]
    if not rows.numel():
        return
    goal = dropped if hidden is None else dropped + hidden
    if rows.dtype != torch.float32 or keys < 8:
        return _drop_sorted(rows, goal)
    idle = None if hidden is None else dropped == 0
    if idle is not None:
        goal = goal.masked_fill(idle, 0)
    if rows.device.type == "cpu" and torch.get_num_threads() <= ALONE:
        bound = _parted(rows, goal)
    else:
        bound, off = _guess(rows, dropped, hidden, goal)
        if idle is not None:
            bound, off = bound.masked_fill(idle, 0), off.masked_fill(idle, 0)
        _walk(rows, bound, off)
    kept = torch.ge(rows, bound[:, None], out=torch.empty_like(rows))
    wrong = (kept.sum(-1) != keys - goal).nonzero().squeeze(1)
    if len(wrong):
        ties = rows.index_select(0, wrong)
        _drop_sorted(ties, goal.expand(len(rows)).index_select(0, wrong))
        rows.mul_(kept).index_copy_(0, wrong, ties)
    else:
        rows.mul_(kept)


def _parted(rows: Tensor, goal: Tensor) -> Tensor:
    """Return the key of each row that `goal` (rows or 1) keys are below, rows of one goal at a time."""
    import numpy as np
    import torch

    data, goals = rows.numpy(), goal.expand(len(rows)).numpy()
    bound = np.empty(len(data), dtype=np.float32)
    order = np.argsort(goals, kind="stable")
    for which in np.split(order, np.flatnonzero(np.diff(goals[order])) + 1):
        part, place = data[which], int(goals[which[0]])
        part.partition(place, axis=-1)
        bound[which] = part[:, place]
    return torch.from_numpy(bound)


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
