"""Run the matrix: load a checkpoint once a task, fit a method once, evaluate every cell, write its record."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING, Any

from attnbench.errors import UserError
from attnbench.inputs import models as models_
from attnbench.matrix import plan
from attnbench.matrix.bench import Settings
from attnbench.matrix.column import Column
from attnbench.matrix.console import Listener, Silent
from attnbench.methods import spec
from attnbench.methods.code import code_of
from attnbench.records import record
from attnbench.records.record import RECORDS, Record

if TYPE_CHECKING:
    import pandas


@dataclass
class Run:
    """The records of a run, old ones that still hold included."""

    records: list[Record] = field(default_factory=list)

    @property
    def failed(self) -> list[Record]:
        return [item for item in self.records if item.status == "failed"]

    def table(self, format: str = "text", margin: float = 0.01) -> str:
        """Render the comparison: "text" for a terminal, "md" for markdown."""
        from attnbench.boards.tables.leaderboard import render

        return render(self.records, format=format, margin=margin)

    def to_pandas(self) -> pandas.DataFrame:
        """Return one row a cell and metric, with the paired difference to dense."""
        from attnbench.statistics import compare

        return compare.to_frame(compare.rows(self.records))


class Incomplete(UserError):
    """A mistake in a part of what was asked for; `run` holds what was measured all the same."""

    def __init__(self, text: str, run: Run) -> None:
        super().__init__(text)
        self.run = run


def run(
    models: Iterable[str] | str,
    methods: Iterable[str] | str = (),
    tasks: Iterable[str] | str = (),
    *,
    repeats: int = plan.REPEATS,
    records: str = RECORDS,
    force: bool = False,
    fail_fast: bool = False,
    debug: bool = False,
    listener: Listener | None = None,
    **settings: Any,
) -> Run:
    """Measure every model with every method on every task; a cell whose record still holds is not run again.

    >>> run("bert", "logquant3,prune80", limit=100).table()  # doctest: +SKIP

    `settings` are the fields of Settings: limit, batch_size, batch_tokens, seed, device, dtype, calibration,
    include_path, trust_remote_code, measure. Raises UserError for anything asked wrongly: a model or a task
    that cannot be had after the others are measured (Incomplete); a method that fails fails its cell only,
    unless `fail_fast`. Of several columns one whose model is for other tasks is not applicable.
    """
    names, specs, wanted = (
        [value] if isinstance(value, str) else list(value) for value in (models, methods, tasks)
    )
    chosen = Settings(**settings)
    cells = plan.plan(names, specs, wanted, repeats, chosen.seed, chosen.include_path)
    heard = listener or Silent()
    for cell in cells:
        code_of(spec.parse(cell.method))  # of the code as it is loaded now
    record.check_writable(records)
    record.clear_partial(records)
    heard.start(len(cells))
    result, mistakes = Run(), list[UserError]()
    columns = len({(cell.model, cell.task) for cell in cells})
    for (model, task), group in groupby(cells, key=lambda cell: (cell.model, cell.task)):
        try:
            matrix = Column(model, task, chosen, records, heard, alone=columns == 1)
            for cell in group:
                item, reused = matrix.measure(spec.parse(cell.method), force, debug or fail_fast)
                result.records.append(item)
                heard.finish(item, reused)
                if fail_fast and item.status == "failed":
                    return result
        except UserError as error:
            if columns == 1 or debug or fail_fast:
                raise
            mistakes.append(error)
            heard.line(f"{models_.label(model)} · {task}: not measured: {error}")
    if mistakes:
        raise Incomplete(
            f"{len(mistakes)} of {columns} pairs of model and task could not be measured, the others are: "
            f"attnbench leaderboard --records {records} shows them. First reason: {mistakes[0]}",
            result,
        ) from mistakes[0]
    return result
