"""Run the matrix: load a checkpoint once a task, fit a method once, evaluate every cell, write its record."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

from attnbench.errors import UserError
from attnbench.inputs import models
from attnbench.inputs.settings import Settings
from attnbench.matrix.column import Column
from attnbench.matrix.console import Listener, Silent
from attnbench.matrix.ledger import Ledger, recorded, refuse
from attnbench.matrix.plan import Cell
from attnbench.matrix.watchdog import Watchdog
from attnbench.methods import spec, verdicts
from attnbench.methods.code import code_of
from attnbench.methods.plugins import option
from attnbench.methods.staying import staying
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
    replace: bool = False,
    cell_timeout: float | None = None,
    fail_fast: bool = False,
    debug: bool = False,
    listener: Listener | None = None,
) -> list[Record]:
    """Measure cells, a column after the other; one whose record still holds is not measured again.

    Returns a record a cell. A measurement of other settings or of another checkpoint gives way only with
    `replace`: else UserError, before anything is measured. Raises UserError where a model or a task cannot be
    had, of several columns after the others are measured (Incomplete); a method that fails fails its cell
    only, unless `fail_fast`. Of several columns one whose model is for other tasks is not applicable.

    A cell that ends the process, as one of more than `cell_timeout` seconds does, has failed for the next
    run. One that may have been killed from outside is tried once more, after all others.
    """
    heard = listener or Silent()
    for cell in cells:
        code_of(spec.parse(cell.method))  # of the code as it is loaded now
    record.check_writable(records)
    record.clear_partial(records)
    if not replace:
        refuse(cells, settings, records)
    found, mistakes = dict[Cell, Record](), list[UserError]()
    columns = len({(cell.model, cell.task) for cell in cells})
    with contextlib.ExitStack() as stack:
        watchdog = cell_timeout and stack.enter_context(contextlib.closing(Watchdog(cell_timeout)))
        ledger = Ledger(records, replace, watchdog or None)
        names = recorded(cells, settings)
        last = sorted(cells, key=lambda cell: ledger.postponed(names[cell]))
        heard.start(len(cells))
        for line in unproven(dict.fromkeys(cell.method for cell in cells)):
            heard.line(line)
        for (model, task), group in groupby(last, key=lambda cell: (cell.model, cell.task)):
            try:
                with staying():
                    column = Column(model, task, settings, ledger, heard, alone=columns == 1)
                mine = [(cell, spec.parse(cell.method)) for cell in group]
                column.announce([methods for _, methods in mine])
                for cell, methods in mine:
                    with staying():
                        found[cell], reused = column.measure(methods, force, debug or fail_fast)
                    heard.finish(found[cell], reused)
                    if fail_fast and found[cell].status == "failed":
                        return [*found.values()]
            except UserError as error:
                if columns == 1 or debug or fail_fast:
                    raise
                mistakes.append(error)
                heard.line(f"{models.label(model)} · {task}: not measured: {error}")
    measured = [found[cell] for cell in cells if cell in found]
    if mistakes:
        raise Incomplete(
            f"{len(mistakes)} of {columns} pairs of model and task could not be measured, the others are: "
            f"attnbench leaderboard --records {records} shows them. First reason: {mistakes[0]}",
            measured,
        ) from mistakes[0]
    return measured
