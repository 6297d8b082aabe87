"""What came of each method, in words: a line each over all of its cells, long in files, short on a screen."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from attnbench.boards.tables.legend import margins
from attnbench.methods.controls import CONTROLS
from attnbench.records.inert import Show
from attnbench.statistics.row import Row

VERDICTS = ("within", "worse", "undecided", "failed", "not applicable", "missing")
REASONS = {"failed": "failed on", "not applicable": "not applicable to", "missing": "missing on"}
SHORT = {"within": "≈", "worse": "▼", "undecided": "?", "not applicable": "n/a"}
IDLE = {"no effect": "changed nothing", "no answer changed": "changed no answer"}
PLACES = 3  # that a short line names


def of_methods(rows: Sequence[Row], show: Show) -> list[str]:
    """Write one line a method over all its cells: within the margin, worse, or undecided."""
    place = _places(rows, show)
    out = []
    for method, mine in _by_method(rows).items():
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
        for idle, words in IDLE.items():
            if found := [place(row) for row in mine if row.idle == idle and row.primary]:
                said.append(f"{words} on {', '.join(found)}")
        partly = [row for row in mine if row.effect and not row.idle and row.primary]
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


def _needed(row: Row) -> str:
    if row.needed is None or not row.needed < 1e6:
        return "more than a million samples to decide"
    step = 10 ** (math.floor(math.log10(row.needed)) - 1)
    return f"about {math.ceil(row.needed / step) * step:,.0f} samples would decide"


def in_short(rows: Sequence[Row], show: Show) -> list[str]:
    """Write one line a method of what its rows do not say themselves: counts over several cells, by mark.

    Of an undecided one how many samples would decide; of a method in one row nothing else.
    """
    place = _places(rows, show)
    out = []
    for method, mine in _by_method(rows).items():
        by: dict[str, list[Row]] = {}
        for row in mine:
            by.setdefault(row.verdict or "not compared", []).append(row)
        said = []
        for verdict in (*VERDICTS, "not compared"):
            found = by.get(verdict, [])
            if len(mine) == 1 and verdict == "undecided" and found:
                said.append(f"? {_needed(mine[0])}")
            elif len(mine) > 1 and found:
                said.append(f"{SHORT.get(verdict, verdict)} {_counted(found, len(mine), place)}")
        if said:
            out.append(f"{show(method)}: {'; '.join(said)}")
    return out


def _counted(found: Sequence[Row], all_: int, place: Callable[[Row], str]) -> str:
    if len(found) == all_:
        return f"all {all_}"
    named = [place(row) for row in found[:PLACES]] + (["…"] if len(found) > PLACES else [])
    if found[0].verdict == "within":
        return f"{len(found)} of {all_}"
    return f"{len(found)} of {all_} ({', '.join(named)})"


def _by_method(rows: Sequence[Row]) -> dict[str, list[Row]]:
    methods: dict[str, list[Row]] = {}
    for row in rows:
        if row.method not in CONTROLS:
            methods.setdefault(row.method, []).append(row)
    return methods


def _places(rows: Sequence[Row], show: Show) -> Callable[[Row], str]:
    """Return what names the cell of a row, without what all rows share."""
    several = len({row.model for row in rows}) > 1
    metrics = len({row.metric for row in rows if row.metric}) > 1

    def place(row: Row) -> str:
        names = [row.model if several else "", row.task, row.metric if metrics else ""]
        return " ".join(show(name) for name in names if name)

    return place
