"""What stands under a table: the meaning of the marks, what the samples resolve, exceptions, settings."""

from __future__ import annotations

import re
from collections.abc import Container, Sequence
from statistics import median
from typing import TYPE_CHECKING, Any

from attnbench.boards.tables import floors, setting
from attnbench.boards.tables.legend import legend, margins
from attnbench.records.inert import Show
from attnbench.statistics import against_dense, receipts
from attnbench.statistics.row import Row, inside

if TYPE_CHECKING:
    from attnbench.records.record import Record

LISTED = 6
REASONS = 3  # that a line gives, where methods of a column have no latency
FITS = 24  # characters of a reason that stands in the table; a longer one stands whole in the notes
TIMED = ("seconds", "samples", "tokens")
PLAIN = re.compile(r"^(ValueError|RuntimeError): (?=\S)")


def footnotes(rows: Sequence[Row], records: Sequence[Record], show: Show) -> list[str]:
    """Write what a reader needs to judge the table: legend, resolution, exceptions, settings, versions."""
    return [
        *legend(rows),
        *remarks(rows, records, show),
        *setting.whole(setting.commands(records), records, show),
    ]


def remarks(
    rows: Sequence[Row], records: Sequence[Record], show: Show, fits: int = FITS, hidden: Container[str] = ()
) -> list[str]:
    """Write what the samples resolve, and what is out of the ordinary.

    Reasons of more than `fits` characters stand here whole. The table lacks the columns `hidden`.
    """
    return [
        *_resolution(rows, show),
        *floors.told(rows, records, show),
        *_exceptions(rows, records, show, hidden),
        *reasons(rows, show, fits),
    ]


def reason(row: Row) -> str:
    """Say why a cell has no number, without the class of an error that speaks for itself."""
    told = (row.error or "no reason was recorded").removeprefix(f"{row.method}: ")
    return f"{_status(row)}: {PLAIN.sub('', told)}"


def _status(row: Row) -> str:
    return "n/a" if row.status == "not applicable" else row.status


def _resolution(rows: Sequence[Row], show: Show) -> list[str]:
    """State what each task can tell apart: the median half-width of its methods' intervals in this table."""
    groups: dict[tuple[str, int, str], list[Row]] = {}
    for row in rows:
        if row.p_margin is not None:
            groups.setdefault((row.task, row.samples, row.metric), []).append(row)
    amounts: dict[str, list[str]] = {}
    for (task, samples, metric), found in groups.items():
        width = median(row.half_width for row in found)
        amount = (f"{width:#.2g}" if width < 10 else f"{width:,.0f}") + found[0].unit
        counted = "1 sample of {} resolves" if samples == 1 else f"{samples:,} samples of {{}} resolve"
        amounts.setdefault(counted.format(show(task)), []).append(f"±{amount} of {show(metric)}")
    said = [
        f"{counted} {' and '.join(filter(None, (', '.join(told[:-1]), told[-1])))}"
        for counted, told in amounts.items()
    ]
    return [f"Resolution (half of the median interval): {'; '.join(said)}."] if said else []


def in_cell(row: Row, show: Show, fits: int = FITS) -> str:
    """Write why a cell has no number where there is room, else point to the notes, which have it whole."""
    told = show(reason(row), 2000)
    return told if len(reason(row)) <= fits else f"{_status(row)}: see notes"


def reasons(rows: Sequence[Row], show: Show, fits: int = FITS) -> list[str]:
    """Write each reason that no cell holds once, after the cells that it is of."""
    found: dict[str, dict[tuple[str, str], list[str]]] = {}
    for row in rows:
        if row.status != "measured" and len(reason(row)) > fits:
            places = found.setdefault(reason(row), {})
            places.setdefault((row.model, row.task), []).append(show(row.method))
    out = []
    for told, places in found.items():
        where = "; ".join(
            f"{show(model)} {show(task)} {', '.join(methods)}" for (model, task), methods in places.items()
        )
        out.append(f"{where}: {show(told, 2000)}")
    return out


def _exceptions(
    rows: Sequence[Row], records: Sequence[Record], show: Show, hidden: Container[str]
) -> list[str]:
    out = []
    dense = {(row.model, row.task) for row in rows if row.method == "dense" and row.status == "measured"}
    for model, task in dict.fromkeys((row.model, row.task) for row in rows if row.status == "measured"):
        if (model, task) not in dense:
            out.append(f"{show(model)} {show(task)}: dense was not measured, so nothing is compared with it.")
    for row in rows:
        if row.method == "uniform" and row.low is not None and not row.worse:
            out.append(f"{show(row.model)} {show(row.task)} {show(row.metric)}: {_of_uniform(row)}.")
    out += [*_suspicious(rows, show), *_unproven(records, show), *receipts.noted(records, show)]
    for row in rows:
        if row.status == "measured" and row.score is None:
            told = f"{show(row.metric)} is not defined {against_dense.UNDEFINED}"
            out.append(f"{show(row.model)} {show(row.task)} {show(row.method)}: {told}.")
    sources: dict[str, set[str]] = {}
    for item in records:
        source = item.provenance.get("fingerprints", {}).get("task")
        if source:
            sources.setdefault(item.cell["task"], set()).add(str(source))
    for task, kinds in sources.items():
        if len(kinds) > 1:
            told = "models were measured on different definitions of this task, compare within a model"
            out.append(f"{show(task)}: {told}.")
    if "latency" not in hidden:
        out += _dense_costs(records, show)
    return out + _without_latency(records, show)


