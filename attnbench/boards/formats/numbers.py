"""What formats for other programs read of a board: each record with its rows."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from attnbench.boards import board
from attnbench.methods.families import name_without_seed
from attnbench.records.record import file_name

if TYPE_CHECKING:
    from attnbench.boards.board import Board
    from attnbench.records.record import Record
    from attnbench.statistics.row import Row


@dataclass(frozen=True)
class Measured:
    """One record and its rows by metric. A draw's row is that of all its seeds: it is compared with them."""

    record: Record
    rows: dict[str, Row]
    pocket: bool

    @property
    def status(self) -> str:
        """Return the status that the table shows: a record that contradicts its samples is a failed one."""
        return self.rows[""].status if "" in self.rows else self.record.status

    @property
    def error(self) -> str | None:
        return self.rows[""].error if "" in self.rows else self.record.error

    @property
    def metrics(self) -> dict[str, dict[str, Any]]:
        """Return the metrics of a cell that stands; none of any other."""
        return self.record.metrics if self.status == "measured" else {}

    @property
    def model(self) -> str:
        """Name the model as others know it: by its Hub id, or by the name on boards, local or attnbench's."""
        source, label = self.record.provenance.get("source"), self.record.cell["model"]
        own = str(self.record.provenance.get("model") or label)
        developer, slash, name = own.partition("/") if source == "hub" else ("", "", "")
        if slash:
            return f"{portable(developer)}/{portable(name)}"
        return f"{'attnbench' if self.pocket else 'local'}/{portable(label)}"

    @property
    def seconds(self) -> int:
        """Return when it was measured, in seconds of Unix time; 0 where no date is told."""
        try:
            told = datetime.fromisoformat(self.record.date)
        except ValueError:
            return 0
        return int((told if told.tzinfo else told.replace(tzinfo=UTC)).timestamp())

    @property
    def subject(self) -> str:
        """Name what was measured: of a method this is not the model, whose name would stand for another's."""
        method = self.record.cell["method"]
        return self.model if method == "dense" else f"{self.model}+{portable(file_name(method))}"


def portable(name: str) -> str:
    """Make any text one part of a path or a Hub id: what these cannot hold becomes a hyphen."""
    return re.sub(r"[^A-Za-z0-9._+,=~-]", "-", file_name(name)).strip(".") or "-"


def measured(found: Board) -> Iterator[Measured]:
    """Yield every record of a board, in its order."""
    for section in found.sections:
        rows: dict[tuple[str, ...], dict[str, Row]] = {}
        for row in section.rows:
            rows.setdefault((row.model, row.task, row.method), {})[row.metric] = row
        for item in section.records:
            model, task, method = board.cell_of(item)
            names = (method, name_without_seed(method))
            own = next((rows[model, task, name] for name in names if (model, task, name) in rows), {})
            yield Measured(item, own, section.pocket)


def collection(found: Board) -> str:
    """Name what a board's numbers are kept under."""
    return f"attnbench-{portable(found.suite.name)}" if found.suite else "attnbench"
