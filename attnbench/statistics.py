"""Paired statistics: how much a method differs from dense on the same samples, and how sure that is.

Two intervals, chosen by simulating their coverage (tests/test_statistics.py):

* 0/1 scores: Tango's score interval. Only discordant pairs matter there, and with the handful that a mild
  method makes, a bootstrap of any kind covers far less than it says.
* all else: a BCa paired bootstrap, with one pseudo-pair each way for the same reason (as Agresti and Min add
  to 0/1 scores): it widens the interval where few samples differ and vanishes where many do. Where those
  differ by unequal amounts their variance is itself unsure, so quantiles are Student's, as Hesterberg (2015)
  expands percentile intervals, with Satterthwaite's degrees of freedom.

Perplexities are compared on their logarithm. Draws are seeded by the number of samples and of seeds.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from attnbench.aggregates import Array, aggregate, furthest, influence, is_fraction, working
from attnbench.resampling import RESAMPLES, resampled

Z95 = -float(special.ndtri(0.025))
MANY = 1e6  # degrees of freedom: as good as normal


@dataclass(frozen=True)
class Paired:
    """A method against dense: the difference (method - dense), its 95 % interval, and two tests.

    `p_margin` is one-sided, of "worse than dense by the margin or more". For 0/1 scores `flips` counts the
    samples that (only dense, only the method) got right; `mcnemar` is the two-sided p value of a balance.
    """

    estimate: float
    low: float
    high: float
    p_margin: float
    mcnemar: float | None = None
    flips: tuple[int, int] | None = None

    @property
    def error(self) -> float:
        """The standard error that an interval of this width stands for."""
        return (self.high - self.low) / (2 * Z95)


def standard_error(name: str, seeds: Sequence[Array]) -> float:
    """Return the jackknife standard error of a metric averaged over seeds, in the metric's own unit."""
    n = len(seeds[0])
    if n < 2:
        return math.nan
    each = np.stack([influence(name, scores) for scores in seeds])
    error = math.sqrt(each.mean(0).var(ddof=1) / n + _seed_variance([working(name, s) for s in seeds], each))
    return error * float(np.mean([aggregate(name, s) for s in seeds])) if name == "perplexity" else error


def _seed_variance(values: Sequence[float], influences: Array) -> float:
    """Estimate the seeds' own part in the variance of a mean over seeds, less what the samples explain."""
    seeds, n = influences.shape
    if seeds < 2 or n < 2:
        return 0.0
    shared = influences.var(axis=0, ddof=1).mean() / n
    return max(float(np.var(values, ddof=1)) - float(shared), 0.0) / seeds


def binary(arrays: Sequence[Array]) -> bool:
    return all(scores.ndim == 1 and bool(np.isin(scores, (0, 1)).all()) for scores in arrays)


def paired(
    name: str, dense: Array, methods: Sequence[Sequence[Array]], margin: float, higher_is_better: bool = True
) -> list[Paired]:
    """Compare methods (each a list of arrays, one a seed) with dense over the same samples.

    `margin` is on the scale of `working`: 0.01 is one point of accuracy, or 1 % of a perplexity.
    """
    dense = np.asarray(dense, float)
    groups = [[np.asarray(scores, float) for scores in seeds] for seeds in methods]
    simple = [name == "mean" and len(seeds) == 1 and binary([dense, *seeds]) for seeds in groups]
    others = [seeds for seeds, is_simple in zip(groups, simple, strict=True) if not is_simple]
    drawn = resampled(name, [dense, *(scores for seeds in others for scores in seeds)]) if others else None
    found, position = [], 1
    for seeds, is_simple in zip(groups, simple, strict=True):
        if is_simple or drawn is None:
            found.append(_flips(dense, seeds[0], margin, higher_is_better))
        else:
            replicates = drawn[position : position + len(seeds)].mean(0) - drawn[0]
            position += len(seeds)
            found.append(_bootstrap(name, [dense], seeds, replicates, margin, higher_is_better))
    return found


def between(name: str, a: Sequence[Array], b: Sequence[Array]) -> Paired:
    """Compare two methods that both draw, each a list of arrays, one a seed: a - b over the same samples."""
    a, b = ([np.asarray(scores, float) for scores in seeds] for seeds in (a, b))
    drawn = resampled(name, [*b, *a])
    return _bootstrap(name, b, a, drawn[len(b) :].mean(0) - drawn[: len(b)].mean(0), 0.0, True)


def _flips(dense: Array, method: Array, margin: float, higher_is_better: bool) -> Paired:
    n = len(dense)
    lost, won = int((dense > method).sum()), int((dense < method).sum())
    low, high = tango(lost, won, n)
    worse, better = (lost, won) if higher_is_better else (won, lost)
    p = float(special.ndtr(-_tango_z(worse, better, n, -margin)))
    return Paired((won - lost) / n, low, high, p, mcnemar(lost, won), (lost, won))


def mcnemar(lost: int, won: int) -> float:
    """Return the exact two-sided p value of lost and won being equally likely."""
    return float(min(1.0, 2 * special.bdtr(min(lost, won), lost + won, 0.5))) if lost + won else 1.0


def _tango_z(lost: float, won: float, n: int, difference: float) -> float:
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
            if abs(_tango_z(lost, won, n, middle)) <= z:
                inside = middle
            else:
                outside = middle
        return (inside + outside) / 2

    return end(estimate, -1.0), end(estimate, 1.0)


