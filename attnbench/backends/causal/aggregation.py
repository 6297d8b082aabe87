"""lm-eval's aggregations as ours: what of a sample is kept, so that a metric can be computed again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lm_eval.api import metrics as lm_metrics
from lm_eval.tasks.ruler.common_utils import aggregate_metrics

from attnbench.backends.long.scoring import ratio

Statistic = Callable[[Any], Any]


def _likelihood(item: Any) -> tuple[float, float]:
    return (item, 1.0)


def _counts(item: Any) -> tuple[int, ...]:
    gold, guess = (int(value) for value in item)
    return tuple(int((guess, gold) == pair) for pair in ((1, 1), (1, 0), (0, 1), (0, 0)))


def _where_asked(item: float) -> tuple[float, float]:
    """Return (score, 1), or nothing where RULER has -1 for a length that a document is not of."""
    return (float(item), 1.0) if item != -1 else (0.0, 0.0)


# lm-eval's aggregation, by its code as a YAML's folder is a module of its own -> ours and the statistic of an
# item; what is not here cannot be computed again
AGGREGATES: dict[Any, tuple[str, Statistic]] = {
    lm_metrics.mean.__code__: ("mean", float),
    lm_metrics.perplexity.__code__: ("perplexity", _likelihood),
    lm_metrics.weighted_perplexity.__code__: ("perplexity", tuple),
    lm_metrics.matthews_corrcoef.__code__: ("mcc", _counts),
    lm_metrics.f1_score.__code__: ("f1", _counts),
    aggregate_metrics.__code__: ("ratio", _where_asked),
    ratio.__code__: ("ratio", tuple),
}


def is_known(function: Any) -> bool:
    """Tell whether a metric that is aggregated so can be computed again from its samples."""
    return getattr(function, "__code__", None) in AGGREGATES


def known(function: Any) -> tuple[str, Statistic]:
    """Return the name of our aggregation and the statistic of an item."""
    return AGGREGATES[function.__code__]
