"""Grids of heads, a row a layer: how a method scores them and which it removes. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from attnbench.methods.controls import DRAWN
from attnbench.methods.families import amounts, family
from attnbench.methods.protocol import KINDS, LEFT, SCORED
from attnbench.records import schema
from attnbench.records.inert import spreadsheet

if TYPE_CHECKING:
    from attnbench.records.record import Record


@dataclass(frozen=True)
class Grid:
    """The heads of one model on one task by one method: a row a layer, the heads it removes in `gone`."""

    model: str
    task: str
    method: str
    layers: tuple[str, ...]
    rows: tuple[tuple[float, ...], ...]
    gone: frozenset[tuple[int, int]]

    def lines(self) -> Iterator[list[object]]:
        """Yield model, task, method, layer, head, score and whether the head is removed."""
        names = [spreadsheet(name) for name in (self.model, self.task, self.method)]
        for place, (layer, row) in enumerate(zip(self.layers, self.rows, strict=True)):
            for head, score in enumerate(row):
                yield [*names, spreadsheet(layer), head, f"{score:.6g}", int((place, head) in self.gone)]


def grids(records: Sequence[Record]) -> list[Grid]:
    """Return one grid a model, task and way of scoring: of the largest amount, which removes most.

    Of several seeds it is the first one's.
    """
    found: dict[tuple[str, str, str], Grid] = {}
    for item in sorted(records, key=lambda item: amounts(item.cell["method"]), reverse=True):
        for name, state in item.fitted.items():
            table = scored(state)
            if DRAWN in name.split(":") or not table:
                continue
            layers, alive = sorted(table, key=_order), _table(state, LEFT)
            rows = tuple(tuple(map(float, table[layer])) for layer in layers)
            gone = {
                (place, head)
                for place, layer in enumerate(layers)
                for head, value in enumerate(alive.get(layer, [])[: len(table[layer])])
                if value == 0
            }
            model, task = item.cell["model"], item.cell["task"]
            grid = Grid(model, task, name, tuple(layers), rows, frozenset(gone))
            found.setdefault((model, task, family(name)), grid)
    # one score under two names is shown once
    first: dict[tuple[object, ...], Grid] = {}
    for grid in found.values():
        first.setdefault((grid.model, grid.task, grid.rows), grid)
    return sorted(first.values(), key=lambda grid: (grid.model, grid.task, family(grid.method)))


def scored(state: object) -> dict[str, list[float]]:
    """Return the scores of heads in what a method has learned, nothing where there are none."""
    return next(filter(None, (_table(state, key) for key in SCORED)), {})


def removes_heads(item: Record) -> bool:
    """Tell whether a method removes heads on purpose.

    It has learned which are left, or heads are silent that still attend: more of them than there are zeros.
    One that happens to set a head's whole attention to zero has as many zeros as silent heads.
    """
    heads, zeros = item.measured.get("heads"), item.measured.get("sparsity") or 0.0
    if not isinstance(heads, (int, float)) or not isinstance(zeros, (int, float)):
        return False
    return heads < 1 and (any(_table(state, LEFT) for state in item.fitted.values()) or 1 - heads > zeros)


def _order(layer: str) -> tuple[int, int]:
    """Sort "encoder 0" before "decoder 0" before "cross 0", each by its number; the rest stay as they are."""
    kind, _, number = layer.partition(" ")
    place = KINDS.index(kind) if kind in KINDS else len(KINDS)
    return place, int(number) if number.isdecimal() else 0


def _table(state: Any, key: str) -> dict[str, list[float]]:
    """Return what was learned under a name where it is a list of numbers for every layer, else nothing."""
    value = state.get(key) if isinstance(state, dict) else None
    rows = list(value.values()) if isinstance(value, dict) else [None]
    whole = all(isinstance(row, list) and row and all(schema.NUMBER.fits(x) for x in row) for row in rows)
    return value if isinstance(value, dict) and whole else {}
