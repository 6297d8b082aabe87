"""How faithful a method's answers are to dense's: arrays of a record as metrics, with their intervals."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy import special

from attnbench.records.schema import FIDELITY
from attnbench.statistics import inference
from attnbench.statistics.aggregates import Array

if TYPE_CHECKING:
    from attnbench.records.record import Record

FLIPS, CHANGED, KL = NAMES = FIDELITY
SHARES = (FLIPS, CHANGED)


class Interval(NamedTuple):
    """A mean over samples and its 95 % interval."""

    value: float
    low: float
    high: float


def shown(name: str, found: Interval, ends: bool = True) -> str:
    """Write a share in percent, a divergence in nats, with or without the ends of its interval."""
    if name in SHARES:
        value, low, high = (f"{100 * each:.1f}" for each in found)
        value += "%"
    else:
        value, low, high = (f"{each:.2g}" for each in found)
    return f"{value} [{low}, {high}]" if ends else value


def array_name(name: str) -> str:
    """Return a record's name of the array, which no metric of a task has."""
    return f"fidelity {name}"


def interval(seeds: Sequence[Array]) -> Interval:
    """Return the mean of arrays (samples,), one a seed, and its interval.

    Of one seed's 0s and 1s it is Wilson's (1927), (x + z²/2 ± z sqrt(x (n - x) / n + z²/4)) / (n + z²); else
    that of the paired difference from an array of zeros, see `inference`. No end is below 0.
    """
    arrays = [np.asarray(array, float) for array in seeds]
    n = len(arrays[0])
    if len(arrays) == 1 and inference.binary(arrays):
        x, z = float(arrays[0].sum()), -float(special.ndtri(0.025))
        middle, reach = x + z * z / 2, z * np.sqrt(x * (n - x) / n + z * z / 4)
        low, high = (middle - reach) / (n + z * z), (middle + reach) / (n + z * z)
        return Interval(x / n, max(float(low), 0.0) if x else 0.0, float(high) if x < n else 1.0)
    found = inference.paired("mean", np.zeros(n), [arrays], 0.0, higher_is_better=False)[0]
    return Interval(found.estimate, max(found.low, 0.0), max(found.high, 0.0))


def of(members: Sequence[Record], name: str) -> Interval | None:
    """Return what a method's records, one a seed, say; None where it is not defined or was not measured."""
    if len(members) == 1:
        said = (members[0].measured.get("fidelity") or {}).get(name)
        return Interval(*(float(said[field]) for field in Interval._fields)) if said else None
    arrays = [item.scores.get(array_name(name)) for item in members]
    return interval([array for array in arrays if array is not None]) if _all(arrays) else None


def mean(item: Record, name: str) -> float | None:
    """Return what a record's samples say, None where it has none of them."""
    array = item.scores.get(array_name(name))
    return None if array is None or not len(array) else float(np.mean(array))


def _all(arrays: Sequence[Array | None]) -> bool:
    return bool(arrays) and all(array is not None and len(array) for array in arrays)


def as_metric(members: Sequence[Record], name: str) -> list[Record]:
    """Return records that have this as their only metric, lower the better; none where one has it not."""
    arrays = [item.scores.get(array_name(name)) for item in members]
    if not _all(arrays):
        return []
    return [
        dataclasses.replace(
            item,
            metrics={name: {"value": float(np.mean(array)), "aggregate": "mean", "higher_is_better": False}},
            measured={},
            scores={name: array, **{key: item.scores[key] for key in ("doc_id",) if key in item.scores}},
        )
        for item, array in zip(members, arrays, strict=True)
        if array is not None
    ]
