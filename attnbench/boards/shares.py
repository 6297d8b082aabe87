"""Which columns of what was asked for one command measures: those of --tasks, of these a shard's."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from attnbench.boards import suite
from attnbench.boards.suite import Part, Suite
from attnbench.errors import tell, unknown
from attnbench.inputs import models, tasks
from attnbench.inputs.settings import Settings
from attnbench.matrix.ledger import recorded
from attnbench.matrix.plan import Cell
from attnbench.matrix.request import split_tasks
from attnbench.matrix.sharing import shards
from attnbench.records import record

Column = tuple[str, str]  # model and task by the names that records have


def of_cells(shard: shards.Shard | None, cells: Sequence[Cell], settings: Settings) -> list[Cell]:
    """Return the cells of a shard, or all."""
    if shard is None:
        return list(cells)
    names = recorded(cells, settings)
    found: dict[Column, list[Cell]] = {}
    for cell in cells:
        found.setdefault(_column(names[cell]), []).append(cell)
    sizes = {column: shards.size(mine[0].task, len(mine), settings) for column, mine in found.items()}
    mine = shards.share(shard, sizes)
    if not mine:
        tell(f"shard {shard} has nothing to do: there are {len(sizes)} columns")
    return [cell for cell in cells if _column(names[cell]) in mine]


@dataclass(frozen=True)
class Asked:
    """The columns that all shards of a suite measure together, and those of this one."""

    all: tuple[Column, ...]
    mine: frozenset[Column]


def of_suites(
    shard: shards.Shard | None,
    parts: Sequence[tuple[Suite, Part]],
    only: Sequence[str] = (),
    limit: int | None = None,
    include_path: str | None = None,
) -> dict[Path, Asked]:
    """Return the columns to measure of each suite: of `only` these tasks, where any are given.

    Raises UserError for a task that no suite has.
    """
    wanted = {tasks.recorded(name): name for name in split_tasks(only)}
    found = {}
    for each, part in parts:
        for model in part.models:
            for task in part.tasks or models.tasks_of(model):
                found[each.path, suite.shown(model), tasks.recorded(task)] = (each, part, task)
    known = list(dict.fromkeys(task for _, _, task in found))
    for task, name in wanted.items():
        if task not in known:
            raise unknown("task of the suite", name, known, f"{parts[0][0].path} has {', '.join(known)}.")
    chosen = {key: of for key, of in found.items() if not wanted or key[2] in wanted}
    mine = set(chosen)
    if shard is not None:
        sizes = {key: _size(*of, limit, include_path) for key, of in chosen.items()}
        mine = shards.share(shard, sizes)
    if not mine:
        tell(f"shard {shard} has nothing to do: there are {len(chosen)} columns")
    return {
        each.path: Asked(
            tuple(key[1:] for key in chosen if key[0] == each.path),
            frozenset(key[1:] for key in mine if key[0] == each.path),
        )
        for each, _ in parts
    }


def _size(each: Suite, part: Part, task: str, limit: int | None, include_path: str | None) -> int:
    settings = Settings(limit=limit or part.limit, include_path=include_path)
    return shards.size(task, len(each.specs(part)), settings)


def kept(cells: Sequence[Cell], settings: Settings, columns: Collection[Column]) -> list[Cell]:
    """Return the cells of these columns."""
    names = recorded(cells, settings)
    return [cell for cell in cells if _column(names[cell]) in columns]


def _column(named: dict[str, str]) -> Column:
    return named["model"], named["task"]


@contextlib.contextmanager
def claimed(
    shard: shards.Shard | None, folder: str | Path, source: str, cells: Sequence[dict[str, str]]
) -> Iterator[None]:
    """Note for the time of all shards that they fill a folder, with the `cells` of all of them.

    Raises UserError where it is being filled by others.
    """
    if shard is None:
        yield
        return
    shards.claim(folder, shard, source, [*dict.fromkeys(map(_column, cells))])
    try:
        yield
    finally:
        shards.settle(folder, [record.path_of(folder, cell) for cell in cells])
