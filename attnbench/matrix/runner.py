"""Run the matrix: load a checkpoint once a task, fit a method once, evaluate every cell, write its record."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

from attnbench.errors import UserError
from attnbench.inputs import models
from attnbench.inputs.settings import Settings
from attnbench.matrix.column import Column
from attnbench.matrix.console import Listener, Silent
from attnbench.matrix.plan import Cell
from attnbench.methods import spec, verdicts
from attnbench.methods.code import code_of
from attnbench.methods.plugins import option
from attnbench.records import record
from attnbench.records.record import RECORDS, Record

NAMED = 4  # methods that a warning lists


def unproven(specs: Iterable[str]) -> Iterator[str]:
    """Yield a warning for the methods that fail `attnbench check`, and one for those never checked."""
    found: dict[str, list[str]] = {}
    for text in specs:
        verdict = verdicts.of(spec.parse(text))
        found.setdefault(verdict, []).append(text)
    for verdict, texts in found.items():
        named = ", ".join(texts[:NAMED]) + (", …" if len(texts) > NAMED else "")
        if verdict.startswith(verdicts.FAILED):
            checks = verdict.partition(": ")[2]
            yield f"warning: {named}: fails `attnbench check` ({checks}): its rows are marked"
        elif verdict == verdicts.UNCHECKED:
            own = next((option(type(each)) for each in spec.parse(texts[0]) if option(type(each))), "")
            told = f"`attnbench check {texts[0]}{own}` does it, until then its rows are marked"
            yield f"warning: {named}: its code was never checked: {told}"


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
    for line in unproven(dict.fromkeys(cell.method for cell in cells)):
        heard.line(line)
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
