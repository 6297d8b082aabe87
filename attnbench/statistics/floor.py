"""The numerical floor: how far a score moves in other batches by other threads, and of how many samples."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from attnbench.statistics.aggregates import Array

if TYPE_CHECKING:
    from attnbench.records.record import Record

RELATIVE, ABSOLUTE = 1e-3, 1e-6  # within which a sample's score is the same


class Moved(NamedTuple):
    """By how much a metric moved, on the scale that is compared, and the scores of how many samples."""

    by: float
    samples: int
    of: int


def differing(now: Array, before: Array) -> int:
    """Count the samples whose scores are not the same but for rounding."""
    return int((~np.isclose(now, before, RELATIVE, ABSOLUTE)).reshape(len(before), -1).any(1).sum())


def of(item: Record, metric: str, scale: str) -> Moved | None:
    """Return how far a record's metric moved, None where it was measured once or is not defined."""
    again = item.measured.get("floor", {}).get("metrics", {}).get(metric)
    before = item.metrics.get(metric, {}).get("value")
    if again is None or again["value"] is None or before is None:
        return None
    pair = (again["value"], before)
    if scale == "log":
        if min(pair) <= 0:
            return None
        pair = (math.log(pair[0]), math.log(pair[1]))
    return Moved(abs(pair[0] - pair[1]), again["moved"], item.measured["floor"]["samples"])


def largest(records: Iterable[Record], metric: str, scale: str) -> float | None:
    """Return the most that a metric moved in any of these records, None where none was measured twice."""
    found = [each.by for item in records if (each := of(item, metric, scale)) is not None]
    return max(found, default=None)


def share(records: Iterable[Record], metric: str) -> float:
    """Return the largest share of samples that moved by a metric in any of these records, 0 without any."""
    found = [each for item in records if (each := of(item, metric, "raw")) is not None]
    return max((each.samples / each.of for each in found if each.of), default=0.0)
