"""Run the matrix: load a checkpoint once a task, fit a method once, evaluate every cell, write its record."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby

from attnbench.errors import UserError
from attnbench.inputs import models
from attnbench.inputs.settings import Settings
from attnbench.matrix.console import Listener, Once, Silent
from attnbench.matrix.desk import Desk
from attnbench.matrix.ledger import Ledger, recorded, refuse
from attnbench.matrix.plan import Cell
from attnbench.matrix.sharing.leases import Leases
from attnbench.matrix.sharing.schedule import Schedule
from attnbench.matrix.watchdog import Watchdog
from attnbench.methods import spec, verdicts
from attnbench.methods.code import code_of
from attnbench.methods.fields import amount_field
from attnbench.methods.plugins import option
from attnbench.records import record
from attnbench.records.record import RECORDS, Record

NAMED = 4  # methods that a warning lists


def unproven(specs: Iterable[str]) -> Iterator[str]:
    """Yield a warning for what may be a mistake: methods that fail `attnbench check`, or never went through
    it, and shares that were meant as percent.
    """
    specs = list(specs)
    for text in specs:
        yield from _shares(text)
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


def _shares(text: str) -> Iterator[str]:
    """Ask of an amount in percent that is below one whether a share was meant."""
    for term in spec.parse(text):
        amount = amount_field(type(term))
        value = getattr(term, amount.name) if amount is not None else None
        if amount is not None and amount.name == "percent" and value is not None and 0 < value < 1:
            name, own = term.name.partition(":")[0], spec.format([term])
            meant = own.replace(f"{name}{value:g}", f"{name}{100 * value:g}", 1)
            yield f"warning: {own} is {value:g} %: did you mean {meant}?"


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

    Several runs on one folder share its cells: none is measured by two of them, and each returns all.
    """
    heard = Once(listener or Silent())
    check(cells, settings, records, replace)
    found, mistakes = dict[Cell, Record](), list[UserError]()
    columns = by_column(cells)
    strict = debug or fail_fast
    with contextlib.ExitStack() as stack:
        watchdog = cell_timeout and stack.enter_context(contextlib.closing(Watchdog(cell_timeout)))
        leases = stack.enter_context(contextlib.closing(Leases(records)))
        ledger = Ledger(records, replace, watchdog or None, leases)
        names = recorded(cells, settings)
        ledger.begin(names.values())
        schedule, at = Schedule(grouped(cells, ledger, names)), None
        desk = Desk(settings, ledger, heard, alone=len(columns) == 1, force=force, strict=strict)
        heard.start(len(cells))
        for line in unproven(dict.fromkeys(cell.method for cell in cells)):
            heard.line(line)
        while True:
            taken = schedule.take(at)
            if taken is None:
                if not (left := schedule.left):
                    break
                heard.line(waiting([leases.owner(" · ".join(names[cell].values())) for cell in left]))
                leases.wait()
                schedule.again()
                continue
            at, cell = taken
            heard.begin(" · ".join(names[cell].values()))
            try:
                done = desk.measure(cell, names[cell], columns[cell.model, cell.task])
            except UserError as error:
                if len(columns) == 1 or strict:
                    raise
                mistakes.append(error)
                heard.line(f"{models.label(cell.model)} · {cell.task}: not measured: {error}")
                schedule.drop(at)
                continue
            if done is None:
                schedule.elsewhere(at, cell)
                continue
            schedule.done(at, cell)
            found[cell], reused = done
            heard.finish(found[cell], reused)
            if fail_fast and found[cell].status == "failed":
                return [*found.values()]
    return complete(cells, found, mistakes, records)


def check(cells: Sequence[Cell], settings: Settings, records: str, replace: bool) -> None:
    """Raise UserError for what keeps cells from being measured, or recorded, before any is."""
    for cell in cells:
        code_of(spec.parse(cell.method))  # of the code as it is loaded now
    record.check_writable(records)
    record.clear_partial(records)
    if not replace:
        refuse(cells, settings, records)


def by_column(cells: Iterable[Cell]) -> dict[tuple[str, str], list[Cell]]:
    """Return the cells of each model and task."""
    found: dict[tuple[str, str], list[Cell]] = {}
    for cell in cells:
        found.setdefault((cell.model, cell.task), []).append(cell)
    return found


def grouped(
    cells: Sequence[Cell], ledger: Ledger, names: Mapping[Cell, dict[str, str]]
) -> Iterator[tuple[tuple[str, str], list[Cell]]]:
    """Yield cells by column in running order; what has ended a process comes after all others."""
    last = sorted(cells, key=lambda cell: ledger.postponed(names[cell]))
    for column, group in groupby(last, key=lambda cell: (cell.model, cell.task)):
        yield column, list(group)


def waiting(owners: Sequence[str]) -> str:
    """Say in a line for whom a run waits."""
    cells = "1 cell" if len(owners) == 1 else f"{len(owners)} cells"
    others = "; ".join(dict.fromkeys(filter(None, owners)))
    return f"waiting for {cells} that other runs measure" + (f": {others}" if others else "")


def complete(
    cells: Sequence[Cell], found: Mapping[Cell, Record], mistakes: Sequence[UserError], records: str
) -> list[Record]:
    """Return what was measured in the order of the cells. Raises Incomplete where a column was not."""
    measured = [found[cell] for cell in cells if cell in found]
    if mistakes:
        pairs = f"{len(mistakes)} of {len(by_column(cells))} pairs of model and task"
        raise Incomplete(
            f"{pairs} could not be measured, the others are: "
            f"attnbench leaderboard --records {records} shows them. First reason: {mistakes[0]}",
            measured,
        ) from mistakes[0]
    return measured
