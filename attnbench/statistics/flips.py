"""Paired 0/1 scores: only the samples that flip tell of a difference."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from attnbench.statistics.aggregates import Array


def mcnemar(lost: int, won: int) -> float:
    """Return the exact two-sided p value of lost and won being equally likely."""
    return float(min(1.0, 2 * special.bdtr(min(lost, won), lost + won, 0.5))) if lost + won else 1.0


def score_statistic(lost: ArrayLike, won: ArrayLike, n: int, difference: ArrayLike) -> Array:
    """Standardise won - lost under a hypothetical difference, the flips' rate at its maximum likelihood."""
    lost, won, difference = (np.asarray(each, float) for each in (lost, won, difference))
    b = (2 * n - won + lost) * difference - lost - won
    q = (np.sqrt(np.maximum(b * b + 8 * n * lost * difference * (1 - difference), 0)) - b) / (4 * n)
    variance = n * (2 * q + difference * (1 - difference))
    known = variance > 1e-12
    return np.where(known, (won - lost - n * difference) / np.sqrt(np.where(known, variance, 1.0)), 0.0)


def tango_each(flips: Sequence[tuple[int, int]], n: int, level: float = 0.95) -> list[tuple[float, float]]:
    """Return Tango's (1998) score interval for (won - lost) / n of n pairs, for each (lost, won) at once."""
    less, more = np.sort(np.asarray(flips, float).reshape(-1, 2)).T
    z = -float(special.ndtri((1 - level) / 2))
    inside = np.stack([(more - less) / n] * 2)  # (ends, flips)
    outside = np.stack([np.full_like(less, -1.0), np.full_like(less, 1.0)])
    for _ in range(50):
        middle = (inside + outside) / 2
        within = abs(score_statistic(less, more, n, middle)) <= z
        inside, outside = np.where(within, middle, inside), np.where(within, outside, middle)
    ends = ((inside + outside) / 2).T.tolist()
    return [
        (low, high) if lost <= won else (-high, -low)
        for (lost, won), (low, high) in zip(flips, ends, strict=True)
    ]
