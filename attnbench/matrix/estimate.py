"""How long the cells of a suite will take, by the seconds of recorded ones. Imports nothing heavy."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from attnbench.records import record

Cell = tuple[str, str, str]


def describe(folder: str | Path, cells: Sequence[Cell]) -> str:
    """Say how many cells are recorded, and how long the others will take by the mean of their column.

    A column without a measured cell goes by the same model and task in a neighbouring folder; where none is
    known either, no time is told: what one model takes says nothing about another.
    """
    spent, left = _known(Path(folder), cells)
    told = f"{len(cells)} cells, {len(cells) - len(left)} recorded"
    if not left:
        return f"{told} in {_time(sum(map(sum, spent.values())))}" if spent else told
    known = [column for column in left if spent[column]]
    unknown = len(left) - len(known)
    if not known and unknown == len(cells):
        return f"{told}, no time known before the first"
    said = [f"{_time(sum(sum(spent[each]) / len(spent[each]) for each in known))} to go"] if known else []
    if unknown:
        cells_ = "1 cell" if unknown == 1 else f"{unknown} cells"
        said.append(f"{cells_} of models never measured on their tasks, time unknown")
    return f"{told}, {' and '.join(said)}"


def seconds_left(folder: str | Path, cells: Sequence[Cell]) -> dict[tuple[str, str], float]:
    """Return for each column (model, task) how long what is not recorded will take.

    A cell of a column of which nothing is known takes as long as the mean of all others.
    """
    spent, left = _known(Path(folder), cells)
    means = {column: sum(found) / len(found) for column, found in spent.items() if found}
    usual = sum(means.values()) / len(means) if means else 1.0
    found = {(model, task): 0.0 for model, task, _ in cells}
    for column in left:
        found[column] += means.get(column, usual)
    return found


def _known(
    folder: Path, cells: Sequence[Cell]
) -> tuple[dict[tuple[str, str], list[float]], list[tuple[str, str]]]:
    """Return the seconds of measured cells by column, and the column of each cell without a record."""
    spent: dict[tuple[str, str], list[float]] = {}
    left: list[tuple[str, str]] = []
    for model, task, method in cells:
        path = record.path_of(folder, {"model": model, "task": task, "method": method})
        if path.exists():
            spent.setdefault((model, task), []).extend(_seconds(path))
        else:
            left.append((model, task))
    for column in dict.fromkeys(left):
        if not spent.get(column):
            beside = folder.parent.glob("/".join(("*", *map(record.file_name, column), "*.json")))
            spent[column] = [second for path in beside for second in _seconds(path)]
    return spent, left


def _seconds(path: Path) -> list[float]:
    """Return what a measured cell took, nothing where the cell was not measured or cannot be read."""
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
        return [float(sum(body["seconds"].values()))] if body["status"] == "measured" else []
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError):
        return []


def _time(seconds: float) -> str:
    return f"about {seconds:.0f} seconds" if seconds < 100 else f"about {seconds / 60:.0f} minutes"
