"""Records of several folders in one: by path, nothing overwritten, a conflict named and not resolved."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from attnbench.errors import UserError, near_file
from attnbench.records import record
from attnbench.records.difference import changes
from attnbench.records.record import Record


@dataclass
class Merged:
    """How many records were written, how many were there already, and a line for each that was neither."""

    written: int = 0
    there: int = 0
    problems: list[str] = field(default_factory=list)


def merge(folders: Sequence[str | Path], into: str | Path) -> Merged:
    """Copy the records of folders into another. Of one identity the first that was measured stands for all.

    Records that differ in what changes a number, and a measured one whose place is taken by one that was not
    measured, are named and left where they are; so is what cannot be read. Raises UserError.
    """
    for folder in folders:
        if not Path(folder).is_dir():
            raise UserError(f"no folder of records '{folder}'.{near_file(folder)}")
    record.check_writable(into)
    found = Merged()
    places: dict[Path, list[Record]] = {}
    for folder in folders:
        for file in sorted(Path(folder).glob("*/*/*.json")):
            try:
                item = record.read(file)
            except ValueError as error:
                found.problems.append(f"passed over: {error}")
                continue
            places.setdefault(record.path_of(into, item.cell), []).append(item)
    for path, items in places.items():
        place(found, path, items, record.read)
    return found


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
    return "; ".join(changes(first, item))
