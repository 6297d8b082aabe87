"""Records to rows: every method against dense on the same samples, seeds grouped, claims corrected."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from attnbench.errors import UserError
from attnbench.methods import families
from attnbench.methods.controls import CONTROLS
from attnbench.methods.families import name_without_seed
from attnbench.statistics import fidelity, floor, inference, ordering, receipts, same_samples
from attnbench.statistics.aggregates import Array, aggregate, is_fraction, over_seeds, spare, working
from attnbench.statistics.row import LEVEL, Row

if TYPE_CHECKING:
    import pandas

    from attnbench.records.record import Record

MARGIN = 0.01
UNDEFINED = "on these samples, or without one of them: too few, or all alike"
SCORES_MATCH = 1e-3  # relative; a record's value and its samples come from the same run


def rows(records: Iterable[Record], margin: float = MARGIN, sort: str = ordering.FAMILY) -> list[Row]:
    """Compare every cell with the dense cell of its model and task.

    Models and tasks stay in the order of the records; dense comes first, then uniform, then methods, each
    with its control (see controls.beside): by family and amount, so that a sweep stands together, or where
    `sort` is "score" by what they keep. `margin` is absolute for fractions (0.01: one
    point; of 100 for BLEU and chrF), on the log for perplexities (1 %), relative to dense for any other
    number. Holm corrects over all but controls. A cell of other samples than dense's is a failed one. Raises
    UserError where a cell has two different records.
    """
    found: list[Row] = []
    for (model, task), cells in _columns(records).items():
        found += _column(model, task, cells, margin, sort)
    claims = [row for row in found if row.p_margin is not None]
    for row, corrected in zip(claims, inference.holm([row.p_margin or 0.0 for row in claims]), strict=True):
        row.p_holm = corrected
    for row, corrected in zip(claims, inference.holm([row.p_better or 0.0 for row in claims]), strict=True):
        row.p_better = corrected
    for row in claims:
        if row.verdict == "undecided":
            row.needed = _needed(row, LEVEL / len(claims))
    return found


def to_frame(rows: Sequence[Row]) -> pandas.DataFrame:
    """Return one line a row, marks and verdicts included."""
    import pandas

    columns = [*(item.name for item in dataclasses.fields(Row)), "mark", "verdict"]
    return pandas.DataFrame([row.as_dict() for row in rows], columns=columns)


def _columns(records: Iterable[Record]) -> dict[tuple[str, str], dict[str, Record]]:
    columns: dict[tuple[str, str], dict[str, Record]] = {}
    for item in records:
        cells = columns.setdefault((item.cell["model"], item.cell["task"]), {})
        twin = cells.get(item.cell["method"])
        if twin is not None and (twin.metrics, twin.status) != (item.metrics, item.status):
            files = ", " + " and ".join(each.file for each in (twin, item)) if item.file else ""
            raise UserError(
                f"two records for {_name(item)} disagree{files}: keep one, or measure it again with --force"
            )
        cells[item.cell["method"]] = item
    return columns


def _column(model: str, task: str, cells: dict[str, Record], margin: float, sort: str) -> list[Row]:
    """Make the rows of one model on one task."""
    problems = {method: problem(item) for method, item in cells.items()}
    measured = {method: item for method, item in cells.items() if problems[method] is None}
    problems |= same_samples.others(measured)
    measured = {method: item for method, item in measured.items() if problems[method] is None}
    groups: dict[str, list[Record]] = {}
    for method, item in measured.items():
        groups.setdefault(name_without_seed(method), []).append(item)
    named = {
        base if len(members) > 1 else members[0].cell["method"]: members for base, members in groups.items()
    }
    metrics = list(dict.fromkeys(metric for item in measured.values() for metric in item.metrics))
    twice = [item for item in measured.values() if item.measured.get("floor")]
    blocks: dict[str, list[Row]] = {name: [] for name in named}
    for metric in metrics:
        having = {
            name: members for name, members in named.items() if all(metric in m.metrics for m in members)
        }
        for name, row in _compared(model, task, metric, having, margin).items():
            row.floor = floor.largest(twice, metric, row.scale)
            row.primary = not blocks[name]
            blocks[name].append(row)
    good = ordering.ordered([block for block in blocks.values() if block], sort)
    bad = [
        Row(
            model, task, method, status="failed" if item.status == "measured" else item.status,
            error=problems[method], seconds=_seconds([item]),
        )
        for method, item in cells.items() if problems[method] is not None
    ]  # fmt: skip
    bad.sort(key=lambda row: (row.method not in CONTROLS, row.status, *families.order(row.method)))
    return [row for block in good for row in block] + bad


def problem(item: Record) -> str | None:
    """Say why a record has no number to compare, or None."""
    if item.status != "measured":
        return item.error or "no reason was recorded"
    for name, metric in item.metrics.items():
        scores, kind = item.scores.get(name), metric.get("aggregate", "mean")
        own = aggregate(kind, scores) if scores is not None and len(scores) else None
        if metric.get("value") is None and own is not None and math.isnan(own):
            continue  # it is not defined on these samples
        if not isinstance(metric.get("value"), (int, float)) or not math.isfinite(metric["value"]):
            return f"{name} is {metric.get('value')}"
        near = SCORES_MATCH * max(abs(own or 0.0), abs(metric["value"]), 1e-3)
        if own is not None and not abs(own - metric["value"]) <= near:
            return f"{name} is {metric['value']:.6g} in the record but {_shown(own)} by its samples"
    for name in fidelity.NAMES:
        said, own = fidelity.of([item], name), fidelity.mean(item, name)
        if said is not None and (own is None or not abs(own - said.value) <= SCORES_MATCH * max(own, 1e-3)):
            found = _shown(math.nan if own is None else own)
            return f"{name} is {said.value:.6g} in the record but {found} by its samples"
    return None if item.metrics else "no metric was recorded"


def _shown(value: float) -> str:
    return "not defined" if math.isnan(value) else f"{value:.6g}"


def comparable(kind: str, scores: Array) -> bool:
    """Tell whether a metric is defined on these samples, and without any one of them."""
    return spare(kind, scores) >= 1


def mismatches(records: Iterable[Record]) -> Iterator[str]:
    """Yield a line for every cell that was measured on other samples than its model's dense on that task."""
    for (model, task), cells in _columns(records).items():
        measured = {method: item for method, item in cells.items() if problem(item) is None}
        for method, told in same_samples.others(measured).items():
            yield f"{model} {task} {method}: {told}"


