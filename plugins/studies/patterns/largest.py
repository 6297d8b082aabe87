"""The one key that a query gives its largest weight."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

NONE = -1


def largest(weights: Tensor, keys: Tensor | None = None) -> Tensor:
    """Return each row's key of the largest weight: (..., keys) -> (...).

    NONE where no key has a weight above 0, and where two share the largest: a row that is uniform, or that a
    method rounded to few levels, points nowhere. `keys` (..., keys) tells which keys count, all without it.
    """
    most = (weights if keys is None else weights.masked_fill(~keys, 0)).amax(-1, keepdim=True)
    at = weights == most if keys is None else (weights == most) & keys
    alone = (at.sum(-1) == 1) & (most.squeeze(-1) > 0)
    return at.byte().argmax(-1).where(alone, at.new_full((), NONE, dtype=at.sum(-1).dtype))
