"""What attention has to compute where a pattern leaves few entries: bands of keys, or blocks of each head."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from attnbench.engine.realised.spans import Span
from attnbench.errors import NotApplicable

PIECE = 16  # keys that means over many of them are summed by
PAYS = 0.7  # of dense attention's cost: beyond, what a machine's cache and threads do decides


@dataclass
class Strip:
    """Queries from `start` to `stop`, the keys that any of them keeps, what is added to their scores."""

    start: int
    stop: int
    keys: slice | Tensor
    shift: Tensor | None


@dataclass
class Bunch:
    """Rows of blocks that keep as many blocks: `rows` of queries, `columns` of keys (rows * blocks).

    `shift` (rows or 1, size, blocks * size) is added to the scores of the last blocks, the only ones that are
    kept in part.
    """

    rows: Tensor
    columns: Tensor
    shift: Tensor | None


@dataclass
class Ends:
    """Where sums over keys end: the pieces of PIECE keys that are `wanted`, the last key's `place` in these.

    `none` tells which sums have no key at all, and is None where all have one.
    """

    wanted: Tensor
    place: Tensor
    none: Tensor | None


@dataclass
class Plan:
    """What is computed: strips of all heads, bunches of blocks of `size`, or FlexAttention's `mask`.

    `lost` are the queries that keep nothing, each as head * queries + query; `cost` is a share of dense
    attention's; `groups` of heads share their keys and values.
    """

    span: Span
    groups: int
    lost: Tensor
    cost: float
    strips: list[Strip] = field(default_factory=list)
    bunches: list[Bunch] = field(default_factory=list)
    size: int = 0
    mask: Any = None

    @functools.cached_property
    def blind(self) -> Tensor | None:
        """Tell which queries see no key (queries,), None where all see one."""
        none = self.span.low == self.span.high
        return none if bool(none.any()) else None

    @functools.cached_property
    def seen(self) -> Tensor:
        """Count the keys that each lost query sees."""
        return (self.span.high - self.span.low)[self.lost % self.span.queries]

    @functools.cached_property
    def ends(self) -> tuple[Ends, Ends | None]:
        """Return where the runs of keys that lost queries see end, and begin if not all at the first."""
        low = self._ends(self.span.low) if bool(self.span.low.any()) else None
        return self._ends(self.span.high), low

    def _ends(self, limits: Tensor) -> Ends:
        at = limits[self.lost % self.span.queries]
        head, last = self.lost // self.span.queries // self.groups, (at - 1).clamp(min=0)
        size = self.size or PIECE
        pieces = -(-self.span.keys // size) * size // PIECE
        wanted, inverse = (head * pieces + last // PIECE).unique(return_inverse=True)
        none = at == 0
        return Ends(wanted, inverse * PIECE + last % PIECE, none if bool(none.any()) else None)


def paying(found: Plan, most: float) -> Plan:
    """Return a plan. Raises NotApplicable where dense attention would cost little more."""
    if found.cost > most:
        raise NotApplicable(f"what is left costs {found.cost:.0%} of dense attention: that would not pay")
    return found