def _bootstrap(
    name: str,
    base: Sequence[Array],
    seeds: Sequence[Array],
    drawn: Array,
    margin: float,
    higher_is_better: bool,
) -> Paired:
    n, repeats = len(base[0]), max(len(seeds), len(base))
    rng = np.random.default_rng([repeats, n])
    estimate, share, variance = 0.0, np.zeros(n), 0.0
    for sign, group in ((1, seeds), (-1, base)):
        values = [working(name, scores) for scores in group]
        each = np.stack([influence(name, scores) for scores in group])
        estimate += sign * float(np.mean(values))
        share = share + sign * each.mean(0)
        variance += _seed_variance(values, each)
    differs = np.zeros(n, bool)
    for scores in seeds:
        for other in base:
            differs |= (scores != other).reshape(n, -1).any(1)
    differing = (share + estimate)[differs]
    size = _pseudo_pair(name, [*base, *seeds], differing)
    drawn = drawn + size * (rng.poisson(1, RESAMPLES) - rng.poisson(1, RESAMPLES)) / n
    spread, degrees = math.sqrt(variance), _degrees(differing)
    if spread:
        # three seeds have ten different resamples: their part is drawn from Student's t, here and not below
        degrees = MANY
        draws = rng.standard_t(repeats - 1, RESAMPLES // 2)
        drawn = drawn + spread * np.concatenate([draws, -draws])
    error = float(drawn.std())
    if error == 0:
        ahead = estimate > -margin if higher_is_better else estimate < margin
        return Paired(estimate, estimate, estimate, 0.0 if ahead else 1.0)
    tiny = 1e-9 * error
    below = (drawn < estimate - tiny).mean() + 0.5 * (np.abs(drawn - estimate) <= tiny).mean()
    bias = float(special.ndtri(np.clip(below, 0.001, 0.999)))
    share, size, spread = share / (n * error), size / (n * error), spread / error
    acceleration = float((share**3).sum() / (6 * ((share**2).sum() + 2 * size**2 + spread**2) ** 1.5))
    z = bias + special.stdtrit(degrees, [0.025, 0.975])
    low, high = np.quantile(drawn, special.ndtr(bias + z / np.maximum(1 - acceleration * z, 0.1)))
    most = furthest(name, [*base, *seeds])
    low, high = np.clip((low, high), -most, most)
    limit = -margin if higher_is_better else margin
    beyond = float(np.mean(drawn < limit) + 0.5 * np.mean(drawn == limit))
    if 0 < beyond < 1:
        u = float(special.ndtri(beyond)) - bias
        p = float(special.stdtr(degrees, u / max(1 + acceleration * u, 0.1) - bias))
    else:  # past the last resample: as far as the standard error says
        p = min(float(special.stdtr(degrees, -abs(limit - estimate) / error)), 0.5 / RESAMPLES)
        p = 1 - p if beyond else p
    return Paired(estimate, float(low), float(high), p if higher_is_better else 1 - p)


def _degrees(differing: Array) -> float:
    """Return the degrees of freedom of m differences' variance: 2 (m - 1) / (kurtosis - 1), about zero.

    Of normal ones m - 1; of some that are all as large no end, as their number alone is unsure.
    """
    largest = float(np.abs(differing).max()) if len(differing) else 0.0
    if largest == 0:
        return MANY
    squares = (differing / largest) ** 2  # tiny differences would vanish when squared
    beyond = float((squares**2).mean()) / float(squares.mean()) ** 2 - 1
    return min(2 * (len(squares) - 1) / beyond, MANY) if beyond > 1 / MANY and len(squares) > 1 else MANY


def _pseudo_pair(name: str, arrays: Sequence[Array], differing: Array) -> float:
    """Return how much an invented sample differs: as those that do (rms), or as far as one of dense can."""
    if len(differing):
        sizes = np.abs(differing)
        first = differing[sizes > 1e-9 * sizes.max()]  # rounding alone has no sign to go by
        return float(np.copysign(np.sqrt((differing**2).mean()), first[0] if len(first) else 1.0))
    return max(1.0, float(np.ptp(influence(name, arrays[0])))) if is_fraction(name, arrays) else 0.0


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct p values for being many: sorted, the i-th of m times (m - i), never decreasing, at most 1."""
    p = np.asarray(p_values, float)
    order = np.argsort(p, kind="stable")
    corrected = np.minimum(1, np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)))
    out = np.empty_like(p)
    out[order] = corrected
    return [float(value) for value in out]


def kept(score: float, dense: float, uniform: float) -> float:
    """Return the share of what attention contributes that survives: (score - uniform) / (dense - uniform)."""
    return (score - uniform) / (dense - uniform)


def samples_needed(n: int, difference: Paired, margin: float, alpha: float, higher_is_better: bool) -> float:
    """Return how many samples would decide, four times in five, were the difference what was measured.

    n ((z_alpha + z_0.8) error / gap)^2: the gap is to the margin for a method inside it, to zero for others.
    """
    gain = difference.estimate if higher_is_better else -difference.estimate
    gap, level = (gain + margin, alpha) if gain > -margin else (gain, 0.025)
    if gap == 0:
        return math.inf
    needed = n * ((special.ndtri(level) + special.ndtri(0.2)) * difference.error / gap) ** 2
    return max(float(needed), n + 1.0)
