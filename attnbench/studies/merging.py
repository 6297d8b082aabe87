"""Records of looks of several folders in one, as records of runs are merged."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from attnbench.records import merging
from attnbench.records.record import Record
from attnbench.studies import looks


def merge(folders: Sequence[str | Path], into: str | Path) -> merging.Merged:
    """Copy the looks of folders into another. Of one identity the first that was measured stands for all.

    Those that differ in what changes a number, and what cannot be read, are named and left where they are.
    Raises UserError where one cannot be written.
    """
    found = merging.Merged()
    places: dict[Path, list[Record]] = {}
    for folder in folders:
        for file in sorted(Path(folder, looks.FOLDER).glob("*/*/*/*.json")):
            try:
                item = looks.as_record(file)
            except ValueError as error:
                found.problems.append(f"passed over: {error}")
                continue
            places.setdefault(looks.path_of(into, item.cell), []).append(item)
    for path, items in places.items():
        merging.place(found, path, items, looks.as_record)
    return found
