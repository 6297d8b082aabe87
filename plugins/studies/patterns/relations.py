"""Syntactic heads: how often a word's largest weight is at the word it depends on, or one that depends on it.

Source: Voita et al. 2019, section 5.2, https://arxiv.org/abs/1905.09418, at words as Clark et al. 2019 have
them, https://arxiv.org/abs/1906.04341.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from attnbench_plugins.studies.patterns.largest import largest

if TYPE_CHECKING:
    import numpy as np
    from pandas import DataFrame
    from torch import Tensor

    from attnbench_plugins.studies.patterns.conllu import Word

Key = tuple[str, int]  # kind, layer
RELATIONS = ("nsubj", "obj", "amod", "advmod")
DIRECTIONS = ("dependent-head", "head-dependent")
FEWEST = 100  # arcs: a share of fewer is not reported
POINTS = 0.1  # above the best fixed offset: a syntactic head
LEVEL = 0.05

Kind = tuple[str, str]  # relation, direction


class Arc(NamedTuple):
    """One relation seen from one of its words: the words' numbers in the sentence, from 0."""

    kind: Kind
    query: int
    target: int


def arcs(words: Sequence[Word], tokens: Sequence[tuple[int, ...]], causal: bool) -> list[Arc]:
    """List a sentence's arcs in both directions, subtypes folded (nsubj:pass is nsubj).

    Left out are words without tokens of their own, and for a `causal` model what comes after the query.
    """
    found = []
    for number, word in enumerate(words):
        relation, head = word.relation.partition(":")[0], word.head - 1
        if relation not in RELATIONS or head < 0 or not tokens[number] or not tokens[head]:
            continue
        for direction, query, target in zip(DIRECTIONS, (number, head), (head, number), strict=True):
            if not causal or target < query:
                found.append(Arc((relation, direction), query, target))
    return found


def best_offsets(found: Iterable[Sequence[Arc]]) -> dict[Kind, int]:
    """Return the most frequent target - query of every relation and direction; of equals the nearest."""
    counts: dict[Kind, Counter[int]] = defaultdict(Counter)
    for sentence in found:
        for arc in sentence:
            counts[arc.kind][arc.target - arc.query] += 1
    return {
        kind: min(offsets, key=lambda d, of=offsets: (-of[d], abs(d), d)) for kind, offsets in counts.items()
    }


@dataclass
class Found:
    """What one relation in one direction came to on one file: sums over arcs, and over sentences."""

    arcs: int = 0
    by_offset: int = 0  # arcs that the fixed offset gets right
    hits: dict[Key, Any] = field(default_factory=dict)  # (heads,) arcs that each head gets right
    gain: dict[Key, Any] = field(default_factory=dict)  # (heads,) sum over sentences of head - offset
    square: dict[Key, Any] = field(default_factory=dict)  # (heads,) and of its square


@dataclass
class Relations:
    """Arcs that each head gets right on one file, beside the fixed `offsets`."""

    offsets: Mapping[Kind, int]
    found: dict[Kind, Found] = field(default_factory=lambda: defaultdict(Found))

    def expect(self, sentence: Sequence[Arc]) -> None:
        """Count a sentence's arcs: once, whatever number of sites is shown."""
        for arc in sentence:
            at = self.found[arc.kind]
            at.arcs += 1
            at.by_offset += arc.target - arc.query == self.offsets.get(arc.kind)

    def add(self, key: Key, weights: Tensor, sentence: Sequence[Arc]) -> None:
        """Take in a sentence's attention between words (heads, words, words) of the site (kind, layer)."""
        import numpy as np

        points = largest(weights).cpu().numpy()  # (heads, words)
        gains: dict[Kind, Any] = {}
        for arc in sentence:
            at, right = self.found[arc.kind], points[:, arc.query] == arc.target
            at.hits[key] = at.hits.get(key, 0) + right.astype(int)
            fixed = int(arc.target - arc.query == self.offsets.get(arc.kind))
            gains[arc.kind] = gains.get(arc.kind, 0) + right.astype(int) - fixed
        for kind, gain in gains.items():
            at = self.found[kind]
            at.gain[key] = at.gain.get(key, np.zeros(len(gain))) + gain
            at.square[key] = at.square.get(key, np.zeros(len(gain))) + gain**2

    def share(self, kind: Kind, key: Key, head: int) -> float:
        """Return the share of arcs that a head gets right."""
        return float(self.found[kind].hits[key][head]) / self.found[kind].arcs


def table(chosen: Relations, reported: Relations) -> DataFrame:
    """Compare every head with the fixed offset, on the file that chooses and on the one that reports.

    One row a head, relation and direction with FEWEST arcs in both files. `chosen` and `share` are the shares
    of arcs whose query has its largest weight at the target, on either file, `offset` the fixed offset chosen
    on the first and `by_offset` its share on the second, `points` = share - by_offset. z = sum_s d_s / (sum_s
    d_s^2)^(1/2) over sentences s, d_s the arcs that the head gets right less those of the offset: McNemar's
    statistic with a sentence for a pair, as its arcs are not independent. `p` is one-sided, `holm` corrected
    over all rows. `is_chosen` is 1 for the head of the largest `chosen` share, `beats` 1 for each
    that is POINTS above the offset with holm at most LEVEL.
    """
    import pandas as pd
    from scipy.stats import norm

    rows: list[dict[str, Any]] = []
    for kind, found in sorted(reported.found.items()):
        first = chosen.found.get(kind)
        if first is None or min(first.arcs, found.arcs) < FEWEST:
            continue
        heads = [(key, head) for key in sorted(found.hits) for head in range(len(found.hits[key]))]
        best = max(heads, key=lambda at, of=kind: chosen.share(of, *at))
        for key, head in heads:
            square = float(found.square[key][head])
            z = float(found.gain[key][head]) / math.sqrt(square) if square else 0.0
            by_offset, share = found.by_offset / found.arcs, reported.share(kind, key, head)
            rows.append(
                dict(
                    zip(("kind", "layer", "head", "relation", "direction"), (*key, head, *kind), strict=True)
                )
                | {
                    "chosen": chosen.share(kind, key, head),
                    "share": share,
                    "offset": chosen.offsets[kind],
                    "by_offset": by_offset,
                    "points": share - by_offset,
                    "arcs": found.arcs,
                    "p": float(norm.sf(z)) if square else 1.0,
                    "is_chosen": int((key, head) == best),
                }
            )
    names = ["kind", "layer", "head", "relation", "direction"]
    columns = ["chosen", "share", "offset", "by_offset", "points", "arcs", "p", "holm", "is_chosen", "beats"]
    frame = pd.DataFrame(rows, columns=[*names, *columns]).set_index(names)
    frame["holm"] = holm(frame["p"].to_numpy(dtype=float))
    above = frame["points"].astype(float) >= POINTS - 1e-12
    frame["beats"] = (above & (frame["holm"] <= LEVEL)).astype(int)
    return frame


def holm(p: np.ndarray) -> np.ndarray:
    """Correct p values for being many: the i-th smallest of m times m - i, never decreasing, at most 1."""
    import numpy as np

    order = np.argsort(p, kind="stable")
    corrected = np.empty(len(p))
    corrected[order] = np.minimum(1, np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)))
    return corrected
