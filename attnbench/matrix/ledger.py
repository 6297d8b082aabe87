"""The records of a run: what is there, what may give way, and which cell is being measured by whom."""

from __future__ import annotations

import contextlib
import functools
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from attnbench.errors import NotApplicable, UserError
from attnbench.inputs import models, tasks
from attnbench.inputs.settings import Settings
from attnbench.matrix import started
from attnbench.matrix.believed import doubt
from attnbench.matrix.plan import Cell
from attnbench.matrix.sharing.leases import Leases, Lost
from attnbench.matrix.watchdog import Watchdog
from attnbench.records import provenance, record, whereabouts
from attnbench.records.difference import ANOTHER, changes, conflict, same_place
from attnbench.records.record import Record

ENDED = "ended its process"  # in the provenance of a cell that did: how often
TIMES = 2  # after which it is not tried again: a kill from outside comes but once


class Ledger:
    """A folder of records that a run adds to; what measures something else gives way only with `replace`.

    With `leases` other runs may add to it at the same time.
    """

    def __init__(
        self,
        folder: str | Path,
        replace: bool = False,
        watchdog: Watchdog | None = None,
        leases: Leases | None = None,
    ) -> None:
        self.folder, self.replace, self.watchdog = Path(folder).absolute(), replace, watchdog
        self.leases = leases
        self._before: dict[Path, tuple[int, int] | None] = {}

    def begin(self, cells: Iterable[dict[str, str]]) -> None:
        """Keep what is there before these cells are measured: what another run adds is not measured again."""
        for cell in cells:
            path = record.path_of(self.folder, cell)
            self._before[path] = _stamp(path)

    def stamp(self, cell: dict[str, str]) -> tuple[int, int] | None:
        """Return what tells the record that was there before from a later one, None where there was none."""
        return self._before[record.path_of(self.folder, cell)]

    def resume(self, cell: dict[str, str], stamp: Sequence[int] | None) -> None:
        """Begin a cell as of the run that it is measured for, by that run's stamp."""
        self._before[record.path_of(self.folder, cell)] = (stamp[0], stamp[1]) if stamp else None

    def done(self, cell: dict[str, str]) -> None:
        """Take a cell's record for one of this run."""
        self._before[record.path_of(self.folder, cell)] = None

    def fresh(self, cell: dict[str, str]) -> bool:
        """Tell whether a cell was recorded since it began, by whomever."""
        path = record.path_of(self.folder, cell)
        return path in self._before and _stamp(path) not in (None, self._before[path])

    @contextlib.contextmanager
    def held(self, cell: dict[str, str]) -> Iterator[bool]:
        """Hold a cell's lease, and yield whether it was to be had. Where it is lost the block just ends."""
        name = " · ".join(cell.values())
        try:
            mine = self.leases is None or self.leases.take(name)
        except OSError as error:
            raise self._unwritable(error) from error
        try:
            with contextlib.suppress(Lost):
                yield mine
        finally:
            if mine and self.leases is not None:
                self.leases.release(name)

    def existing(self, cell: dict[str, str]) -> Record | None:
        """Return a cell's record, or None."""
        return record.existing(self.folder, cell)

    def write(self, item: Record) -> None:
        """Write a record. Raises UserError where another run has meanwhile recorded something else there.

        Raises Lost where another run has taken over the cell.
        What no record can hold makes a failed cell of it.
        """
        if self.leases is not None and not self.leases.mine(" · ".join(item.cell.values())):
            raise Lost
        item.date = item.date or provenance.now()
        old = None if self.replace else self.existing(item.cell)
        if old is not None and (why := conflict(old, item)) is not None:
            name = " · ".join(item.cell.values())
            raise UserError(f"{name}: another run has recorded it meanwhile: it {why}. {_ways()}")
        try:
            record.require_readable(item)
            record.write(self.folder, item)
        except (ValueError, TypeError, RecursionError) as error:
            item.status, item.error = "failed", f"{item.cell['method']}: no record can hold it: {error}"
            item.metrics, item.measured, item.fitted, item.receipt, item.scores = {}, {}, {}, {}, {}
            record.write(self.folder, item)

    def replaced(self, items: Sequence[Record]) -> str:
        """Say in a line how many measured records will give way to these, and why; nothing for none.

        Raises UserError where one may not: only with the data read is it known that they are others.
        """
        pairs = [
            (old, item) for item in items if (old := self.existing(item.cell)) and old.status == "measured"
        ]
        others = [(old, why) for old, item in pairs if not self.replace and (why := conflict(old, item))]
        if others:
            raise _otherwise(len(pairs), self.folder.name, [_measured(*each) for each in others])
        found = [told for old, item in pairs if (told := changes(old, item) or [*filter(None, [doubt(old)])])]
        if not found:
            return ""
        reasons = Counter(reason for each in found for reason in each)
        told = [reason if n == len(found) else f"{reason} ({n})" for reason, n in reasons.items()]
        records = "1 record is" if len(found) == 1 else f"{len(found)} records are"
        return f"{records} replaced: {'; '.join(told)}"

    @contextlib.contextmanager
    def measuring(self, item: Record) -> Iterator[None]:
        """Note which cell is measured while the block runs, and watch its time where that is limited."""
        path = record.path_of(self.folder, item.cell)
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(started.noted(path, item.provenance["identity"]))
            except OSError as error:
                raise self._unwritable(error) from error
            if self.watchdog is not None:
                self.watchdog.start(" · ".join(item.cell.values()), str(started.place(path)))
                stack.callback(self.watchdog.stop)
            yield

    def ended(self, item: Record, old: Record | None) -> bool:
        """Tell whether measuring this cell ended a process; then its record says that it failed, and how."""
        how = started.left(record.path_of(self.folder, item.cell), item.provenance.get("identity"))
        if how is None:
            return False
        again = old is not None and bool(_ends(old)) and provenance.holds(old.provenance, item.provenance)
        times = TIMES if again or how != started.UNKNOWN else 1
        way = "--force tries it again" if times == TIMES else "the next run tries it again, after all others"
        item.status, item.error = "failed", f"{item.cell['method']}: {how}; {way}"
        item.provenance[ENDED] = times
        return True

    def postponed(self, cell: dict[str, str]) -> int:
        """Return how often a cell has ended its process, TIMES where that is for good."""
        old = self.existing(cell)
        return _ends(old) if old is not None else 0

    def settled(self, old: Record) -> bool:
        """Tell whether a record need not be tried again.

        What failed is, but not what always ends a process, and not what has failed since this run began. What
        cannot be what was measured is, too.
        """
        if doubt(old):
            return False
        return old.status != "failed" or _ends(old) >= TIMES or self.fresh(old.cell)

    def _unwritable(self, error: OSError) -> UserError:
        return UserError(f"--records {self.folder}: cannot be written: {error.strerror or error}")


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns


