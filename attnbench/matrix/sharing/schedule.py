"""Which cell is measured next, and by whom: a column's dense first, each checkpoint by as few as can be."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from attnbench.matrix.plan import Cell
from attnbench.methods.controls import CONTROLS

DENSE = CONTROLS[0]


@dataclass(eq=False)
class Group:
    """The cells of one column that are still to be handed out, in order.

    `later` are those that another run is measuring; `begun` tells whether anybody here is at this column.
    """

    model: str
    task: str
    cells: list[Cell]
    later: list[Cell] = field(default_factory=list)
    ready: bool = True
    begun: bool = False
    shared: bool = False

    @property
    def next(self) -> Cell | None:
        """Return the next cell, nothing where none is left or all have to wait for dense."""
        first = self.cells[0] if self.cells else None
        return first if self.ready or (first is not None and first.method == DENSE) else None


class Schedule:
    """Hand out the cells of groups, which come in order of preference."""

    def __init__(self, groups: Iterable[tuple[tuple[str, str], list[Cell]]]) -> None:
        self._groups: list[Group] = []
        waiting: set[tuple[str, str]] = set()
        for column, cells in groups:
            waiting |= {column} if any(cell.method == DENSE for cell in cells) else set()
            self._groups.append(Group(*column, cells, ready=column not in waiting))

    def take(self, at: Group | None = None) -> tuple[Group, Cell] | None:
        """Return the next cell for who has the column `at` open; None where there is none for now.

        First come its own column's, then those of columns that nobody has opened, then it helps where most
        is left. Columns that another run is at come after those that are nobody's.
        """
        free = [group for group in self._groups if group.next is not None]
        if not free:
            return None
        untouched = next((group for group in free if not group.begun and not group.shared), None)
        if at in free and at is not None and not (at.shared and untouched):
            group = at
        else:
            group = untouched or max(free, key=lambda group: len(group.cells))
        group.begun = True
        return group, group.cells.pop(0)

    def done(self, group: Group, cell: Cell) -> None:
        """Note that a cell has its record; that of dense lets the others of its column begin."""
        for each in self._groups:
            same = (each.model, each.task) == (group.model, group.task)
            each.ready |= same and cell.method == DENSE

    def elsewhere(self, group: Group, cell: Cell) -> None:
        """Put a cell back that another run is measuring, until `again`."""
        group.later.append(cell)
        group.shared = True

    def back(self, group: Group, cell: Cell) -> None:
        """Put a cell back whose worker is gone."""
        group.cells.insert(0, cell)

    def drop(self, group: Group) -> None:
        """Give up what is left of a column."""
        for each in self._groups:
            if (each.model, each.task) == (group.model, group.task):
                each.cells, each.later = [], []

    def again(self) -> None:
        """Offer anew what others were measuring."""
        for group in self._groups:
            group.cells, group.later = [*group.later, *group.cells], []

    @property
    def left(self) -> list[Cell]:
        """List the cells that are not handed out."""
        return [cell for group in self._groups for cell in (*group.cells, *group.later)]
