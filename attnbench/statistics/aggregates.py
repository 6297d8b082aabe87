"""Metrics as formulas over the column sums of their per-sample arrays.

A record names how a metric is computed from its array: mean, mcc and f1 (columns tp, fp, fn, tn), pearson
and spearman (x, y), perplexity (log-likelihood, length), ratio (what is scored, how many it is of), bleu and
chrf (n-gram counts in sacrebleu's order).
A jackknife is the sums less one row; resamples are made in `resampling`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Array = NDArray[np.float64]
LARGEST = math.log(np.finfo(float).max)


def _ratio(over: Array, under: Array) -> Array:
    return np.divide(over, under, out=np.zeros(np.broadcast(over, under).shape), where=under > 0)


def _mcc(sums: Array) -> Array:
    tp, fp, fn, tn = np.moveaxis(sums, -1, 0)
    return _ratio(tp * tn - fp * fn, np.sqrt(np.maximum((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn), 0)))


def _f1(sums: Array) -> Array:
    tp, fp, fn, _ = np.moveaxis(sums, -1, 0)
    return _ratio(2 * tp, 2 * tp + fp + fn)


def _products(scores: Array) -> Array:
    x, y = (scores - scores.mean(0)).T  # centred: the sums of squares then lose no digits
    return np.stack([np.ones_like(x), x, y, x * x, y * y, x * y], 1)


def _pearson(sums: Array) -> Array:
    n, x, y, xx, yy, xy = np.moveaxis(sums, -1, 0)
    spread = np.maximum(n * xx - x * x, 0) * np.maximum(n * yy - y * y, 0)
    return np.clip(_ratio(n * xy - x * y, np.sqrt(spread)), -1, 1)


def _bleu(sums: Array) -> Array:
    """Compute BLEU from columns (hypothesis length, reference length, 4 matches, 4 totals).

    The i-th order without a match counts as 2^-i matches, which is sacrebleu's smoothing.
    """
    length, reference, matches, totals = sums[..., 0], sums[..., 1], sums[..., 2:6], sums[..., 6:10]
    empty = (matches <= 0) & (totals > 0)
    smoothed = np.where(empty, 0.5 ** np.cumsum(empty, -1), matches)
    present = totals > 0
    logs = np.log(np.where(present, smoothed, 1) / np.where(present, totals, 1))
    # an order without a single n-gram has precision 0: so has the score
    whole = present.all(-1) & (matches > 0).any(-1) & (length > 0)
    brevity = np.minimum(0, 1 - _ratio(reference, length))
    return np.where(whole, 100 * np.exp(brevity + logs.mean(-1)), 0.0)


def _chrf(sums: Array) -> Array:
    """Compute chrF2 from columns (hypothesis, reference, match) of each order, averaged over used orders."""
    hypothesis, reference, match = (sums[..., start::3] for start in range(3))
    used = (hypothesis > 0) & (reference > 0)
    orders = np.maximum(used.sum(-1), 1)
    precision = np.where(used, _ratio(match, hypothesis), 0).sum(-1) / orders
    recall = np.where(used, _ratio(match, reference), 0).sum(-1) / orders
    return 100 * _ratio(5 * precision * recall, 4 * precision + recall)


def _columns(scores: Array) -> Array:
    return scores


def _with_count(scores: Array) -> Array:
    return np.stack([np.ones(len(scores)), scores.reshape(len(scores))], 1)


METRICS: dict[str, tuple[Callable[[Array], Array], Callable[[Array], Array]]] = {
    "mean": (_with_count, lambda sums: _ratio(sums[..., 1], sums[..., 0])),
    "mcc": (_columns, _mcc),
    "f1": (_columns, _f1),
    "pearson": (_products, _pearson),
    "spearman": (_columns, _pearson),  # of ranks, which are not sums: see resampling
    "perplexity": (_columns, lambda sums: -_ratio(sums[..., 0], sums[..., 1])),  # its logarithm
    "ratio": (_columns, lambda sums: _ratio(sums[..., 0], sums[..., 1])),  # a mean over those that count
    "bleu": (_columns, _bleu),
    "chrf": (_columns, _chrf),
}


def _ranks(values: Array) -> Array:
    return stats.rankdata(values, axis=0)


def spare(name: str, scores: Array) -> float:
    """Count the samples that a metric can do without and be defined still; below 0 it is not.

    A correlation is of three samples at least (of two it is 1 or -1 whatever they are), none of whose sides
    is constant. The Matthews correlation needs both labels, F1 a positive one, said or meant. A ratio needs
    one that counts.
    """
    scores = np.asarray(scores, float)
    if not len(scores):
        return -1.0
    if name in ("pearson", "spearman"):
        usual = max(int(np.unique(column, return_counts=True)[1].max()) for column in scores.T)
        return min(len(scores) - 3, len(scores) - usual - 1)
    if name == "ratio":
        return float(np.count_nonzero(scores[:, 1])) - 1
    tp, fp, fn, tn = scores.sum(0) if name in ("mcc", "f1") else (math.inf,) * 4
    return float(min(tp + fn, fp + tn) if name == "mcc" else tp + fp + fn) - 1


def defined(name: str, scores: Array) -> bool:
    """Tell whether a metric is a number at all on these samples."""
    return spare(name, scores) >= 0


def working(name: str, scores: Array) -> float:
    """Compute a metric on the scale where it is compared, which for a perplexity is its logarithm.

    Of samples on which it is not defined it is NaN, which no record keeps: null stands there.
    """
    columns, formula = METRICS[name]
    scores = np.asarray(scores, float)
    if not defined(name, scores):
        return math.nan
    if name == "spearman":
        scores, columns = _ranks(scores), _products
    return float(formula(columns(scores).sum(0)))


def aggregate(name: str, scores: Array) -> float:
    """Compute a metric from its per-sample array."""
    return _shown(name, working(name, scores))


def over_seeds(name: str, seeds: Sequence[Array]) -> float:
    """Average a metric over seeds on the scale where it is compared: of perplexities the geometric mean."""
    return _shown(name, float(np.mean([working(name, scores) for scores in seeds])))


def _shown(name: str, value: float) -> float:
    """Return a metric from the scale where it is compared; a perplexity beyond all floats is infinite."""
    if name != "perplexity":
        return value
    return math.exp(value) if value < LARGEST else math.inf


def _sentence_bleu(rows: Array) -> Array:
    """Compute BLEU of each row from the orders that a sentence of its length has, smoothed as `_bleu` is."""
    length, reference, matches, totals = rows[:, 0], rows[:, 1], rows[:, 2:6], rows[:, 6:10]
    present, empty = totals > 0, (matches <= 0) & (totals > 0)
    smoothed = np.where(empty, 0.5 ** np.cumsum(empty, -1), matches)
    logs = np.log(np.where(present, smoothed, 1) / np.where(present, totals, 1))
    brevity = np.minimum(0, 1 - _ratio(reference, length))
    any_match = (matches > 0).any(-1) & (length > 0)
    return np.where(any_match, 100 * np.exp(brevity + logs.sum(-1) / np.maximum(present.sum(-1), 1)), 0.0)


# what a sample scores by itself, larger for more, and how that reads; none of a correlation, which is of all
SAMPLES: dict[str, tuple[Callable[[Array], Array], str]] = {
    "mean": (lambda rows: rows, "scores higher"),
    "mcc": (lambda rows: rows[:, 0] + rows[:, 3], "alone is right"),
    "f1": (lambda rows: rows[:, 0] + rows[:, 3], "alone is right"),
    "perplexity": (lambda rows: _ratio(rows[:, 0], rows[:, 1]), "gives more likelihood"),
    "bleu": (_sentence_bleu, "has the higher sentence BLEU"),
    "chrf": (_chrf, "has the higher sentence chrF"),
}


def by_sample(name: str, scores: Array) -> Array | None:
    """Score each sample by itself, (n,); None where a sample alone has no score."""
    if name not in SAMPLES:
        return None
    scores = np.asarray(scores, float)
    rows = scores if name == "mean" else scores.reshape(len(scores), -1)
    return np.asarray(SAMPLES[name][0](rows), float).reshape(len(scores))


def influence(name: str, scores: Array) -> Array:
    """Return (n - 1)(T - T without the sample) for each sample: for a mean, its deviation from the mean."""
    columns, formula = METRICS[name]
    scores = np.asarray(scores, float)
    if name == "spearman":
        scores, columns = _ranks(scores), _products
    rows = columns(scores)
    total = rows.sum(0)
    return (len(rows) - 1) * (formula(total) - formula(total - rows))


def is_fraction(name: str, arrays: Sequence[Array]) -> bool:
    """Tell whether a metric is a fraction of 1, as its name or its per-sample values show."""
    if name == "mean":
        return all(bool(((scores >= 0) & (scores <= 1)).all()) for scores in arrays)
    if name == "ratio":
        return all(bool(((scores >= 0) & (scores <= scores[:, 1:])).all()) for scores in arrays)
    return name in ("mcc", "f1", "pearson", "spearman")


def bounds(name: str, arrays: Sequence[Array]) -> tuple[float, float]:
    """Return the least and the most that a metric can be."""
    if name in ("bleu", "chrf"):
        return 0.0, 100.0
    if not is_fraction(name, arrays):
        return -math.inf, math.inf
    return (-1.0 if name in ("mcc", "pearson", "spearman") else 0.0), 1.0
