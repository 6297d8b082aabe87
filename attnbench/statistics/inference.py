"""Paired statistics: how much a method differs from dense on the same samples, and how sure that is.

Two intervals, chosen by simulating their coverage (tests/test_statistics.py):

* 0/1 scores: Tango's score interval. Only discordant pairs matter there, and with the handful that a mild
  method makes, a bootstrap of any kind covers far less than it says.
* all else: a BCa paired bootstrap, with an invented sample that differs, drawn as often as one, each way (as
  Agresti and Min add to 0/1 scores): it widens the interval where few samples differ and vanishes where many
  do. Where those differ by unequal amounts their variance is itself unsure, so quantiles are Student's, as
  Hesterberg (2015) expands percentile intervals, with Satterthwaite's degrees of freedom.

A resample shows no difference of a size that no sample has shown, and none at all where none differs. So the
invented one is as large as a sample's could be where few differ and comes down to those that do as they
become many, and where none does a bound like the rule of three stands in: see `unseen`. Outputs equal to
dense bit for bit are no exception: they are n samples, too.

Perplexities are compared on their logarithm. Draws depend on the number of samples and of seeds, and on the
comparison's own scores at most, never on what else is compared with it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from attnbench.statistics import freedom, unseen
from attnbench.statistics.aggregates import Array, aggregate, bounds, influence, spare, working
from attnbench.statistics.flips import mcnemar, score_statistic, tango_each
from attnbench.statistics.resampling import RESAMPLES, resampled, resampled_each

Z95 = -float(special.ndtri(0.025))
FLIPS = "of right and wrong by Tango's score interval and McNemar's exact test"
BOOTSTRAP = "of other scores, or of several seeds, by a BCa bootstrap"


@dataclass(frozen=True)
class Paired:
    """A method against dense: the difference (method - dense), its 95 % interval, and tests.

    `p_margin` is one-sided, of "worse than dense by the margin or more", `p_zero` two-sided, of no
    difference. For 0/1 scores `discordant` counts the samples that (only dense, only the method) got right;
    `mcnemar` is the two-sided p value of a balance.
    """

    estimate: float
    low: float
    high: float
    p_margin: float
    p_zero: float = 1.0
    mcnemar: float | None = None
    discordant: tuple[int, int] | None = None

    def p_better(self, higher_is_better: bool) -> float:
        """Return the one-sided p value of the method not being better than dense."""
        gain = self.estimate if higher_is_better else -self.estimate
        return self.p_zero / 2 if gain > 0 else 1 - self.p_zero / 2

    @property
    def error(self) -> float:
        """The standard error that an interval of this width stands for."""
        return (self.high - self.low) / (2 * Z95)


def standard_error(name: str, seeds: Sequence[Array]) -> float:
    """Return the jackknife standard error of a metric averaged over seeds, in the metric's own unit.

    NaN where there is none: of one sample, and where the metric is not defined without one of them.
    """
    n = len(seeds[0])
    if n < 2 or any(spare(name, scores) < 1 for scores in seeds):
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
    return all(scores.ndim == 1 and bool(((scores == 0) | (scores == 1)).all()) for scores in arrays)


def paired(
    name: str, dense: Array, methods: Sequence[Sequence[Array]], margin: float, higher_is_better: bool = True
) -> list[Paired]:
    """Compare methods (each a list of arrays, one a seed) with dense over the same samples.

    `margin` is on the scale of `working`: 0.01 is one point of accuracy, or 1 % of a perplexity.
    """
    dense = np.asarray(dense, float)
    groups = [[np.asarray(scores, float) for scores in seeds] for seeds in methods]
    flips = name == "mean" and binary([dense])
    simple = [flips and len(seeds) == 1 and binary(seeds) for seeds in groups]
    others = [seeds for seeds, is_simple in zip(groups, simple, strict=True) if not is_simple]
    mine = [seeds[0] for seeds, is_simple in zip(groups, simple, strict=True) if is_simple]
    flipped = iter(_flipped(dense, mine, margin, higher_is_better))
    drawn = iter(resampled_each(name, dense, others))
    return [
        next(flipped)
        if is_simple
        else _bootstrap(name, [dense], seeds, next(drawn), margin, higher_is_better)
        for seeds, is_simple in zip(groups, simple, strict=True)
    ]


def between(
    name: str, a: Sequence[Array], b: Sequence[Array], margin: float = 0.0, higher_is_better: bool = True
) -> Paired:
    """Compare two methods that both draw, each a list of arrays, one a seed: a - b over the same samples."""
    a, b = ([np.asarray(scores, float) for scores in seeds] for seeds in (a, b))
    drawn = resampled(name, [*b, *a])
    drawn = drawn[len(b) :].mean(0) - drawn[: len(b)].mean(0)
    return _bootstrap(name, b, a, drawn, margin, higher_is_better)


def _flipped(
    dense: Array, methods: Sequence[Array], margin: float, higher_is_better: bool
) -> Iterator[Paired]:
    """Yield what comes of each of several 0/1 scores against dense's."""
    n = len(dense)
    counts = [
        (int(np.count_nonzero(dense > scores)), int(np.count_nonzero(dense < scores))) for scores in methods
    ]
    worse, better = np.asarray(counts, float).reshape(-1, 2).T[:: 1 if higher_is_better else -1]
    p_values = special.ndtr(-score_statistic(worse, better, n, -margin)).tolist()
    for (lost, won), (low, high), p in zip(counts, tango_each(counts, n), p_values, strict=True):
        exact = mcnemar(lost, won)
        yield Paired((won - lost) / n, low, high, p, exact, exact, (lost, won))


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
    estimate, share, seeded = 0.0, np.zeros(n), []
    for sign, group in ((1, seeds), (-1, base)):
        values = [working(name, scores) for scores in group]
        each = np.stack([influence(name, scores) for scores in group])
        estimate += sign * float(np.mean(values))
        share = share + sign * each.mean(0)
        seeded.append((_seed_variance(values, each), float(len(group) - 1)))
    least, greatest = _room(name, seeds, base)
    differs = np.zeros(n, bool)
    for scores in seeds:
        for other in base:
            differs |= (scores != other).reshape(n, -1).any(1)
    most = unseen.largest(name, [*base, *seeds])
    differing = (share + estimate)[differs]
    differing = differing[np.abs(differing) > unseen.ROUNDING * most]
    if not len(differing):
        gain = estimate if higher_is_better else -estimate
        reach, p = unseen.none_differ(most, n, margin + gain)
        return Paired(estimate, max(estimate - reach, least), min(estimate + reach, greatest), p)
    size = unseen.invented(differing, most)
    drawn = drawn + size * np.random.default_rng([repeats, n]).laplace(0, 1, RESAMPLES) / n
    spread, degrees = math.sqrt(sum(each for each, _ in seeded)), freedom.of_differences(differing)
    if spread:
        # three seeds have ten different resamples: their part is drawn from Student's t, here and not below,
        # with Welch's degrees of freedom where both methods draw
        degrees = freedom.MANY
        draws = rng.standard_t(freedom.welch([each for each in seeded if each[0]]), RESAMPLES // 2)
        drawn = drawn + spread * np.concatenate([draws, -draws])
    error = float(drawn.std())
    tiny = 1e-9 * error
    below = (drawn < estimate - tiny).mean() + 0.5 * (np.abs(drawn - estimate) <= tiny).mean()
    bias = float(special.ndtri(np.clip(below, 0.001, 0.999)))
    share, size, spread = share / (n * error), size / (n * error), spread / error
    acceleration = float((share**3).sum() / (6 * ((share**2).sum() + 2 * size**2 + spread**2) ** 1.5))
    z = bias + special.stdtrit(degrees, [0.025, 0.975])
    low, high = np.quantile(drawn, special.ndtr(bias + z / np.maximum(1 - acceleration * z, 0.1)))
    low, high = np.clip((low, high), least, greatest)

    def chance(limit: float) -> float:
        """Return the one-sided p value of the truth being at a limit or below."""
        beyond = float(np.mean(drawn < limit) + 0.5 * np.mean(drawn == limit))
        if 0 < beyond < 1:
            u = float(special.ndtri(beyond)) - bias
            return float(special.stdtr(degrees, u / max(1 + acceleration * u, 0.1) - bias))
        # past the last resample: as far as the standard error says
        p = min(float(special.stdtr(degrees, -abs(limit - estimate) / error)), 0.5 / RESAMPLES)
        return 1 - p if beyond else p

    p_margin = chance(-margin) if higher_is_better else 1 - chance(margin)
    p_zero = 2 * min(chance(0.0), 1 - chance(0.0))
    return Paired(estimate, float(low), float(high), p_margin, p_zero)


def _room(name: str, seeds: Sequence[Array], base: Sequence[Array]) -> tuple[float, float]:
    """Return the least and the most that two methods can differ by, as far apart as a metric's bounds allow.

    Either may be anywhere in its own 95 % interval, so one at 93 of 100 leaves little above it.
    """
    lower, upper = bounds(name, [*base, *seeds])
    if math.isinf(upper):
        return lower, upper
    ends = []
    for group in (seeds, base):
        value = float(np.mean([working(name, scores) for scores in group]))
        error = standard_error(name, group)
        own = max(Z95 * error, unseen.none_differ(unseen.largest(name, group), len(group[0]), 0.0)[0])
        own = own if math.isfinite(own) else upper - lower
        ends.append((max(value - own, lower), min(value + own, upper)))
    (low, high), (base_low, base_high) = ends
    return max(lower - base_high, low - upper), min(upper - base_low, high - lower)


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


def samples_needed(n: int, found: Paired, margin: float, alpha: float, higher_is_better: bool) -> float:
    """Return at how many samples the same rates would decide: what n showed, seen that much more often.

    N = n (z_alpha / z)^2, as a test's statistic z grows with the root of n: that of the margin, at alpha, for
    a method inside it; of no difference, at 2.5 % each side, for another. Where nothing differs N = n
    log(alpha) / log(p), as p = (1 - m / L)^n. By chance N samples decide about every second time.
    """
    gain = found.estimate if higher_is_better else -found.estimate
    if gain > -margin:
        if found.discordant is None and gain == 0 and 0 < found.p_margin < 1:
            return n * math.log(alpha) / math.log(found.p_margin)
        z = float(special.ndtri(found.p_margin))
        return n * (float(special.ndtri(alpha)) / z) ** 2 if z < 0 else math.inf
    if gain == 0:
        return math.inf
    if found.discordant:
        lost, won = found.discordant
        return n * Z95**2 * (lost + won) / (lost - won) ** 2
    end = found.high if higher_is_better else found.low
    return n * ((end - found.estimate) / gain) ** 2
