"""Maps of a score by how deep in a text lies what is asked for, and how long the text is. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from attnbench.methods.controls import CONTROLS, DRAWN
from attnbench.methods.families import name_without_seed
from attnbench.records.inert import spreadsheet
from attnbench.records.schema import PLACED

if TYPE_CHECKING:
    from attnbench.records.record import Record

DEPTH, LENGTH = PLACED
DENSE, UNIFORM = CONTROLS


@dataclass(frozen=True)
class DepthMap:
    """The mean score of one method: a row a depth, a column a length, None where nothing was asked."""

    model: str
    task: str
    method: str
    metric: str
    depths: tuple[float, ...]
    lengths: tuple[int, ...]
    scores: tuple[tuple[float | None, ...], ...]
    samples: tuple[tuple[int, ...], ...]

    def lines(self) -> Iterator[list[object]]:
        """Yield model, task, metric, method, length, depth, mean score and number of samples."""
        names = [spreadsheet(name) for name in (self.model, self.task, self.metric, self.method)]
        for depth, scores, counts in zip(self.depths, self.scores, self.samples, strict=True):
            for length, score, count in zip(self.lengths, scores, counts, strict=True):
                if score is not None:
                    yield [*names, length, f"{depth:.6g}", f"{score:.6g}", count]


def maps(records: Sequence[Record]) -> list[DepthMap]:
    """Return a map for each model, task and method whose records tell the samples' places; dense comes first.

    Tasks whose names differ by their length alone share a map; of several seeds it is the first one's.
    Uniform attention and draws at random have none.
    """
    found: dict[tuple[str, str, str], list[Record]] = {}
    seen: set[tuple[str, str, str]] = set()
    for item in sorted(records, key=lambda item: item.cell["method"] != DENSE):
        model, task, method = item.cell.values()
        whole = (model, task, name_without_seed(method))
        placed = item.status == "measured" and all(name in item.scores for name in PLACED)
        if not placed or whole in seen or method == UNIFORM or DRAWN in method.split(":"):
            continue
        seen.add(whole)
        length = int(item.scores[LENGTH][0])
        found.setdefault((model, re.sub(rf"_{length}(?=@|$)", "", task), method), []).append(item)
    made = [_map(*key, items) for key, items in found.items()]
    return [each for each in made if each is not None]


def _map(model: str, task: str, method: str, items: Sequence[Record]) -> DepthMap | None:
    metric = next((name for name, each in items[0].metrics.items() if _is_mean(each)), None)
    items = [item for item in items if metric in item.scores]
    if metric is None or not items:
        return None
    depth, length, score = (
        np.concatenate([item.scores[name] for item in items]) for name in (DEPTH, LENGTH, metric)
    )
    depths, lengths = np.unique(depth), np.unique(length)
    chosen = [[score[(depth == d) & (length == n)] for n in lengths] for d in depths]
    return DepthMap(
        model, task, method, metric, tuple(map(float, depths)), tuple(map(int, lengths)),
        tuple(tuple(float(part.mean()) if len(part) else None for part in row) for row in chosen),
        tuple(tuple(map(len, row)) for row in chosen),
    )  # fmt: skip


def _is_mean(metric: dict[str, object]) -> bool:
    return metric.get("aggregate", "mean") == "mean" and bool(metric.get("higher_is_better"))
