"""A board: the records that a suite asks for, or all there are, compared and put in order. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from attnbench.methods.families import name_without_seed
from attnbench.records.record import Record
from attnbench.statistics import against_dense, ordering
from attnbench.statistics.row import Row

if TYPE_CHECKING:
    from attnbench.boards.suite import Suite

POCKET = "pocket-"
TITLES = {False: "Models", True: "Pocket models (generated text: a smoke test, not evidence)"}
Cell = tuple[str, str, str]


@dataclass(frozen=True)
class Section:
    """One table: published and other real models, or pocket models; a claim is corrected within it."""

    pocket: bool
    records: list[Record]
    rows: list[Row]

    @property
    def title(self) -> str:
        return TITLES[self.pocket]


@dataclass(frozen=True)
class Board:
    """Tables, and what the suite asks for that no record has."""

    sections: list[Section]
    suite: Suite | None = None
    absent: list[str] = field(default_factory=list)

    @property
    def records(self) -> list[Record]:
        return [item for section in self.sections for item in section.records]


def cell_of(item: Record) -> Cell:
    return item.cell["model"], item.cell["task"], item.cell["method"]


def build(
    records: Iterable[Record],
    suite: Suite | None = None,
    margin: float | None = None,
    sort: str = ordering.FAMILY,
) -> Board:
    """Make the board of a suite, or of all records; the margin is the suite's unless given.

    Raises UserError where records contradict each other: see against_dense.rows.
    """
    items = list(records)
    absent: list[str] = []
    if suite is not None:
        margin = suite.margin if margin is None else margin
        items, absent = _of_suite(items, suite)
    boards: dict[bool, list[Record]] = {False: [], True: []}
    for item in items:
        boards[item.cell["model"].startswith(POCKET)].append(item)
    margin = against_dense.MARGIN if margin is None else margin
    sections = [
        Section(pocket, mine, against_dense.rows(mine, margin, sort))
        for pocket, mine in boards.items()
        if mine
    ]
    return Board(sections, suite, absent)


def _of_suite(records: Sequence[Record], suite: Suite) -> tuple[list[Record], list[str]]:
    """Keep what the suite asks for, in its order; add a record of status "missing" for what is not there."""
    found: dict[Cell, list[Record]] = {}
    for item in records:
        found.setdefault(cell_of(item), []).append(item)
    chosen, absent = [], []
    columns = [(column, suite.specs(part)) for part in suite.parts for column in part.columns()]
    for column, specs in columns:
        cells = {spec: found.get((*column, spec), []) for spec in specs}
        if not any(cells.values()):
            absent.append(f"{' on '.join(column)}: not measured.")
            continue
        seeds: dict[str, list[str]] = {}
        for spec in specs:
            seeds.setdefault(name_without_seed(spec), []).append(spec)
        for name, members in seeds.items():
            there = [spec for spec in members if cells[spec]]
            chosen += [item for spec in there for item in cells[spec]]
            if not there:
                cell = dict(zip(("model", "task", "method"), (*column, name), strict=True))
                chosen.append(Record(cell, "missing", "not measured"))
            elif len(there) < len(members):
                told = f"{len(there)} of {len(members)} seeds measured"
                absent.append(f"{' on '.join(column)}, {name}: {told}.")
    return chosen, absent
