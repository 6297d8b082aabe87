"""Where cells are measured one after the other: a column is kept open for as long as they are of it."""

from __future__ import annotations

from collections.abc import Sequence

from attnbench.inputs.settings import Settings
from attnbench.matrix.bench import Loaded
from attnbench.matrix.column import Column
from attnbench.matrix.console import Listener
from attnbench.matrix.ledger import Ledger
from attnbench.matrix.plan import Cell
from attnbench.matrix.sharing.schedule import DENSE
from attnbench.methods import spec
from attnbench.methods.staying import staying
from attnbench.records.record import Record


class Desk:
    """Measure cells as they are handed over, with one column open at a time."""

    def __init__(
        self,
        settings: Settings,
        ledger: Ledger,
        listener: Listener,
        *,
        alone: bool,
        force: bool,
        strict: bool,
    ) -> None:
        self.settings, self.ledger, self.listener = settings, ledger, listener
        self.alone, self.force, self.strict = alone, force, strict
        self._column: Column | None = None
        self._loaded = Loaded()
        self._key: tuple[str, str] | None = None
        self._announced: set[tuple[str, str]] = set()

    def measure(
        self, cell: Cell, named: dict[str, str], others: Sequence[Cell] = ()
    ) -> tuple[Record, bool] | None:
        """Return a cell's record and whether it was there already; None where another run is at the cell.

        `named` is the cell by its names in records, `others` are the cells of its column, of which is said
        once how many records give way. Raises UserError where model or task cannot be had.
        """
        found = None
        with self.ledger.held(named) as mine, staying():
            if mine:
                column = self._opened(cell, named, others)
                force = self.force and not self.ledger.fresh(named)
                found = column.measure(spec.parse(cell.method), force, self.strict)
        if found is not None:
            self.ledger.done(named)
        return found

    def _opened(self, cell: Cell, named: dict[str, str], others: Sequence[Cell]) -> Column:
        key = (cell.model, cell.task)
        if self._column is not None and self._key == key:
            return self._column
        self._column = None
        column = Column(*key, self.settings, self.ledger, self.listener, self.alone, self._loaded)
        if key not in self._announced:
            self._announced.add(key)
            column.announce([spec.parse(each.method) for each in others])
        if cell.method != DENSE and self.ledger.fresh({**named, "method": DENSE}):
            column.measure((), False, self.strict)  # what it gave is what the others are held against
        self._column, self._key = column, key
        return column
