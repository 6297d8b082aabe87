"""A run from Python: what it measured, as records, as a table, as a frame."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from attnbench.boards import board, in_memory
from attnbench.boards.page import static
from attnbench.boards.tables import leaderboard
from attnbench.boards.tables.text import Screen
from attnbench.errors import UserError, screen_width
from attnbench.matrix import runner
from attnbench.matrix.plan import plan
from attnbench.matrix.request import REPEATS, Names, Request
from attnbench.records.record import RECORDS, Record
from attnbench.statistics import against_dense, ordering

if TYPE_CHECKING:
    import pandas
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from attnbench.matrix.console import Listener


@dataclass(repr=False)
class Run:
    """The records of a run, old ones that still hold included; a prompt shows their comparison."""

    records: list[Record] = field(default_factory=list)

    @property
    def failed(self) -> list[Record]:
        return [item for item in self.records if item.status == "failed"]

    def table(
        self,
        format: str = "text",
        margin: float = against_dense.MARGIN,
        sort: str = ordering.FAMILY,
        legend: bool = False,
    ) -> static.Table:
        """Render the comparison: "text" for this terminal's columns, "md" for markdown; HTML in a notebook.

        Rows are by family and amount or, where `sort` is "score", by what they keep. `legend` explains the
        columns of text, as markdown always does.
        """
        screen = Screen(screen_width(), legend, whole=False)
        found = board.build(self.records, margin=margin, sort=sort)
        table = static.Table(leaderboard.write(found, format, screen=screen))
        table.html = static.of(found)
        return table

    def __repr__(self) -> str:
        return self.table()

    def _repr_html_(self) -> str:
        return self.table().html

    def to_pandas(self) -> pandas.DataFrame:
        """Return one row a cell and metric, with the paired difference to dense."""
        return against_dense.to_frame(against_dense.rows(self.records))


def run(
    models: Names | PreTrainedModel,
    methods: Names = (),
    tasks: Names = (),
    *,
    tokenizer: PreTrainedTokenizerBase | None = None,
    name: str | None = None,
    repeats: int = REPEATS,
    records: str = RECORDS,
    force: bool = False,
    replace: bool = False,
    fail_fast: bool = False,
    debug: bool = False,
    listener: Listener | None = None,
    **settings: Any,
) -> Run:
    """Measure every model with every method on every task; a cell whose record still holds is not run again.

    >>> run("bert", "logquant3,prune80", limit=100).table()  # doctest: +SKIP

    A model in memory is measured as it is, under `name` (its class's, unless given); its tokenizer is that of
    where it was loaded from, unless given.

    `settings` are the fields of Settings: limit, batch_size, batch_tokens, seed, device, dtype, calibration,
    include_path, trust_remote_code, measure, max_length. A model may be named: "run1=./run1/checkpoint-500".
    What was measured with other settings or of another checkpoint gives way only with `replace`.

    Raises UserError for anything asked wrongly: a model or a task that cannot be had after the others are
    measured (runner.Incomplete, which holds their records); a method that fails fails its cell only, unless
    `fail_fast`. Of several columns one whose model is for other tasks is not applicable.
    """
    with contextlib.ExitStack() as stack:
        if hasattr(models, "state_dict"):
            models = stack.enter_context(in_memory.saved(models, tokenizer, name))
        elif tokenizer is not None or name is not None:
            raise UserError("tokenizer and name are of a model in memory: give one, or leave them out")
        asked = Request.of(models, methods, tasks, repeats, **settings)
        measured = runner.run(
            plan(asked), asked.settings, records,
            force=force, replace=replace, fail_fast=fail_fast, debug=debug, listener=listener,
        )  # fmt: skip
    return Run(measured)
