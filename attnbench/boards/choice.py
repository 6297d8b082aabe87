"""How far a sweep can go: the largest amount within the margin, and whether other samples agree. Pure.

Step by step as the exercise of Dive into Deep Learning 11.5 asks: a threshold is chosen, what it saves is
told, and cross-validation over splits of the samples says how the choice fares on samples it has not seen.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from attnbench.methods.controls import CONTROLS
from attnbench.methods.families import amounts, family, name_without_seed
from attnbench.statistics import inference, same_samples
from attnbench.statistics.aggregates import Array, working
from attnbench.statistics.row import Row

if TYPE_CHECKING:
    from attnbench.boards.board import Board, Section
    from attnbench.records.record import Record

FOLDS = 5
COSTS = ("heads", "FLOPs", "latency")
HEADER = ["sweep", "model", "task", "chosen", "Δ dense [95 %]", "on other samples", "in folds"]


@dataclass(frozen=True)
class Choice:
    """The largest amount of a sweep whose estimate stays within the margin, and its cross-validation.

    `row` is the chosen one's, None where dense is all that stays; `folds` are the choices without each fifth
    of the samples, `held_out` the paired difference to dense where every sample is scored by the choice made
    without it.
    """

    sweep: str
    model: str
    task: str
    row: Row | None
    held_out: Row | None
    folds: tuple[str, ...]


def choose(board: Board) -> list[Choice]:
    """Choose in every sweep that the board's suite names, on every model and task."""
    wanted = board.suite.sweeps if board.suite else ()
    return [each for sweep in wanted for section in board.sections for each in _section(section, sweep)]


def _section(section: Section, sweep: str) -> Iterator[Choice]:
    for model, task in dict.fromkeys((row.model, row.task) for row in section.rows):
        rows = {
            row.method: row for row in section.rows
            if (row.model, row.task) == (model, task) and row.primary and row.difference is not None
            and row.method not in CONTROLS and family(row.method) == sweep
        }  # fmt: skip
        mine = [
            item for item in section.records
            if (item.cell["model"], item.cell["task"]) == (model, task) and item.status == "measured"
        ]  # fmt: skip
        dense = next((item for item in mine if item.cell["method"] == "dense"), None)
        ordered = sorted(rows, key=amounts)
        if dense is None or len(ordered) < 2:
            continue
        items: dict[str, list[Record]] = {}
        for item in mine:
            if not same_samples.other_samples(item, dense):
                items.setdefault(name_without_seed(item.cell["method"]), []).append(item)
        yield _choice(sweep, ordered, rows, items)


def _choice(
    sweep: str, ordered: Sequence[str], rows: dict[str, Row], items: dict[str, list[Record]]
) -> Choice:
    first = rows[ordered[0]]
    metric, margin, sign = first.metric, first.margin or 0.0, 1 if first.higher_is_better else -1
    kind = items["dense"][0].metrics[metric].get("aggregate", "mean")
    arrays = {
        name: [np.asarray(item.scores[metric], float) for item in items[name]] for name in ("dense", *ordered)
    }

    def gain(name: str, chosen: Array) -> float:
        dense = working(kind, arrays["dense"][0][chosen])
        return sign * (float(np.mean([working(kind, scores[chosen]) for scores in arrays[name]])) - dense)

    def best(chosen: Array) -> str:
        within = [name for name in ordered if gain(name, chosen) > -margin]
        return within[-1] if within else "dense"

    samples = len(arrays["dense"][0])
    everything = np.ones(samples, bool)
    # interleaved folds: neighbours in a data set are often alike
    folds = [np.arange(samples) % FOLDS == k for k in range(FOLDS)] if samples >= 2 * FOLDS else []
    picked, seen = best(everything), [best(~fold) for fold in folds]
    held_out = None
    if folds:
        held_out = Row(first.model, first.task, picked, scale=first.scale)
        held_out.difference, held_out.low, held_out.high = _held_out(kind, arrays, seen, folds)
    return Choice(sweep, first.model, first.task, rows.get(picked), held_out, tuple(seen))


def _held_out(
    kind: str, arrays: dict[str, list[Array]], seen: Sequence[str], folds: Sequence[NDArray[np.bool_]]
) -> tuple[float, float, float]:
    """Stitch what each fold scores by the choice made without it; return difference to dense, low and high.

    A choice of fewer seeds than another's gives its seeds in turn.
    """
    if set(seen) == {"dense"}:
        return 0.0, 0.0, 0.0  # dense against itself, for certain
    dense = arrays["dense"][0]
    stitched = [np.empty_like(dense) for _ in range(max(len(arrays[name]) for name in seen))]
    for name, fold in zip(seen, folds, strict=True):
        for seed, scores in enumerate(stitched):
            scores[fold] = arrays[name][seed % len(arrays[name])][fold]
    found = inference.paired(kind, dense, [stitched], 0.0)[0]
    return found.estimate, found.low, found.high


def table(choices: Sequence[Choice]) -> tuple[list[str], list[list[str]]]:
    """Return header and rows, one a choice; costs that nobody has are left out."""
    from attnbench.boards.tables.cells import costs

    found = [costs(each.row) if each.row else {} for each in choices]
    names = [name for name in COSTS if any(cost.get(name) for cost in found)]
    lines = []
    for each, cost in zip(choices, found, strict=True):
        row = each.row
        counted = {name: each.folds.count(name) for name in sorted(set(each.folds), key=amounts)}
        folds = ", ".join(f"{name} {count}×" for name, count in counted.items())
        lines.append([
            each.sweep, each.model, each.task, row.method if row else "dense", row.interval if row else "",
            each.held_out.interval if each.held_out else "", folds,
            *(cost.get(name, "") for name in names),
        ])  # fmt: skip
    return [*HEADER, *names], lines


NOTE = (
    "chosen: the largest amount whose estimate is worse than dense by less than the margin. on other "
    "samples: in each of five folds the amount is chosen on four fifths and measured on the fifth; these "
    "fifths together are compared with dense, by the paired 95 % interval. in folds: what was chosen in them."
)
