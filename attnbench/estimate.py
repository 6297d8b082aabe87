"""How long the cells of a suite will take, by the seconds of recorded ones. Imports nothing heavy."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from attnbench import record

Cell = tuple[str, str, str]


def describe(folder: str | Path, cells: Sequence[Cell]) -> str:
    """Say how many cells are recorded, and how long the others will take by the mean of their column.

    A column without a record goes by the same model and task in a neighbouring folder, then by the mean of
    all that is known.
    """
    folder = Path(folder)
    spent: dict[tuple[str, str], list[float]] = {}
    left: list[tuple[str, str]] = []
    for model, task, method in cells:
        path = record.path_of(folder, {"model": model, "task": task, "method": method})
        if path.exists():
            spent.setdefault((model, task), []).append(_seconds(path))
        else:
            left.append((model, task))
    told = f"{len(cells)} cells, {len(cells) - len(left)} recorded"
    if not left:
        return f"{told} in {_time(sum(map(sum, spent.values())))}" if spent else told
    for column in dict.fromkeys(left):
        if column not in spent:
            beside = folder.parent.glob("/".join(("*", *map(record.file_name, column), "*.json")))
            found = [_seconds(path) for path in beside]
            if found:
                spent[column] = found
    known = [second for found in spent.values() for second in found]
    if not known:
        return f"{told}, no time known before the first"
    means = {column: sum(found) / len(found) for column, found in spent.items()}
    return f"{told}, {_time(sum(means.get(column, sum(known) / len(known)) for column in left))} to go"


def _seconds(path: Path) -> float:
    try:
        return float(sum(json.loads(path.read_text(encoding="utf-8"))["seconds"].values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return 0.0


def _time(seconds: float) -> str:
    return f"about {seconds:.0f} seconds" if seconds < 100 else f"about {seconds / 60:.0f} minutes"
