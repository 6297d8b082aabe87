"""Records of several folders in one: by path, nothing overwritten, a conflict named and not resolved."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from attnbench.errors import UserError, near_file
from attnbench.records import record
from attnbench.records.difference import changes
from attnbench.records.provenance import COMPANIONS
from attnbench.records.record import Record

NEAR = 0.05  # of a value, or of its scale: the samples that rounding may turn on another machine


@dataclass
class Merged:
    """How many records were written, how many were there already, and a line for each that was neither."""

    written: int = 0
    there: int = 0
    problems: list[str] = field(default_factory=list)


def merge(folders: Sequence[str | Path], into: str | Path) -> Merged:
    """Copy the records of folders into another. Of one identity the first that was measured stands for all.

    Named and left where they are: records that differ in what changes a number, or in the numbers themselves
    by more than rounding; a measured one whose place is taken by one that was not measured; one of other
    weights, or in another dtype, than those that its model has there on that task; what cannot be read.
    Raises UserError.
    """
    for folder in folders:
        if not Path(folder).is_dir():
            raise UserError(f"no folder of records '{folder}'.{near_file(folder)}")
    record.check_writable(into)
    found = Merged()
    places: dict[Path, list[Record]] = {}
    columns: dict[Path, Record] = {}
    for folder in folders:
        for file in sorted(Path(folder).glob("*/*/*.json")):
            try:
                item = record.read(file)
            except ValueError as error:
                found.problems.append(f"passed over: {error}")
                continue
            places.setdefault(record.path_of(into, item.cell), []).append(item)
    for path, items in places.items():
        if path.parent not in columns and (first := _first(path.parent, items)) is not None:
            columns[path.parent] = first
        first = None if path.exists() else columns.get(path.parent)
        if first is None or not all(_misplaced(item, first) for item in items):
            place(found, path, items, record.read)
            continue
        for item in items:
            name = " · ".join(item.cell.values())
            found.problems.append(
                f"{name}: {item.file} is of other weights, or in another dtype, than {first.file}"
            )
    return found


def _first(column: Path, items: Sequence[Record]) -> Record | None:
    """Return a measured record of a column: of those that are there already, or of those to come."""
    for file in sorted(column.glob("*.json")):
        with contextlib.suppress(ValueError):
            if (there := record.read(file)).status == "measured":
                return there
    return next((item for item in items if item.status == "measured"), None)


def _misplaced(item: Record, first: Record) -> bool:
    """Tell whether a measured record is of another model than its column is."""
    if item.status != "measured":
        return False
    prints = [each.provenance.get("fingerprints", {}) for each in (item, first)]
    pairs = [tuple(each.get(name) for each in prints) for name in ("checkpoint", COMPANIONS)]
    pairs.append((item.settings.get("dtype"), first.settings.get("dtype")))
    return any(None not in (ours, theirs) and ours != theirs for ours, theirs in pairs)


def place(found: Merged, path: Path, items: Sequence[Record], read: Callable[[Path], Record]) -> None:
    """Bring one record to its place, of those that are for it, and count or name what became of them."""
    try:
        old = read(path) if path.exists() else None
    except ValueError as error:
        found.problems.append(f"kept as it is: {error}")
        return
    measured = [item for item in items if item.status == "measured"]
    first = old or (measured or items)[0]
    for item in measured:
        if why := _apart(first, item):
            name = " · ".join(item.cell.values())
            found.problems.append(f"{name}: {item.file} is not as {first.file}: {why}")
            return
    if old is not None:
        found.there += 1
        return
    source = Path(first.file)
    try:
        record.put(path, source.with_suffix(".npz").read_bytes(), source.read_bytes())
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror or error}") from error
    found.written += 1


def _apart(first: Record, item: Record) -> str:
    """Say why a record may not stand for a measured one, nothing where it may."""
    if item.cell != first.cell:
        return f"that is of {' · '.join(first.cell.values())}, whose file it shares"
    if first.status != "measured":
        return f"that is {first.status}"
    return "; ".join(changes(first, item)) or _disagree(first, item)


def _disagree(first: Record, item: Record) -> str:
    """Name the first metric by which two records of one identity are apart by more than rounding moves."""
    for name, metric in first.metrics.items():
        ours, theirs = metric.get("value"), item.metrics.get(name, {}).get("value")
        if ours == theirs:
            continue
        if ours is None or theirs is None or not math.isclose(ours, theirs, rel_tol=NEAR, abs_tol=NEAR):
            return f"measured alike, its {name} is {theirs}, there {ours}"
    return ""
