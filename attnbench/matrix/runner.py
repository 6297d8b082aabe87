"""Run the matrix: load a checkpoint once a task, fit a method once, evaluate every cell, write its record."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from attnbench.errors import UserError
from attnbench.inputs import models
from attnbench.inputs.settings import Settings
from attnbench.matrix.column import Column
from attnbench.matrix.console import Listener, Silent
from attnbench.matrix.plan import Cell
from attnbench.methods import spec
from attnbench.methods.code import code_of
from attnbench.records import record
from attnbench.records.record import RECORDS, Record


class Incomplete(UserError):
    """A mistake in a part of what was asked for; `records` holds what was measured all the same."""

    def __init__(self, text: str, records: list[Record]) -> None:
        super().__init__(text)
        self.records = records


def run(
    cells: Sequence[Cell],
    settings: Settings,
    records: str = RECORDS,
    *,
    force: bool = False,
    fail_fast: bool = False,
    debug: bool = False,
    listener: Listener | None = None,
) -> list[Record]:
    """Measure cells, a column after the other; one whose record still holds is not measured again.

    Returns a record a cell. Raises UserError where a model or a task cannot be had, of several columns after
    the others are measured (Incomplete); a method that fails fails its cell only, unless `fail_fast`. Of
    several columns one whose model is for other tasks is not applicable.
    """
    heard = listener or Silent()
    for cell in cells:
        code_of(spec.parse(cell.method))  # of the code as it is loaded now
    record.check_writable(records)
    record.clear_partial(records)
    heard.start(len(cells))
    found, mistakes = list[Record](), list[UserError]()
    columns = len({(cell.model, cell.task) for cell in cells})
    for (model, task), group in groupby(cells, key=lambda cell: (cell.model, cell.task)):
        try:
            column = Column(model, task, settings, records, heard, alone=columns == 1)
            for cell in group:
                item, reused = column.measure(spec.parse(cell.method), force, debug or fail_fast)
                found.append(item)
                heard.finish(item, reused)
                if fail_fast and item.status == "failed":
                    return found
        except UserError as error:
            if columns == 1 or debug or fail_fast:
                raise
            mistakes.append(error)
            heard.line(f"{models.label(model)} · {task}: not measured: {error}")
    if mistakes:
        raise Incomplete(
            f"{len(mistakes)} of {columns} pairs of model and task could not be measured, the others are: "
            f"attnbench leaderboard --records {records} shows them. First reason: {mistakes[0]}",
            found,
        ) from mistakes[0]
    return found
