"""The one key that a query gives its largest weight."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

NONE = -1


def largest(weights: Tensor, keys: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return each row's key of the largest weight, and that weight: (..., keys) -> (...), (...).

    The key is NONE where none has a weight above 0 and where two share the largest: a row that is uniform, or
    that a method rounded to few levels, points nowhere. `keys` (..., keys) tells which count, all without it.
    """
    counted = weights if keys is None else weights.masked_fill(~keys, 0)
    most, at = counted.max(-1)
    alone = ((counted == most[..., None]).sum(-1) == 1) & (most > 0)
    return at.masked_fill(~alone, NONE), most
