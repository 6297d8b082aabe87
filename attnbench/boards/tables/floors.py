"""What rounding alone makes of scores, in words: the numerical floor of each column."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from attnbench.records.inert import Show
from attnbench.statistics import floor
from attnbench.statistics.row import Row

if TYPE_CHECKING:
    from attnbench.records.record import Record


def told(rows: Sequence[Row], records: Sequence[Record], show: Show) -> list[str]:
    """Say by how much scores move in other batches by other threads, of what was measured twice."""
    found = []
    sizes: list[str] = []
    for item in records:
        again = item.measured.get("floor")
        if item.status != "measured" or not again:
            continue
        size = f"batches of {again['batch_size']} by {again['threads']} thread{'s' * (again['threads'] > 1)}"
        sizes += [size] if size not in sizes else []
        mine = {
            row.metric: row
            for row in rows
            if (row.model, row.task) == (item.cell["model"], item.cell["task"])
        }
        moved = [(row, floor.of(item, metric, row.scale)) for metric, row in mine.items()]
        parts = [f"{_by(row, each.by)} of {show(row.metric)}" for row, each in moved if each is not None]
        if parts:
            most = max(each.samples for _, each in moved if each is not None)
            where = " ".join(show(item.cell[key]) for key in ("method", "task"))
            found.append(f"{where} {', '.join(parts)} ({most:,} of {again['samples']:,} samples)")
    if not found:
        return []
    return [
        f"Numerical floor (how far a score moves when the same cell is measured again in "
        f"{' or '.join(sizes)}): {'; '.join(found)}. A smaller difference gets neither ▼ nor ▲."
    ]


def _by(row: Row, moved: float) -> str:
    if row.scale == "log":
        return f"{100 * moved:.2g} %"
    return f"{100 * moved:.2g} points" if row.scale == "fraction" else f"{moved:.2g}"
