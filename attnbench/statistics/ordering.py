"""The order of the rows of a model on a task: by family and amount, or by score, controls beside methods."""

from __future__ import annotations

from collections.abc import Sequence

from attnbench.methods import controls, families
from attnbench.methods.controls import CONTROLS
from attnbench.statistics.row import Row

FAMILY, SCORE = "family", "score"
Block = list[Row]  # a method's rows, one a metric


def ordered(blocks: Sequence[Block], sort: str = FAMILY) -> list[Block]:
    """Put dense and uniform first, then methods; each control follows the method that owns it.

    By family and amount a sweep stands together. Of several methods of one budget the best owns the control,
    whatever the order.
    """
    owned = controls.beside(sorted(blocks, key=_by_score))
    if sort == SCORE:
        return owned
    first = sorted((block for block in owned if block[0].control_of is None), key=_by_family)
    own: dict[str | None, list[Block]] = {}
    for block in owned:
        own.setdefault(block[0].control_of, []).append(block)
    return [each for block in first for each in (block, *own.get(block[0].method, []))]


def _place(row: Row) -> int:
    return CONTROLS.index(row.method) if row.method in CONTROLS else len(CONTROLS)


def _by_family(block: Block) -> tuple[object, ...]:
    return (_place(block[0]), *families.order(block[0].method))


def _by_score(block: Block) -> tuple[int, float]:
    row = block[0]
    if row.method in CONTROLS:
        return _place(row), 0.0
    best = row.kept if row.kept is not None else (row.score or 0.0) * (1 if row.higher_is_better else -1)
    return _place(row), -best
