"""Which methods of a column can be told apart at all: each one's rank, as far as the samples say."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from attnbench.statistics.aggregates import Array, influence, working
from attnbench.statistics.inference import standard_error

DRAWS = 10_000  # of the largest deviation
LEVEL = 0.05
ALIKE, TINY = 1e-6, 1e-300  # a spread this small beside the largest is rounding: the two are the same


def ranks(
    kind: str, methods: Sequence[Sequence[Array]], higher_is_better: bool = True
) -> list[tuple[int, int]]:
    """Return the best and the worst rank that each method can have, all together with 95 % confidence.

    methods: of each its arrays over the same samples, one a seed. With T a metric's mean over seeds and I
    (samples,) its jackknife influences, method i is above j where

        T_i - T_j > c s_ij,   s_ij² = (sum (I_i - I_j)² + 2 max (I_i - I_j)²) / n² + the seeds' own variance

    and c is the 95 % quantile, over resampled samples, of the largest studentised |T_i - T_j| of all pairs.
    A method's best rank is one more than those above it. The samples are resampled with normal multipliers,
    the same for all methods; the second term of s is two invented samples, one each way, which stand for
    what few flips do not show.

    Source: Mogstad, Romano, Shaikh and Wilhelm 2024, https://doi.org/10.1093/restud/rdad006, and for the
    multipliers Chernozhukov, Chetverikov and Kato 2013, https://doi.org/10.1214/13-AOS1161. They step down;
    this is their first step, which is wider at most. Raises ValueError where a metric is not defined.
    """
    arrays = [[np.asarray(scores, float) for scores in seeds] for seeds in methods]
    values = np.array([np.mean([working(kind, scores) for scores in seeds]) for seeds in arrays])
    each = np.stack([np.mean([influence(kind, scores) for scores in seeds], 0) for seeds in arrays])
    if not (np.isfinite(values).all() and np.isfinite(each).all()):
        raise ValueError(f"{kind} is not defined on these samples, or without one of them")
    n = each.shape[1]
    own = np.array([_seeds(kind, seeds, mean) for seeds, mean in zip(arrays, each, strict=True)])
    covariance = each @ each.T / n**2 + np.diag(own)  # (methods, methods)
    errors = _errors(each, own)
    with np.errstate(divide="ignore", invalid="ignore"):
        apart = np.where(errors > 0, (values[:, None] - values[None]) / errors, 0.0)
    apart = apart if higher_is_better else -apart
    above = apart > _critical(covariance)
    return [(1 + int(above[:, k].sum()), len(arrays) - int(above[k].sum())) for k in range(len(arrays))]


def _errors(each: Array, own: Array) -> Array:
    n = each.shape[1]
    found = np.empty((len(each), len(each)))
    for k, mine in enumerate(each):  # a method at a time: (methods, samples) at most
        square = (mine - each) ** 2
        found[k] = (square.sum(1) + 2 * square.max(1)) / n**2
    found += own[:, None] + own[None]
    np.fill_diagonal(found, 0.0)
    return np.sqrt(found)


def _seeds(kind: str, seeds: Sequence[Array], mean: Array) -> float:
    """Return what the draws add to the variance of a mean over seeds, beside the samples."""
    if len(seeds) < 2:
        return 0.0
    error = standard_error(kind, seeds)
    if kind == "perplexity":  # its own is in the metric's unit, this on the logarithm
        error /= float(np.mean([np.exp(working(kind, scores)) for scores in seeds]))
    return max(error**2 - float(mean.var(ddof=1)) / len(mean), 0.0)


def _critical(covariance: NDArray[np.float64]) -> float:
    """Return the 95 % quantile of the largest studentised difference of normals of this covariance."""
    own = np.diag(covariance)
    spread = np.sqrt(np.maximum(own[:, None] + own[None] - 2 * covariance, 0.0))
    size, root = np.linalg.eigh(covariance)
    root = root * np.sqrt(np.maximum(size, 0))
    drawn = np.random.default_rng([len(own), DRAWS]).standard_normal((DRAWS, len(own))) @ root.T
    largest = np.zeros(DRAWS)
    for k, row in enumerate(spread):
        others = row > ALIKE * max(float(spread.max()), TINY)
        others[: k + 1] = False  # a pair once
        if others.any():
            found = np.abs(drawn[:, [k]] - drawn[:, others]) / row[others]
            largest = np.maximum(largest, found.max(1))
    return float(np.quantile(largest, 1 - LEVEL))
