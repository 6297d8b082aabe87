"""What n samples leave open of differences that they do not show: none of them differs, or few do.

A difference that one sample in a hundred has is missed by a hundred samples with a chance of 37 %. So where
none differs, the bound is exact: that n samples miss differences which average m, none of them above L, has
at most the chance (1 - m / L)^n, whence the rule of three, 3 L / n. Where k differ, a sample is invented that
differs between as those do and as L; see `invented`. L is a convention where a metric has no bounds, and for
BLEU, which an output that runs on moves several times as far: of rare ones that no sample shows nothing is
said (benchmarks/README.md tells how often).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from attnbench.statistics.aggregates import Array, influence, is_fraction, working

ROUNDING = 1e-6  # of L: what float32 makes of the same attention in another order
TAIL = 0.025


def largest(name: str, arrays: Sequence[Array]) -> float:
    """Return L, how far one sample can move a metric, n times over: of a mean, how much a score can change.

    The most of: how far apart two samples pull the metric (their jackknife influences), the metric itself (a
    sample that loses all it adds), and 1 for a fraction.
    """
    apart = max(float(np.ptp(influence(name, scores))) for scores in arrays)
    whole = max(abs(working(name, scores)) for scores in arrays)
    return max(apart, whole, 1.0 if is_fraction(name, arrays) else 0.0)


def none_differ(most: float, n: int, gap: float) -> tuple[float, float]:
    """Return how far a 95 % interval reaches each way, and the p value of losing `gap` or more.

    (1 - gap / L)^n is the p value, L (1 - 0.025^(1 / n)) the reach: exact where no sample loses more than L.
    """
    reach = most * (1 - TAIL ** (1 / n))
    return reach, max(0.0, 1 - gap / most) ** n if gap > 0 and most > 0 else 1.0


def invented(differing: Array, most: float) -> float:
    """Return how much an invented sample differs, of k that do, by its square: a mean of theirs and L's.

    s^2 = d^2 + 2^-k (L^2 - d^2), d the root mean square of theirs: were half of the differing samples as
    large as L, k of them would all be small with a chance of 2^-k. Samples count by their size, k = (sum
    |d|)^2 / sum d^2: as many as there are where they are equal, one where one outweighs the rest. The sign is
    the first one's, so that a comparison turned round is the mirror image.
    """
    sizes = np.abs(differing) / np.abs(differing).max()  # tiny differences would vanish when squared
    mean_square = float((sizes**2).mean())
    many = float(sizes.sum()) ** 2 / (len(sizes) * mean_square)
    own = mean_square * float(np.abs(differing).max()) ** 2
    return float(np.copysign(math.sqrt(own + 0.5**many * max(most**2 - own, 0.0)), differing[0]))