def _compared(
    model: str, task: str, metric: str, cells: dict[str, list[Record]], margin: float
) -> dict[str, Row]:
    """Make the rows of one metric, with their differences to dense where there is a dense cell."""
    found = {name: _row(model, task, metric, name, members) for name, members in cells.items()}
    arrays = {name: [item.scores.get(metric) for item in members] for name, members in cells.items()}
    kind = next(iter(cells.values()))[0].metrics[metric].get("aggregate", "mean")
    usable: dict[str, list[Array]] = {
        name: [np.asarray(a, float) for a in scores if a is not None]
        for name, scores in arrays.items()
        if all(a is not None and len(a) and comparable(kind, a) for a in scores)
    }
    known = [np.asarray(a, float) for scores in arrays.values() for a in scores if a is not None and len(a)]
    scale = scale_of(kind, known)  # also where too few samples count for an interval
    for name, row in found.items():
        row.scale = scale
        if name in usable and row.seeds > 1:
            row.stderr = inference.standard_error(kind, usable[name])
    if "dense" not in usable:
        return found
    dense = usable.pop("dense")[0]
    width = {"score": 100 * margin, "raw": margin * abs(working(kind, dense))}.get(scale, margin)
    higher = found["dense"].higher_is_better
    for (name, scores), result in zip(
        usable.items(), inference.paired(kind, dense, list(usable.values()), width, higher), strict=True
    ):
        row = found[name]
        row.difference, row.low, row.high, row.margin = result.estimate, result.low, result.high, width
        row.mcnemar, row.discordant = result.mcnemar, result.discordant
        if name not in CONTROLS:
            row.p_margin, row.p_better = result.p_margin, result.p_better(higher)
        if row.seeds > 1 and kind == "perplexity":
            row.score = over_seeds(kind, scores)
    _fill_kept(found, kind, dense, usable)
    return found


def _fill_kept(found: dict[str, Row], kind: str, dense: Array, usable: dict[str, list[Array]]) -> None:
    floor = found.get("uniform")
    if floor is None or floor.low is None or not (floor.worse or floor.better):
        return
    top, bottom = working(kind, dense), working(kind, usable["uniform"][0])
    for name, row in found.items():
        if name == "dense" or name in usable:
            score = top if name == "dense" else float(np.mean([working(kind, a) for a in usable[name]]))
            row.kept = inference.kept(score, top, bottom)


def _row(model: str, task: str, metric: str, name: str, members: Sequence[Record]) -> Row:
    entries = [item.metrics[metric] for item in members]
    known = [entry["value"] for entry in entries if entry["value"] is not None]
    values = [float(value) for value in known] if len(known) == len(entries) else []
    scores = members[0].scores.get(metric)
    return Row(
        model, task, name, metric,
        samples=0 if scores is None else len(scores),
        seeds=len(members),
        score=_mean(values) if values else None,
        stderr=entries[0].get("stderr"),
        seed_low=min(values) if len(values) > 1 else None,
        seed_high=max(values) if len(values) > 1 else None,
        higher_is_better=bool(entries[0].get("higher_is_better", True)),
        seconds=_seconds(members),
        effect=(receipts.effect(members) or receipts.mostly_dense(members)) if name != "dense" else None,
        check=receipts.check(members),
    ).with_costs(members)  # fmt: skip


def scale_of(kind: str, arrays: Sequence[Array]) -> str:
    """Return the scale of a metric, as Row has it."""
    if kind in ("bleu", "chrf"):
        return "score"
    if kind == "perplexity":
        return "log"
    return "fraction" if arrays and is_fraction(kind, arrays) else "raw"


def _needed(row: Row, alpha: float) -> float:
    result = inference.Paired(
        row.difference or 0.0,
        row.low or 0.0,
        row.high or 0.0,
        row.p_margin or 0.0,
        discordant=row.discordant,
    )
    return inference.samples_needed(row.samples, result, row.margin or 0.0, alpha, row.higher_is_better)


def _seconds(members: Sequence[Record]) -> float | None:
    times = [
        item.seconds.get("fit", 0.0) + item.seconds.get("evaluate", 0.0) for item in members if item.seconds
    ]
    return _mean(times) if times else None


def _mean(values: Sequence[float]) -> float:
    return float(values[0] if len(values) == 1 else np.mean(values))


def _name(item: Record) -> str:
    return " ".join(item.cell[key] for key in ("model", "task", "method"))
