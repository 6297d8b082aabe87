"""Times of two things in turns, so that a machine's noise is of both: rounds, medians, intervals."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

ROUNDS = (7, 101)  # of latency: at least, at most
SECONDS = 3.0  # of latency measured, once the least rounds are done
WARM = 2
NOISY = 0.25  # an interval of the ratio that is wider, as a share of it, tells too little to be printed


def in_turns(one: Callable[[], float], other: Callable[[], float]) -> tuple[list[float], list[float]]:
    """Call two that tell their seconds, now this one first and now that, and return them by round, warm."""
    found: tuple[list[float], list[float]] = ([], [])
    started = time.perf_counter()
    for number in range(WARM + ROUNDS[1]):
        if len(found[0]) >= ROUNDS[0] and time.perf_counter() - started > SECONDS:
            break
        order = ((0, one), (1, other)) if number % 2 else ((1, other), (0, one))
        spent = {place: call() for place, call in order}
        if number >= WARM:
            for place, seconds in spent.items():
                found[place].append(seconds)
    return found


def compared(own: Sequence[float], dense: Sequence[float], noisy: float = NOISY) -> dict[str, Any]:
    """Return the median ratio of rounds with its 95 % interval, what dense took, rounds and threads.

    Where noise swamps the ratio there is none, and `why` says so.
    """
    ratios = [mine / other for mine, other in zip(own, dense, strict=True)]
    (low, high), ratio = median_interval(ratios), statistics.median(ratios)
    told = {
        "seconds": statistics.median(dense), "rounds": len(ratios), "threads": torch.get_num_threads(),
    }  # fmt: skip
    if high - low > noisy * ratio:
        return told | {"why": f"noise: its ratio to dense lies anywhere from {low:.2f} to {high:.2f}"}
    return {"ratio": ratio, "low": low, "high": high, **told}


def median_interval(values: Sequence[float], level: float = 0.95) -> tuple[float, float]:
    """Return the order statistics that hold the median at least so often, whatever the distribution is."""
    from scipy.stats import binom

    ordered = sorted(values)
    below = max(int(binom.ppf((1 - level) / 2, len(ordered), 0.5)), 1)  # P(fewer than this many are below)
    return ordered[below - 1], ordered[-below]
