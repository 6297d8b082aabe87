"""Attention maps as bytes of a log scale, deflated, within a number of bytes that a page may have."""

from __future__ import annotations

import base64
import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

Place = tuple[str, int]  # (kind, layer)
Head = tuple[str, int, int]
Maps = Mapping[
    tuple[int, str], Mapping[Place, np.ndarray]
]  # (text, method) -> place -> (heads, queries, keys)

LOW = -8.0  # log10 of the least weight that is told from smaller ones, as in the studies' histograms
STEPS = 252  # from level 1, which is LOW, to level 253
LEFT, HIDDEN = 254, 255  # left out, and not visible
ENTRIES = (32, 16, 8)  # of a row, the largest ones, where all are too many
ROUNDING = 1e-2  # by which half precision may exceed 1


@dataclass(frozen=True)
class Packed:
    """Maps as a page holds them: base64 of deflated bytes, and what had to be left out for its size.

    `entries` is how many of the largest weights a row has at least, None for all; `heads` whose maps there
    are, None for all.
    """

    high: float
    blobs: dict[tuple[int, str], str]
    entries: int | None
    heads: tuple[Head, ...] | None


def top(maps: Maps) -> float:
    """Return log10 of the largest weight that a level stands for: 0, or more where a method exceeds 1."""
    most = max(
        (float(np.nanmax(array, initial=0)) for each in maps.values() for array in each.values()), default=1
    )
    return math.log10(most) if most > 1 + ROUNDING else 0.0


def levels(weights: np.ndarray, high: float = 0.0) -> np.ndarray:
    """Return weights as bytes: 0 for 0, 255 for NaN, else 1 + the nearest of 252 steps of log10.

    A step is (high + 8) / 252 decades: a weight comes back within half a step, 3.7 % where `high` is 0.
    What is below 1e-8 comes back as 1e-8, what is above 10 ** high as that. Raises ValueError for negative
    weights.
    """
    if (weights < 0).any():
        raise ValueError("negative weights have no place on a log scale")
    with np.errstate(divide="ignore", invalid="ignore"):
        steps = np.rint((np.log10(weights.astype(np.float64)) - LOW) / (high - LOW) * STEPS)
        found = 1 + np.clip(steps, 0, STEPS)
    found[weights == 0] = 0
    found[np.isnan(weights)] = HIDDEN
    return found.astype(np.uint8)


def weights(packed: np.ndarray, high: float = 0.0) -> np.ndarray:
    """Return the weights that levels stand for: NaN where hidden, -1 where left out."""
    table = 10 ** (LOW + (high - LOW) * (np.arange(256.0) - 1) / STEPS)
    table[0], table[LEFT], table[HIDDEN] = 0, -1, np.nan
    found: np.ndarray = table[packed]
    return found


def largest(packed: np.ndarray, entries: int) -> np.ndarray:
    """Leave out of each row what is less than its `entries`-th largest weight; zeros and hidden ones stay."""
    if packed.shape[-1] <= entries:
        return packed
    shown = np.where(packed == HIDDEN, 0, packed)
    bar = np.partition(shown, -entries, axis=-1)[..., -entries, None]
    return np.where((shown > 0) & (shown < bar), np.uint8(LEFT), packed)


def pack(maps: Maps, most: int, order: Sequence[Head] = ()) -> Packed:
    """Pack maps into at most `most` characters: all, or the largest weights of each row, or fewer heads too.

    Of fewer heads those come that are first in `order`, none where one is too many. Raises
    ValueError for negative weights.
    """
    high = top(maps)
    ready = {key: {place: levels(array, high) for place, array in each.items()} for key, each in maps.items()}
    for entries, heads in _attempts(ready, order):
        blobs: dict[tuple[int, str], str] = {}
        room = most
        for key, each in ready.items():
            blobs[key] = _blob(each, entries, heads)
            room -= len(blobs[key])
            if room < 0:
                break
        else:
            return Packed(high, blobs, entries, heads)
    return Packed(high, {}, ENTRIES[-1], ())


def _attempts(
    ready: Mapping[tuple[int, str], Mapping[Place, np.ndarray]], order: Sequence[Head]
) -> Iterator[tuple[int | None, tuple[Head, ...] | None]]:
    yield None, None
    for entries in ENTRIES:
        yield entries, None
    there = [
        (*place, head)
        for place, array in next(iter(ready.values()), {}).items()
        for head in range(len(array))
    ]
    ranked = [*dict.fromkeys([*(head for head in order if head in set(there)), *there])]
    count = len(ranked) // 2
    while count > 0:
        yield ENTRIES[-1], tuple(ranked[:count])
        count //= 2


def _blob(each: Mapping[Place, np.ndarray], entries: int | None, heads: tuple[Head, ...] | None) -> str:
    """Return maps in the order of their places and heads, row by row, deflated, in base64."""
    parts = []
    for place, array in each.items():
        kept = array if heads is None else array[[k for k in range(len(array)) if (*place, k) in heads]]
        parts.append((kept if entries is None else largest(kept, entries)).tobytes())
    return base64.b64encode(zlib.compress(b"".join(parts))).decode("ascii")
