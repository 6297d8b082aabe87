"""Paired 0/1 scores: only the samples that flip tell of a difference."""

from __future__ import annotations

import functools
import math

from scipy import special


def mcnemar(lost: int, won: int) -> float:
    """Return the exact two-sided p value of lost and won being equally likely."""
    return float(min(1.0, 2 * special.bdtr(min(lost, won), lost + won, 0.5))) if lost + won else 1.0


def score_statistic(lost: float, won: float, n: int, difference: float) -> float:
    """Standardise won - lost under a hypothetical difference, the flips' rate at its maximum likelihood."""
    b = (2 * n - won + lost) * difference - lost - won
    q = (math.sqrt(max(b * b + 8 * n * lost * difference * (1 - difference), 0)) - b) / (4 * n)
    variance = n * (2 * q + difference * (1 - difference))
    return (won - lost - n * difference) / math.sqrt(variance) if variance > 1e-12 else 0.0


@functools.lru_cache(maxsize=10_000)
def tango(lost: int, won: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Return Tango's (1998) score interval for (won - lost) / n of n pairs."""
    if won < lost:
        low, high = tango(won, lost, n, level)
        return -high, -low
    z, estimate = -float(special.ndtri((1 - level) / 2)), (won - lost) / n

    def end(inside: float, outside: float) -> float:
        for _ in range(50):
            middle = (inside + outside) / 2
            if abs(score_statistic(lost, won, n, middle)) <= z:
                inside = middle
            else:
                outside = middle
        return (inside + outside) / 2

    return end(estimate, -1.0), end(estimate, 1.0)
