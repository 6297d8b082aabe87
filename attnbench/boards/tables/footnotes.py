"""What stands under a table: verdict, the meaning of the marks, what the samples resolve, settings."""

from __future__ import annotations

import math
import re
from collections.abc import Container, Sequence
from statistics import median
from typing import TYPE_CHECKING, Any

from attnbench.boards.tables import floors
from attnbench.boards.tables.legend import legend, margins
from attnbench.methods.controls import CONTROLS
from attnbench.records import provenance
from attnbench.records.inert import Show
from attnbench.statistics import against_dense, receipts
from attnbench.statistics.row import Row, inside

if TYPE_CHECKING:
    from attnbench.records.record import Record

LISTED = 6
CUT = 24  # of a failure's reason in the table; the whole stands below
VERDICTS = ("within", "worse", "undecided", "failed", "not applicable", "missing")
REASONS = {"failed": "failed on", "not applicable": "not applicable to", "missing": "missing on"}
DENSE_COSTS = ("flops dense", "memory dense", "latency seconds", "latency samples", "latency tokens")
PLAIN = re.compile(r"^(ValueError|RuntimeError): (?=\S)")
HARDWARE = ("processor", "cores", "threads", "accelerator", "system", "python")


def verdicts(rows: Sequence[Row], show: Show) -> list[str]:
    """Write one line a method over all its cells: within the margin, worse, or undecided."""
    several = len({row.model for row in rows}) > 1
    metrics = len({row.metric for row in rows if row.metric}) > 1

    def place(row: Row) -> str:
        names = [row.model if several else "", row.task, row.metric if metrics else ""]
        return " ".join(show(name) for name in names if name)

    out = []
    methods: dict[str, list[Row]] = {}
    for row in rows:
        if row.method not in CONTROLS:
            methods.setdefault(row.method, []).append(row)
    for method, mine in methods.items():
        by: dict[str, list[Row]] = {}
        for row in mine:
            by.setdefault(row.verdict, []).append(row)
        said = []
        if "within" in by:
            tasks = {(row.model, row.task) for row in mine}
            everywhere = "every task" if len(tasks) > 1 else show(mine[0].task)
            where = everywhere if len(by) == 1 else ", ".join(map(place, by["within"]))
            said.append(f"within {margins(by['within'])} of dense on {where}")
        if "worse" in by:
            said.append("worse on " + ", ".join(f"{place(row)} ({row.interval})" for row in by["worse"]))
        if "undecided" in by:
            told = [f"{place(row)} ({row.interval}; {_needed(row)})" for row in by["undecided"]]
            said.append("undecided on " + ", ".join(told))
        for verdict, words in REASONS.items():
            if verdict in by:
                said.append(f"{words} {', '.join(map(place, by[verdict]))}")
        if "" in by:
            said.append(f"not compared on {', '.join(map(place, by['']))}")
        idle = [place(row) for row in mine if row.effect == "no effect" and row.primary]
        if idle:
            said.append(f"changed nothing on {', '.join(idle)}")
        partly = [row for row in mine if row.effect not in (None, "no effect") and row.primary]
        said += [f"{row.effect} on {place(row)}" for row in partly]
        out.append(f"{show(method)}: {'; '.join(said)}.")
    return out


def counts(rows: Sequence[Row]) -> str:
    """Write in one sentence how many comparisons by a primary metric came out how."""
    words: dict[str, int] = {}
    for row in rows:
        if row.primary and row.verdict:
            words[row.verdict] = words.get(row.verdict, 0) + 1
    told = {"within": "within the margin of dense", "not applicable": "not applicable"}
    said = [f"{words[word]} {told.get(word, word)}" for word in VERDICTS if word in words]
    return f"Of {sum(words.values())} comparisons with dense: {', '.join(said)}." if said else ""


def footnotes(
    rows: Sequence[Row], records: Sequence[Record], show: Show, hidden: Container[str] = ()
) -> list[str]:
    """Write what a reader needs to judge the table: legend, resolution, exceptions, settings, versions.

    The table lacks the columns `hidden`.
    """
    return [
        *legend(rows, hidden),
        *_resolution(rows, show),
        *floors.told(rows, records, show),
        *_exceptions(rows, records, show),
        *_setting(records, show),
    ]


def reason(row: Row) -> str:
    """Say why a cell has no number, without the class of an error that speaks for itself."""
    status = "n/a" if row.status == "not applicable" else row.status
    told = (row.error or "no reason was recorded").removeprefix(f"{row.method}: ")
    return f"{status}: {PLAIN.sub('', told)}"


def _needed(row: Row) -> str:
    if row.needed is None or not row.needed < 1e6:
        return "more than a million samples to decide"
    step = 10 ** (math.floor(math.log10(row.needed)) - 1)
    return f"about {math.ceil(row.needed / step) * step:,.0f} samples would decide"