def _of_uniform(row: Row) -> str:
    """Say what is known where uniform attention is not shown to be worse than dense, and what is not."""
    if row.better:
        return (
            f"the uniform-attention baseline is better than dense ({row.interval}): attention does harm here"
        )
    if row.least_gain > -(row.margin or 0.0):
        told = f"the uniform-attention baseline is not worse by {margins([row])} or more ({row.interval})"
        return f"{told}, so this task says nothing about attention"
    told = f"it is undecided whether the uniform-attention baseline is worse than dense ({row.interval})"
    return f"{told}, and so whether this task says anything about attention"


def _suspicious(rows: Sequence[Row], show: Show) -> list[str]:
    """Name the methods that are better than dense beyond chance, and what to check first."""
    found = [row for row in rows if row.suspicious]
    if not found:
        return []
    names = dict.fromkeys(f"{show(row.method)} on {show(row.model)} {show(row.task)}" for row in found)
    return [
        f"! marks what is better than dense beyond chance (Holm-corrected over the table): "
        f"{_listed([*names])}. Training on the task can do that, a change to attention alone seldom does. "
        "Check first that the method did not learn from the evaluation samples, that dense has the score "
        "that its model card states, that no texts are cut, and that other samples agree."
    ]


def _unproven(records: Sequence[Record], show: Show) -> list[str]:
    """Name the methods whose code fails `attnbench check`, or never went through it."""
    found: dict[str, dict[str, None]] = {}
    for item in records:
        found.setdefault(str(item.provenance.get("check")), {})[show(item.cell["method"])] = None
    out = []
    for verdict, names in found.items():
        word, _, checks = verdict.partition(": ")
        listed = ", ".join([*names][:LISTED]) + (", …" if len(names) > LISTED else "")
        if word == "failed":
            out.append(
                f"{listed}: the code fails `attnbench check` ({show(checks, 200)}), so do not rely on it."
            )
        elif word == "unchecked":
            out.append(
                f"{listed}: the code never went through `attnbench check`, which tests a method's promises."
            )
    return out


def _dense_costs(records: Sequence[Record], show: Show) -> list[str]:
    """Say what the ratios to dense are of, where costs were measured."""
    out = []
    columns: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for item in records:
        columns.setdefault((item.cell["model"], item.cell["task"]), []).append(item.measured)
    for (model, task), mine in columns.items():
        flops, memory = (_numbers(mine, path) for path in ("flops dense", "memory dense"))
        if not (flops and memory):
            continue
        told = [f"{flops[0] / 1e9:.3g} GFLOPs a sample"]
        passes = [found for found in mine if "first" not in found]
        cached = [found for found in mine if "first" in found]  # methods for caches: of a token, of a prompt
        seconds, samples, tokens = (_numbers(passes, f"latency {name}") for name in TIMED)
        if seconds and samples and tokens:
            many = "sample" if samples[0] == 1 else "samples"
            told.append(f"{samples[0]} {many} of {tokens[0]} tokens in {_time(median(seconds))}")
        seconds, first, tokens = (
            _numbers(cached, path) for path in ("latency seconds", "first seconds", "latency tokens")
        )
        if seconds and first and tokens:
            told.append(
                f"a prompt of {tokens[0]} tokens and the first token after it in {_time(median(first))}, "
                f"the next one in {_time(median(seconds))}"
            )
        told.append(f"at most {memory[0] / 1e6:.3g} MB held by one attention module")
        threads = {count for found in mine if (count := inside(found, "latency threads"))}
        told += [f"{count} {'thread' if count == 1 else 'threads'}" for count in sorted(threads)]
        out.append(f"{show(model)} {show(task)} dense: {', '.join(told)}.")
    return out


def _numbers(found: Sequence[dict[str, Any]], path: str) -> list[Any]:
    """Return the numbers at a place of what was measured, where there is one."""
    return [value for each in found if isinstance(value := inside(each, path), (int, float))]


def _time(seconds: float) -> str:
    return f"{seconds:.3g} s" if seconds >= 1 else f"{1000 * seconds:.3g} ms"


def _without_latency(records: Sequence[Record], show: Show) -> list[str]:
    """Say of each column why methods have no latency: a few reasons in a line, the methods of others."""
    columns: dict[tuple[str, str], dict[str, list[str]]] = {}
    for item in records:
        if why := inside(item.measured, "latency why"):
            reasons = columns.setdefault((item.cell["model"], item.cell["task"]), {})
            reasons.setdefault(str(why), []).append(show(item.cell["method"]))
    out = []
    for (model, task), reasons in columns.items():
        told = [
            f"{_listed(methods)} {_has(methods)} no latency: {show(why, 200)}."
            for why, methods in [*reasons.items()][:REASONS]
        ]
        rest = [method for methods in [*reasons.values()][REASONS:] for method in methods]
        if rest:
            told.append(f"Nor {_has(rest)} {_listed(rest)}: each record says why.")
        out.append(f"{show(model)} {show(task)}: {' '.join(told)}")
    return out


def _has(names: Sequence[str]) -> str:
    return "has" if len(names) == 1 else "have"


def _listed(names: Sequence[str]) -> str:
    return ", ".join([*names[:LISTED], *([f"{len(names) - LISTED} more"] if len(names) > LISTED else [])])