def _ends(old: Record) -> int:
    times = old.provenance.get(ENDED) if old.status == "failed" else 0
    return times if isinstance(times, int) else 0


def recorded(cells: Sequence[Cell], settings: Settings) -> dict[Cell, dict[str, str]]:
    """Return each cell by the names that records have."""
    labels = {name: models.label(name) for name in {cell.model for cell in cells}}
    names = {task: tasks.find(task, settings.include_path).name for task in {cell.task for cell in cells}}
    return {
        cell: {"model": labels[cell.model], "task": names[cell.task], "method": cell.method} for cell in cells
    }


def refuse(cells: Sequence[Cell], settings: Settings, folder: str) -> None:
    """Raise UserError where cells would replace measurements of other settings or another checkpoint."""
    found: list[str] = []
    columns: dict[tuple[str, str], _Source] = {}
    for cell, named in recorded(cells, settings).items():
        old = record.existing(folder, named)
        if old is None or old.status != "measured":
            continue
        column = (cell.model, cell.task)
        source = columns[column] = columns.get(column) or _Source(*column, settings)
        new = Record(named, "measured", settings=settings.recorded(), provenance=source.told)
        if same_place(old, new, "checkpoint") is not True:
            new.provenance = {**source.told, "fingerprints": source.prints}
        if (why := conflict(old, new)) is not None:
            found.append(_measured(old, why))
    if found:
        raise _otherwise(len(cells), folder, found)


def _measured(old: Record, why: str) -> str:
    return f"{' · '.join(old.cell.values())} {why}"


def _otherwise(cells: int, folder: str, found: Sequence[str]) -> UserError:
    """Build the error for records that may not give way, the first of `found` told."""
    many = f"{len(found)} of {cells} cells are" if cells > 1 else "1 cell is"
    weights = any(ANOTHER["checkpoint"] in each for each in found)
    return UserError(f"{many} recorded otherwise in {folder}: there {found[0]}. {_ways(weights)}")


class _Source:
    """What a column is measured of, known without its data: nothing where the column will say why not."""

    def __init__(self, model: str, task: str, settings: Settings) -> None:
        self.told: dict[str, Any] = {}
        self._checkpoint: models.Checkpoint | None = None
        with contextlib.suppress(UserError, NotApplicable):
            self._checkpoint = models.find(model, task, settings.trust_remote_code)
            places = whereabouts.of(self._checkpoint, task, settings)
            self.told = {**provenance.origin(self._checkpoint), "places": places}

    @functools.cached_property
    def prints(self) -> dict[str, str]:
        """Hash what is loaded of the checkpoint: minutes for large ones."""
        with contextlib.suppress(UserError):
            if self._checkpoint is not None:
                checkpoint = self._checkpoint
                return {"checkpoint": checkpoint.fingerprint, provenance.COMPANIONS: checkpoint.companions}
        return {}


def _ways(weights: bool = False) -> str:
    own = "--models NAME=PATH gives this model a name of its own, " if weights else ""
    return f"{own}--records DIR keeps both, `attnbench run --replace` replaces what is there."