def _resolution(rows: Sequence[Row], show: Show) -> list[str]:
    """State what each task can tell apart: the median half-width of its methods' intervals in this table."""
    groups: dict[tuple[str, int, str], list[Row]] = {}
    for row in rows:
        if row.p_margin is not None:
            groups.setdefault((row.task, row.samples, row.metric), []).append(row)
    said = []
    for (task, samples, metric), found in groups.items():
        width = median(row.half_width for row in found)
        amount = (f"{width:#.2g}" if width < 10 else f"{width:.0f}") + found[0].unit
        counted = "1 sample of {} resolves" if samples == 1 else f"{samples:,} samples of {{}} resolve"
        said.append(f"{counted.format(show(task))} ±{amount} of {show(metric)}")
    return [f"Resolution, half the median interval: {'; '.join(said)}."] if said else []


def _exceptions(rows: Sequence[Row], records: Sequence[Record], show: Show) -> list[str]:
    out = []
    dense = {(row.model, row.task) for row in rows if row.method == "dense" and row.status == "measured"}
    for model, task in dict.fromkeys((row.model, row.task) for row in rows if row.status == "measured"):
        if (model, task) not in dense:
            out.append(f"{show(model)} {show(task)}: no dense cell, so nothing is compared.")
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
    out += _dense_costs(records, show)
    for row in rows:
        if row.status != "measured" and len(reason(row)) > CUT:
            what = f"{show(row.model)} {show(row.task)} {show(row.method)}"
            out.append(f"{what}: {show(reason(row), 2000)}")
    return out


def _of_uniform(row: Row) -> str:
    """Say what is known where uniform attention is not shown to be worse than dense, and what is not."""
    if row.better:
        return f"uniform attention is better than dense ({row.interval}): what attention adds harms here"
    if row.least_gain > -(row.margin or 0.0):
        told = f"uniform attention is not worse than dense by {margins([row])} or more ({row.interval})"
        return f"{told}, so this says nothing about attention"
    told = f"whether uniform attention is worse than dense is undecided ({row.interval})"
    return f"{told}, and so is whether this says anything about attention"


def _suspicious(rows: Sequence[Row], show: Show) -> list[str]:
    """Name the methods that are better than dense beyond chance, and what to check first."""
    found = [row for row in rows if row.suspicious]
    if not found:
        return []
    names = dict.fromkeys(f"{show(row.method)} on {show(row.model)} {show(row.task)}" for row in found)
    listed = [*names][:LISTED] + ([f"{len(names) - LISTED} more"] if len(names) > LISTED else [])
    return [
        f"! better than dense beyond chance, Holm over the table: {', '.join(listed)}. Training on the task "
        "may be, a change to attention seldom is: check first that what it learned from is not what is "
        "evaluated, that dense has the score its card states, that "
        "the texts are not cut, and that other samples agree."
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
            out.append(f"{listed}: fails `attnbench check` ({show(checks, 200)}): not to be relied upon.")
        elif word == "unchecked":
            out.append(f"{listed}: never went through `attnbench check`, which says what a method keeps to.")
    return out


def _dense_costs(records: Sequence[Record], show: Show) -> list[str]:
    """Say what the ratios to dense are of, where costs were measured."""
    out = []
    columns: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for item in records:
        columns.setdefault((item.cell["model"], item.cell["task"]), []).append(item.measured)
    for (model, task), mine in columns.items():
        told = []
        flops, memory, seconds, samples, tokens = (
            [value for found in mine if isinstance(value := inside(found, path), (int, float))]
            for path in DENSE_COSTS
        )
        if flops and memory:
            told.append(f"{flops[0] / 1e9:.3g} GFLOPs a sample")
            if seconds and samples and tokens:
                size = f"{samples[0]} samples of {tokens[0]} tokens"
                told.append(f"{size} in {1000 * median(seconds):.3g} ms")
            told.append(f"at most {memory[0] / 1e6:.3g} MB held by one attention module")
            out.append(f"{show(model)} {show(task)} dense: {', '.join(told)}.")
    return out


def _setting(records: Sequence[Record], show: Show) -> list[str]:
    """Write settings, versions and hardware, each value once; all of them where cells differ."""
    environments = [item.environment for item in records]
    versions = [env["versions"] for env in environments if isinstance(env.get("versions"), dict)]
    hardware = [{key: env.get(key) for key in HARDWARE} for env in environments]
    days = sorted({item.date[:10] for item in records if item.date})
    commands = dict.fromkeys(
        provenance.written(item.provenance["command"]) for item in records if item.provenance.get("command")
    )
    found = {
        "Made by": [show(command, 2000) for command in commands],
        "Settings": _gathered([{**item.settings, "measure": None} for item in records], show),
        "Versions": _gathered(versions, show),
        "Hardware": _gathered(hardware, show),
        "Measured": [show(" to ".join(dict.fromkeys((days[0], days[-1]))))] if days else [],
    }
    return [f"{name}: {', '.join(values)}." for name, values in found.items() if values]


def _gathered(dicts: Sequence[dict[str, Any]], show: Show) -> list[str]:
    found: dict[str, dict[str, None]] = {}
    for each in dicts:
        for key, value in each.items():
            if value is not None and value is not False:
                found.setdefault(key, {})[show(str(value))] = None
    return [f"{show(key.replace('_', ' '))} {' or '.join(values)}" for key, values in found.items()]
