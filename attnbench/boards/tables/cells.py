"""What stands in the cells of a table: a row's numbers as text."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from attnbench.boards.tables import footnotes
from attnbench.records.inert import Show
from attnbench.statistics import fidelity
from attnbench.statistics.row import Row

DIFFERENCE = "Δ dense [95 %]"
CHECKS = {"failed": "fails check", "unchecked": "unchecked"}
ANSWERS = {"flips": "flips", "answers-changed": "answers changed", "kl": "KL"}
COSTS = (
    "kept", *ANSWERS.values(), "sparsity", "bits", "heads", "sim. FLOPs", "FLOPs", "latency", "memory",
    "KV bytes", "cache", "kv", "divergence",
)  # fmt: skip
MUCH = 0.005  # by which a nominal sparsity is above that of visible values, to be worth a word


def method(row: Row, show: Show) -> str:
    """Write a row's method and what is to be said of it."""
    told = notes(row)
    return ("└ " if row.control_of else "") + show(row.method) + (f" ({told})" if told else "")


def notes(row: Row) -> str:
    """Say how many seeds a row is of, whether the method changed nothing and whether its code was checked."""
    seeds = f"{row.seeds} seeds" if row.seeds > 1 and "seeds" not in (row.effect or "") else ""
    return ", ".join(filter(None, (seeds, row.idle or row.effect, CHECKS.get(row.check or ""))))


def of(row: Row, show: Show) -> dict[str, str]:
    """Write the numbers of a row: what a method costs stands beside its first metric only."""
    if row.status != "measured":
        return {"metric": "", "score": "–", DIFFERENCE: footnotes.in_cell(row, show)}
    cells = {
        "metric": show(row.metric),
        "score": score(row) + seed_range(row),
        DIFFERENCE: row.interval,
        "": row.mark,
        "kept": kept(row),
        **costs(row),
    }
    return cells if row.primary else cells | dict.fromkeys(COSTS, "")


def score(row: Row) -> str:
    """Write a score and its standard error, where it has one."""
    known = row.stderr is not None and math.isfinite(row.stderr)
    return row.amount(row.score) + (f" ± {row.amount(row.stderr, 2)}" if known else "")


def seed_range(row: Row) -> str:
    """Write the lowest and highest score of several seeds."""
    if row.seed_low is None:
        return ""
    between = " to " if row.seed_low < 0 else "–"
    return f" ({row.amount(row.seed_low)}{between}{row.amount(row.seed_high)})"


def task_of(row: Row, show: Show) -> str:
    """Write a row's task and, where it was measured, the number of samples."""
    return show(row.task) + (f" ({row.samples:,})" if row.samples else "")


def score_title(rows: Sequence[Row]) -> str:
    """Return the header of the scores: the metric where there is one only, and its unit."""
    metrics = dict.fromkeys(row.metric for row in rows if row.metric)
    unit = " %" if {row.scale for row in rows if row.metric} == {"fraction"} else ""
    return (next(iter(metrics)) if len(metrics) == 1 else "score") + unit


def left_out(rows: Sequence[Row], lines: Sequence[Mapping[str, str]]) -> set[str]:
    """Return the columns that tell nothing: that nobody fills, a single metric, heads where all are kept."""
    found = {name for name in ("metric", "", *COSTS) if not any(line.get(name) for line in lines)}
    if all(row.heads in (None, 1.0) for row in rows):
        found.add("heads")
    if len({row.metric for row in rows if row.metric}) < 2:
        found.add("metric")
    return found


def kept(row: Row) -> str:
    """Write what a row keeps, to a percent."""
    if row.kept is None:
        return "–"
    text = f"{100 * row.kept:.0f}%"
    return "0%" if text == "-0%" else text.replace("-", "−")


def costs(row: Row) -> dict[str, str]:
    """Write what a row's method costs: simulated, then realised, which is empty where nothing is."""
    sparsity, bits = _percent(row.sparsity, 1), "" if row.bits is None else f"{row.bits:.3g}"
    if row.sparsity is not None and row.nominal is not None and row.nominal - row.sparsity >= MUCH:
        sparsity += f" ({_percent(row.nominal, 1)})"
    if bits and row.entropy is not None:
        bits += f" ({row.entropy:.2f})"
    latency = "" if row.latency is None else f"{row.latency:.2f}"
    if row.latency_low is not None and row.latency_high is not None:
        ends = f"{row.latency_low:.2f}", f"{row.latency_high:.2f}"
        latency += f" ({ends[0]}–{ends[1]})" if row.seeds > 1 else f" [{ends[0]}, {ends[1]}]"
    return {
        **answers(row),
        "sparsity": sparsity,
        "bits": bits,
        "heads": _percent(row.heads),
        "sim. FLOPs": _percent(row.flops_simulated, 1),
        "FLOPs": _percent(row.flops_realised, 1),
        "latency": latency,
        "memory": "" if row.memory is None else f"{row.memory:.2f}",
        "KV bytes": "" if row.kv_bytes is None else f"{row.kv_bytes:.2f}",
        "cache": _percent(row.cache),
        "kv": "" if row.kv is None else f"{row.kv:.2f}",
        "divergence": "" if row.divergence is None else f"{row.divergence:.3f}",
    }


def answers(row: Row, ends: bool = True) -> dict[str, str]:
    """Write how a row's answers differ from dense's, with or without the ends of their intervals."""
    found = [(title, name, row.fidelity(name)) for name, title in ANSWERS.items()]
    return {title: fidelity.shown(name, each, ends) if each else "" for title, name, each in found}


def _percent(value: float | None, digits: int = 0) -> str:
    return "" if value is None else f"{100 * value:.{digits}f}%"
