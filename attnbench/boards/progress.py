"""How far a suite is: what is recorded and holds, what is missing, has failed or is stale. No weights."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from attnbench.boards.suite import Part, Suite, shown
from attnbench.errors import NotApplicable, UserError
from attnbench.inputs import models, names, tasks
from attnbench.inputs.settings import Settings
from attnbench.matrix.believed import doubt
from attnbench.matrix.ledger import Ledger
from attnbench.methods import spec
from attnbench.methods.code import code_of
from attnbench.records import provenance, record
from attnbench.records.difference import changes
from attnbench.records.record import Record

STATES = ("done", "missing", "failed", "stale")


@dataclass
class Column:
    """The cells of a suite's model on a task: how many are in each state, and a line for each that is wrong.

    `open` tells whether a run would measure any.
    """

    model: str
    task: str
    given: tuple[str, str]  # as the suite names them
    cells: dict[str, int] = field(default_factory=lambda: dict.fromkeys(STATES, 0))
    lines: list[str] = field(default_factory=list)
    open: bool = False


def columns(suite: Suite, parts: Sequence[Part], folder: str | Path) -> Iterator[Column]:
    """Yield the columns of parts of a suite by what a folder has of them.

    A record is stale where settings, the method's code, files that its spec names, or the weights of a folder
    have changed since. What only loading tells, as data that have changed, `attnbench run` sees.
    """
    ledger = Ledger(folder)
    for part in parts:
        settings = suite.request(part).settings
        for model in part.models:
            for task in part.tasks or models.tasks_of(model):
                found = Column(shown(model), tasks.recorded(task), (model, task))
                weights = _Weights(model, task)
                for method in suite.specs(part):
                    cell = {"model": found.model, "task": found.task, "method": method}
                    _count(found, ledger, cell, settings, weights)
                yield found


def _count(
    column: Column, ledger: Ledger, cell: dict[str, str], settings: Settings, weights: _Weights
) -> None:
    path, name = record.path_of(ledger.folder, cell), " · ".join(cell.values())
    if not path.exists():
        column.cells["missing"] += 1
        column.open = True
        return
    try:
        old = record.read(path)
    except ValueError as error:
        column.cells["stale"] += 1
        column.lines.append(f"stale: {error}")
        column.open = True
        return
    held = "" if old.cell == cell else f"holds {' · '.join(old.cell.values())}, whose file is another"
    if why := held or "; ".join(_reasons(old, settings, weights)):
        column.cells["stale"] += 1
        column.lines.append(f"stale: {name}: {why}")
        column.open = True
    elif old.status == "failed":
        column.cells["failed"] += 1
        column.lines.append(f"failed: {name}: {old.error}")
        column.open |= not ledger.settled(old)
    else:
        column.cells["done"] += 1


def _reasons(old: Record, settings: Settings, weights: _Weights) -> list[str]:
    """Say why a record no longer holds, as far as it can be told without data and models."""
    if old.status == "not applicable" and "identity" not in old.provenance:  # of its column
        return []
    methods = spec.parse(old.cell["method"])
    code = code_of(methods)
    prints = {**old.provenance.get("fingerprints", {}), **provenance.files(methods)}
    prints |= weights.newer_than(old.file)
    kept = settings.recorded()
    new = Record(old.cell, "measured", settings=kept)
    identity = provenance.identity(old.cell, prints, kept, code)
    new.provenance = {"fingerprints": prints, "code": code, "identity": identity}
    found = changes(old, new) or [*filter(None, [doubt(old)])]
    if settings.measure and old.status == "measured" and "flops" not in old.measured:
        found.append("measured without FLOPs")
    return found


class _Weights:
    """The weights of a column's checkpoint, hashed only where a file of them is younger than a record."""

    def __init__(self, model: str, task: str) -> None:
        self._checkpoint: models.Checkpoint | None = None
        self._latest = 0.0
        try:
            found = models.find(names.placed(model) or model, task)
        except (UserError, NotApplicable):  # a run will say it
            return
        if found.source in ("pocket", *names.OWN):
            self._checkpoint = found
            files = [Path(found.path)] if found.source == "file" else [*Path(found.path).glob("*")]
            self._latest = max((each.stat().st_mtime for each in files), default=0.0)

    def newer_than(self, file: str) -> dict[str, str]:
        """Return the fingerprint where the weights may have changed since a file was written."""
        if self._checkpoint is None or self._latest <= os.stat(file).st_mtime:
            return {}
        return {"checkpoint": self._checkpoint.fingerprint}


def command(suite: Suite, column: Column, more: Iterable[str] = ()) -> str:
    """Return the command that measures what is open of a column, to be pasted into a shell."""
    model, task = column.given
    if names.placed(column.model) == model:  # which a suite's run finds too, and records name no folder
        model = column.model
    return shlex.join(["attnbench", "run", str(suite.path), "--models", model, "--tasks", task, *more])
