"""The bootstrap of a metric: a resample is a vector of counts times the columns of its per-sample array."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from attnbench.statistics.aggregates import METRICS, Array

RESAMPLES = 10_000
CHUNK = 4_000_000  # draws held at once
CACHED = 400000  # counts held at once
BLOCK = 16
TRIANGLE = np.triu(np.ones((BLOCK, BLOCK)))


def _counts(population: Array, rng: np.random.Generator) -> Iterator[Array]:
    """Yield (resamples, rows) counts of drawing a resample; row i stands for population[i] samples."""
    rows, n = len(population), int(population.sum())
    if rows < n:
        yield rng.multinomial(n, population / n, size=RESAMPLES).astype(float)
        return
    kind = np.uint16 if n <= 1 << 16 else np.uint32
    step = max(1, CHUNK // n)
    for start in range(0, RESAMPLES, step):
        drawn = rng.integers(0, n, size=(min(step, RESAMPLES - start), n), dtype=kind)
        counts = np.empty((max(1, CACHED // n), n))
        for top in range(0, len(drawn), len(counts)):
            lines = drawn[top : top + len(counts)]
            for line, out in zip(lines, counts, strict=False):
                out[:] = np.bincount(line, minlength=n)
            yield counts[: len(lines)]


class _Spearman:
    """Correlates the ranks of (rows, 2) arrays in resamples of their rows, which draw `total` samples."""

    def __init__(self, arrays: Sequence[Array], total: float) -> None:
        self.total = total
        self.columns = {column.tobytes(): _Column(column) for array in arrays for column in array.T}
        self.pairs = [(x.tobytes(), y.tobytes()) for x, y in (array.T for array in arrays)]
        self.seconds = {y for _, y in self.pairs}

    def __call__(self, counts: Array) -> Array:
        """Return (arrays, resamples) of counts (resamples, rows).

        With t of N drawn at each value, in order, the mid-ranks less their mean are cumsum(t) - (t + N) / 2
        and their squares sum to (N^3 - sum t^3) / 12. The other column's, v, sum to 0, so N falls out.
        """
        out = np.zeros((len(self.pairs), len(counts)))
        for position, weights in enumerate(counts):  # a row at a time stays in the cache
            ranked = {key: self._weighted_ranks(self.columns[key], weights) for key in self.seconds}
            for array, (x, y) in enumerate(self.pairs):
                column, (ranks, spread) = self.columns[x], ranked[y]
                size = column.by_value(weights, 0)
                spread *= self._spread(size)
                if spread > 0:
                    v = column.by_value(ranks, 1)
                    covariance = _below(v, size) - 0.5 * (v @ size)
                    out[array, position] = 12 * covariance / math.sqrt(spread)
        return out

    def _weighted_ranks(self, column: _Column, weights: Array) -> tuple[Array, float]:
        """Return each row's mid-rank less the mean rank, times its weight, and 12 times their squares."""
        size = column.by_value(weights, 0)
        ranks = np.cumsum(size) - 0.5 * (size + self.total)
        return weights * ranks.take(column.group, mode="clip"), self._spread(size)

    def _spread(self, size: Array) -> float:
        return self.total**3 - float((size * size) @ size)


class _Column:
    """Sums over the rows of a column by its values, which are sorted once."""

    def __init__(self, column: Array) -> None:
        self.order = np.argsort(column, kind="stable")
        first = np.r_[True, np.diff(column[self.order]) != 0]
        self.starts = None if first.all() else np.flatnonzero(first)
        self.group = np.empty_like(self.order)
        self.group[self.order] = np.cumsum(first) - 1
        self.rows = np.empty(len(column))
        self.values = np.zeros((2, -(-int(first.sum()) // BLOCK) * BLOCK))

    def by_value(self, numbers: Array, place: int) -> Array:
        """Sum numbers, one a row, over the rows of each value, values ascending, then zeros.

        The array is one of two that this object keeps and writes again.
        """
        out = self.values[place]
        if self.starts is None:
            numbers.take(self.order, out=out[: len(numbers)], mode="clip")
        else:
            numbers.take(self.order, out=self.rows, mode="clip")
            np.add.reduceat(self.rows, self.starts, out=out[: len(self.starts)])
        return out


def _below(v: Array, size: Array) -> float:
    """Return v @ cumsum(size), of a multiple of BLOCK numbers: a block at a time, as np.cumsum is slow."""
    sums = size.reshape(-1, BLOCK) @ TRIANGLE
    ends = sums[:, -1]
    return float(v @ sums.reshape(-1) + (v.reshape(-1, BLOCK) @ TRIANGLE[0]) @ (np.cumsum(ends) - ends))


def resampled_each(name: str, dense: Array, groups: Sequence[Sequence[Array]]) -> list[Array]:
    """Return for each group of arrays its mean metric less dense's over resamples, each (resamples,).

    Those that few distinct rows can stand for are drawn each by itself, the others by rows together, as those
    draws depend on the number of samples alone. So no group's draws depend on which others there are.
    """
    together = [_few([dense, *seeds]) is None for seeds in groups]
    flat = [scores for seeds, by_row in zip(groups, together, strict=True) if by_row for scores in seeds]
    shared = iter(resampled(name, [dense, *flat])) if flat else iter(())
    base = next(shared, None)
    found = []
    for seeds, by_row in zip(groups, together, strict=True):
        if by_row:
            found.append(np.mean([next(shared) for _ in seeds], 0) - base)
        else:
            drawn = resampled(name, [dense, *seeds])
            found.append(drawn[1:].mean(0) - drawn[0])
    return found


def resampled(name: str, arrays: Sequence[Array]) -> Array:
    """Recompute a metric of several arrays over the same resamples of their samples: (arrays, resamples).

    Where few distinct rows occur (0/1 scores), multinomial counts over them stand for the samples.
    """
    n = len(arrays[0])
    columns, formula = METRICS[name]
    chosen, population = _few(arrays) or (np.arange(n), np.ones(n))
    blocks = [columns(np.asarray(scores, float))[chosen] for scores in arrays]
    edges = np.cumsum([0, *(block.shape[1] for block in blocks)])
    table = np.concatenate(blocks, 1)
    found, correlate = [], _Spearman(blocks, n) if name == "spearman" else None
    for counts in _counts(population, np.random.default_rng([n, RESAMPLES])):
        if correlate is not None:
            found.append(correlate(counts))
        else:
            sums = counts @ table
            found.append(np.stack([formula(sums[:, a:b]) for a, b in itertools.pairwise(edges)]))
    return np.concatenate(found, 1)


def _few(arrays: Sequence[Array]) -> tuple[NDArray[np.intp], Array] | None:
    """Return the first place of each distinct row, in order, and how often it occurs; None where many are.

    In order of appearance, so that the draws do not depend on which of two arrays comes first.
    """
    n = len(arrays[0])
    rows = np.concatenate([np.asarray(scores, float).reshape(n, -1) for scores in arrays], 1)
    _, first, size = np.unique(rows, axis=0, return_index=True, return_counts=True)
    order = np.argsort(first)
    return (first[order], size[order].astype(float)) if len(first) * 12 <= n else None
