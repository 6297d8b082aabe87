"""Degrees of freedom of variances that are themselves unsure, for quantiles of Student's t."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from attnbench.statistics.aggregates import Array

MANY = 1e6  # degrees of freedom: as good as normal


def welch(variances: Sequence[tuple[float, float]]) -> float:
    """Return the degrees of freedom of a sum of variances, each with its own: (sum v)^2 / sum (v^2 / d)."""
    if len(variances) == 1:
        return variances[0][1]
    return sum(v for v, _ in variances) ** 2 / sum(v**2 / degrees for v, degrees in variances)


def of_differences(differing: Array) -> float:
    """Return the degrees of freedom of m differences' variance: 2 (m - 1) / (kurtosis - 1), about zero.

    Of normal ones m - 1; of some that are all as large no end, as their number alone is unsure.
    """
    largest = float(np.abs(differing).max()) if len(differing) else 0.0
    if largest == 0:
        return MANY
    squares = (differing / largest) ** 2  # tiny differences would vanish when squared
    beyond = float((squares**2).mean()) / float(squares.mean()) ** 2 - 1
    return min(2 * (len(squares) - 1) / beyond, MANY) if beyond > 1 / MANY and len(squares) > 1 else MANY
