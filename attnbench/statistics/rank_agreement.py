"""Whether two measures rank the same things alike, as far as a sample of texts can tell."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
RESAMPLES = 2_000  # a spread to 2 %: no quantile is taken
CHUNK = 500  # resamples at once
WIDE = 1.96  # standard errors on each side


@dataclass(frozen=True)
class Agreement:
    """Spearman's rank correlation with its 95 % interval over texts; NaN where it is undefined."""

    spearman: float
    low: float
    high: float
    texts: int


def rank_agreement(
    first: ArrayLike,
    second: ArrayLike,
    of_first: Callable[[Array], Array] | None = None,
    of_second: Callable[[Array], Array] | None = None,
) -> Agreement:
    """Correlate the ranks that two measures give things, such as heads, by their means over the same texts.

    first, second (texts, things): what a text says of each. `of_first` and `of_second` make scores of means
    (resamples, things) where these are not the scores, as a layer's norm divides them. With r* the
    correlation in a resample of the texts, the interval is (2 r - mean r*) +- 1.96 sd r*, within -1 and 1:
    resamples have the texts' noise twice and correlate less, which intervals by quantiles keep. It is about
    other texts of this kind, for these things: heads are not drawn. Source: the normal interval, corrected
    for bias, of Davison and Hinkley 1997, section 5.2, https://doi.org/10.1017/CBO9780511802843. Raises
    ValueError for arrays of different shapes.
    """
    a, b = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    if a.shape != b.shape or a.ndim != 2:
        raise ValueError(f"{a.shape} and {b.shape} are not of the same texts and things")
    texts = len(a)

    def correlated(counts: Array) -> Array:
        means = (counts @ each / texts for each in (a, b))
        makes = (of_first, of_second)
        return _spearman(*(x if make is None else make(x) for x, make in zip(means, makes, strict=True)))

    if not texts:
        return Agreement(math.nan, math.nan, math.nan, 0)
    point = float(correlated(np.ones((1, texts)))[0])
    if texts == 1:
        return Agreement(point, math.nan, math.nan, 1)
    rng = np.random.default_rng([texts, RESAMPLES])
    sizes = [min(CHUNK, RESAMPLES - start) for start in range(0, RESAMPLES, CHUNK)]
    drawn = np.concatenate(
        [correlated(rng.multinomial(texts, np.full(texts, 1 / texts), size).astype(float)) for size in sizes]
    )
    centre, reach = 2 * point - drawn.mean(), WIDE * drawn.std(ddof=1)
    low, high = np.clip([centre - reach, centre + reach], -1, 1)
    return Agreement(point, float(low), float(high), texts)


def _spearman(a: Array, b: Array) -> Array:
    from scipy.stats import rankdata

    x, y = (rankdata(each, axis=1) for each in (a, b))
    x, y = (each - each.mean(1, keepdims=True) for each in (x, y))
    size = np.sqrt((x * x).sum(1) * (y * y).sum(1))
    return np.divide((x * y).sum(1), size, out=np.full(len(x), np.nan), where=size > 0)
