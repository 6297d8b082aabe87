"""Whether padding changes an answer: a text alone against the same text beside a longer one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

Answers = Callable[[Sequence[Any]], "Sequence[Tensor]"]  # the outputs of each text of a batch
SMALLEST = 1e-2  # an output that is less in all its numbers may be the rest of larger ones that cancel
ALONE = "its answers change with the padding of a batch (by {:.2g} of the largest output): one text at a time"


def gap(answers: Answers, short: Any, long: Any) -> float:
    """Return by how much a text's outputs differ alone and in a batch, relative to the largest of them."""
    alone, beside = answers([short])[0], answers([long, short])[1]
    least = SMALLEST if alone.dtype.itemsize >= 4 else 1.0
    return float((alone - beside).abs().max() / alone.abs().max().clamp(min=least))


def extremes(items: Sequence[Any], lengths: Sequence[int], most: int | None = None) -> tuple[Any, Any]:
    """Return the shortest item and the longest, of those of `most` tokens at most where there are such."""
    order = sorted(range(len(items)), key=lambda k: lengths[k])
    within = [k for k in order if most is None or lengths[k] <= most] or order[:1]
    return items[order[0]], items[within[-1]]
