"""Syntactic heads: how often a word's largest weight is at the word it depends on, or one that depends on it.

Source: Voita et al. 2019, section 5.2, https://arxiv.org/abs/1905.09418, at words as Clark et al. 2019 have
them, https://arxiv.org/abs/1906.04341.
"""

from __future__ import annotations

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
INDEX = ("kind", "layer", "head", "relation", "direction")

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
        kind: min((-count, abs(offset), offset) for offset, count in offsets.items())[2]
        for kind, offsets in counts.items()
    }


@dataclass
class Found:
    """What one relation in one direction came to at one site: sums over arcs, and over sentences.

    `hits` (heads,) are the arcs that each head gets right, `by_offset` those of the fixed offset. `gain` and
    `square` (heads,) sum over sentences the arcs of the one less those of the other, and the square of that.
    """

    hits: Any = 0
    gain: Any = 0
    square: Any = 0
    arcs: int = 0
    by_offset: int = 0


@dataclass
class Relations:
    """Arcs that each head gets right on one file, beside a fixed offset."""

    found: dict[tuple[Kind, Key], Found] = field(default_factory=lambda: defaultdict(Found))

    def add(self, key: Key, weights: Tensor, sentence: Sequence[Arc], offsets: Mapping[Kind, int]) -> None:
        """Take in a sentence's attention between words (heads, words, words) of the site (kind, layer)."""
        points = largest(weights)[0].cpu().numpy()  # (heads, words)
        kinds: dict[Kind, list[Arc]] = defaultdict(list)
        for arc in sentence:
            kinds[arc.kind].append(arc)
        for kind, own in kinds.items():
            right = sum((points[:, arc.query] == arc.target).astype(int) for arc in own)
            fixed = sum(arc.target - arc.query == offsets.get(kind) for arc in own)
            at = self.found[kind, key]
            at.arcs, at.by_offset = at.arcs + len(own), at.by_offset + fixed
            at.hits, at.gain, at.square = (
                at.hits + right,
                at.gain + right - fixed,
                at.square + (right - fixed) ** 2,
            )


def compared(chosen: Relations, reported: Relations, offsets: Mapping[Kind, int]) -> DataFrame:
    """Compare every head with the fixed offset, on the file that chooses and on the one that reports.

    One row a head, relation and direction with FEWEST arcs in both files. `chosen` and `share` are the shares
    of arcs whose query has its largest weight at the target, on either file, `offset` the fixed offset chosen
    on the first and `by_offset` its share on the second, `points` = share - by_offset. z = sum_s d_s / (sum_s
    d_s^2)^(1/2) over sentences s, d_s the arcs that the head gets right less those of the offset: McNemar's
    statistic with a sentence for a pair, as its arcs are not independent. `p` is one-sided, `holm` corrected
    over all rows. `is_chosen` is 1 for the head of the largest `chosen` share, `beats` 1 for each that is
    POINTS above the offset with holm at most LEVEL.
    """
    import numpy as np
    import pandas as pd
    from scipy.stats import norm

    frames = []
    for (kind, key), found in sorted(reported.found.items()):
        first = chosen.found.get((kind, key), Found())
        if min(first.arcs, found.arcs) < FEWEST:
            continue
        spread = np.sqrt(found.square)
        z = np.divide(found.gain, spread, out=np.full(len(spread), -np.inf), where=spread > 0)
        share, by_offset = found.hits / found.arcs, found.by_offset / found.arcs
        frames.append(
            pd.DataFrame(
                {
                    "kind": key[0], "layer": key[1], "head": range(len(share)), "relation": kind[0],
                    "direction": kind[1], "chosen": first.hits / first.arcs, "share": share,
                    "offset": offsets[kind], "by_offset": by_offset, "points": share - by_offset,
                    "arcs": found.arcs, "p": norm.sf(z),
                }
            )
        )  # fmt: skip
    columns = ["chosen", "share", "offset", "by_offset", "points", "arcs", "p"]
    table = pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=[*INDEX, *columns])
    best = table.groupby(["relation", "direction"])["chosen"].transform("idxmax")
    table["holm"] = holm(table["p"].to_numpy(dtype=float))
    table["is_chosen"] = (best == table.index).astype(int)
    table["beats"] = ((table["points"] >= POINTS - 1e-12) & (table["holm"] <= LEVEL)).astype(int)
    return table.set_index(list(INDEX))


def holm(p: np.ndarray) -> np.ndarray:
    """Correct p values for being many: the i-th smallest of m times m - i, never decreasing, at most 1."""
    import numpy as np

    order = np.argsort(p, kind="stable")
    corrected = np.empty(len(p))
    corrected[order] = np.minimum(1, np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)))
    return corrected
