"""Simulate how often the 95 % interval of a paired difference holds the truth, and what a comparison takes.

python benchmarks/coverage.py                 # the table: 2,000 simulated comparisons a line
python benchmarks/coverage.py --time          # seconds for 10,000 resamples of 10,000 samples

A population is drawn once, very large, and gives the truth; every comparison draws its samples from the same
process. "falsely ≈" is how often a method that is worse by just the margin is called within it at 5 %, which
an honest test does at most one time in twenty. Nothing depends on how busy the machine is but --time.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from attnbench.statistics import aggregates, inference, resampling

Array = NDArray[np.float64]
Pair = tuple[Array, Array]
POPULATION = 1_000_000
Z99 = 2.576


def accuracy(rng: np.random.Generator, n: int, flips: float) -> Pair:
    """Draw 0/1 scores, nine of ten right; `flips` of them turn, four of five of those to the worse."""
    dense = rng.random(n) < 0.9
    lost, won = flips * 0.8 / 0.9, flips * 0.2 / 0.1
    turned = rng.random(n) < np.where(dense, lost, won)
    return dense.astype(float), (dense ^ turned).astype(float)


def f1(rng: np.random.Generator, n: int, flips: float) -> Pair:
    """Draw tp, fp, fn, tn of two classifiers, one sample of three positive; `flips` of the answers turn."""
    labels = rng.random(n) < 1 / 3
    first = labels ^ (rng.random(n) < 0.12)
    return _counts(labels, first), _counts(labels, first ^ (rng.random(n) < flips))


def _counts(labels: NDArray[np.bool_], said: NDArray[np.bool_]) -> Array:
    return np.stack([labels & said, ~labels & said, labels & ~said, ~labels & ~said], 1).astype(float)


def bleu(rng: np.random.Generator, n: int, flips: float) -> Pair:
    """Draw n-gram counts of translations; `flips` of the sentences are translated anew, a little worse."""
    reference = rng.integers(6, 40, n)
    quality = rng.beta(6, 3, n)
    dense = _ngrams(rng, reference, quality)
    anew = _ngrams(rng, reference, 0.95 * quality)
    return dense, np.where((rng.random(n) < flips)[:, None], anew, dense)


def _ngrams(rng: np.random.Generator, reference: NDArray[np.int64], quality: Array) -> Array:
    length = np.maximum(reference + rng.integers(-2, 3, len(reference)), 4)
    totals = np.stack([length - order for order in range(4)], 1)
    left, matches = totals[:, 0], []
    for order in range(4):  # a matching n-gram begins with a matching one a word shorter
        left = rng.binomial(np.minimum(left, totals[:, order]), quality if order == 0 else 0.35 + quality / 2)
        matches.append(left)
    return np.column_stack([length, reference, np.stack(matches, 1), totals]).astype(float)


def broken(rng: np.random.Generator, n: int, flips: float) -> Pair:
    """Draw n-gram counts of translations; `flips` of the sentences lose nine of ten of their words."""
    reference = rng.integers(6, 40, n)
    quality = rng.beta(6, 3, n)
    dense = _ngrams(rng, reference, quality)
    return dense, np.where((rng.random(n) < flips)[:, None], _ngrams(rng, reference, 0.1 * quality), dense)


def running_on(rng: np.random.Generator, n: int, flips: float) -> Pair:
    """Draw n-gram counts of translations; `flips` of the sentences do not end before 128 words."""
    reference = rng.integers(6, 40, n)
    dense = _ngrams(rng, reference, rng.beta(6, 3, n))
    endless = dense.copy()
    endless[:, 0], endless[:, 6:10] = 128, 128 - np.arange(4)
    return dense, np.where((rng.random(n) < flips)[:, None], endless, dense)


def uneven(rng: np.random.Generator, n: int, flips: float) -> Pair:
    """Draw n-gram counts of translations; of `flips` of them half are broken, half a little worse."""
    reference = rng.integers(6, 40, n)
    quality = rng.beta(6, 3, n)
    dense = _ngrams(rng, reference, quality)
    anew = _ngrams(rng, reference, np.where(rng.random(n) < 0.5, 0.1, 0.9) * quality)
    return dense, np.where((rng.random(n) < flips)[:, None], anew, dense)


def real(rng: np.random.Generator, n: int, flips: float) -> Pair:
    """Draw scores around 50 that know no bounds; `flips` of them lose 10, more or less."""
    dense = rng.normal(50, 10, n)
    return dense, dense - rng.gamma(2, 5, n) * (rng.random(n) < flips)


def correlation(rng: np.random.Generator, n: int, flips: float) -> Pair:
    """Draw scores of two regressions against labels of six values; `flips` of the second are others."""
    labels = rng.integers(0, 6, n).astype(float)
    first = labels + rng.normal(0, 1.2, n)
    anew = labels + rng.normal(0, 1.6, n)
    second = np.where(rng.random(n) < flips, anew, first)
    return np.stack([first, labels], 1), np.stack([second, labels], 1)


def perplexity(rng: np.random.Generator, n: int, flips: float) -> Pair:
    """Draw log-likelihoods and lengths of texts; `flips` of them become a little less likely."""
    length = rng.integers(5, 40, n).astype(float)
    dense = -length * rng.gamma(9, 1 / 3, n)
    other = dense - length * rng.normal(0.05, 0.1, n) * (rng.random(n) < flips)
    return np.stack([dense, length], 1), np.stack([other, length], 1)


def unlikely(rng: np.random.Generator, n: int, flips: float) -> Pair:
    """Draw log-likelihoods and lengths of texts; `flips` of them become far less likely, 1.5 nats a token."""
    length = rng.integers(5, 40, n).astype(float)
    dense = -length * rng.gamma(9, 1 / 3, n)
    return np.stack([dense, length], 1), np.stack([dense - 1.5 * length * (rng.random(n) < flips), length], 1)


def tailed(rng: np.random.Generator, n: int, flips: float) -> Pair:
    """Draw log-likelihoods and lengths of texts; `flips` lose an exponential number of nats a token."""
    length = rng.integers(5, 40, n).astype(float)
    dense = -length * rng.gamma(9, 1 / 3, n)
    other = dense - length * rng.exponential(1, n) * (rng.random(n) < flips)
    return np.stack([dense, length], 1), np.stack([other, length], 1)


FEW = ((100, 0.01), (100, 0.02), (100, 0.04), (200, 0.01), (872, 0.005))
CASES: list[tuple[str, Callable[[np.random.Generator, int, float], Pair], int, float]] = [
    *(("bleu, broken", broken, *few) for few in FEW),
    *(("bleu, running on", running_on, *few) for few in FEW),
    *(("bleu, uneven", uneven, *few) for few in FEW),
    *(("bleu", bleu, *few) for few in FEW),
    *(("perplexity, unlikely", unlikely, *few) for few in FEW),
    *(("perplexity, tailed", tailed, *few) for few in FEW),
    *(("perplexity", perplexity, *few) for few in FEW),
    *(("mean, real", real, *few) for few in FEW),
    *((name, f1, 100, flips) for name in ("f1", "mcc") for flips in (0.01, 0.04)),
    *((name, correlation, 100, flips) for name in ("pearson", "spearman") for flips in (0.01, 0.04)),
    *(("mean", accuracy, n, flips) for n in (100, 872) for flips in (0.005, 0.01, 0.02, 0.04)),
    *(("f1", f1, n, flips) for n in (408, 1821) for flips in (0.01, 0.02, 0.04)),
    *(("bleu", bleu, n, flips) for n in (200, 1000) for flips in (0.05, 0.2, 1.0)),
    *(("mcc", f1, n, flips) for n in (408, 1821) for flips in (0.01, 0.04)),
    *(("pearson", correlation, n, 0.2) for n in (200, 1500)),
    *(("spearman", correlation, n, 0.2) for n in (200, 1500)),
    *(("perplexity", perplexity, n, flips) for n in (100, 400) for flips in (0.2, 1.0)),
]  # fmt: skip


def coverage(repeats: int, resamples: int, only: str) -> Iterator[str]:
    """Yield a line a case: how often the truth is in the interval, below, above, and taken for smaller."""
    for module in (resampling, inference):
        module.RESAMPLES = resamples  # type: ignore[attr-defined]
    for title, draw, n, flips in CASES:
        name = title.partition(",")[0]
        if only not in ("", name, title):
            continue
        rng = np.random.default_rng([n, int(1000 * flips)])
        first, second = draw(rng, POPULATION, flips)
        # ranks of a small sample estimate a slightly other number than those of a large one
        truth = aggregates.working(name, second) - aggregates.working(name, first)
        low = high = called = 0
        for _ in range(repeats):
            dense, method = draw(rng, n, flips)
            found = inference.paired(name, dense, [[method]], abs(truth), name != "perplexity")[0]
            low += truth < found.low
            high += truth > found.high
            called += found.p_margin <= 0.05
        share = 1 - (low + high) / repeats
        error = Z99 * np.sqrt(share * (1 - share) / repeats)
        yield (
            f"| {title} | {n:,} | {flips:.1%} | {truth:+.4f} | {share:.1%} ± {error:.1%} | "
            f"{low / repeats:.1%} | {high / repeats:.1%} | {called / repeats:.1%} |"
        )


def seconds() -> Iterator[str]:
    """Yield a line a metric: CPU seconds of one comparison of 10,000 samples with 10,000 resamples."""
    n, rng = 10_000, np.random.default_rng(0)
    floats = (rng.random(n), rng.random(n))
    for name, pair in (
        ("mean, 0/1", accuracy(rng, n, 0.02)), ("mean, any", floats), ("f1", f1(rng, n, 0.02)),
        ("bleu", bleu(rng, n, 0.2)), ("pearson", correlation(rng, n, 0.2)),
        ("spearman", correlation(rng, n, 0.2)), ("perplexity", perplexity(rng, n, 0.2)),
    ):  # fmt: skip
        started = time.process_time()
        inference.paired(name.partition(",")[0], pair[0], [[pair[1]]], 0.01)
        yield f"| {name} | {time.process_time() - started:.2f} |"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=2000, help="simulated comparisons a line (2000)")
    parser.add_argument("--resamples", type=int, default=2000, help="of each bootstrap (2000)")
    parser.add_argument("--only", default="", help="one metric, or one line's")
    parser.add_argument("--time", action="store_true", help="measure seconds instead")
    options = parser.parse_args()
    if options.time:
        print("| metric | CPU seconds |\n|---|---|")
    else:
        print(
            "| metric | samples | differ | truth | covered | below | above | falsely ≈ |\n" + "|---" * 8 + "|"
        )
    for line in seconds() if options.time else coverage(options.repeats, options.resamples, options.only):
        print(line, flush=True)


if __name__ == "__main__":
    main()
