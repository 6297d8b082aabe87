"""Measure a cell again in other batches by another number of threads: what moves is no method's doing."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from attnbench.statistics import floor

BATCH = 7  # instead of the run's own size, unless the run's own is this one


def measured(evaluate: Callable[..., Any], found: Any, serving: dict[str, Any]) -> dict[str, Any]:
    """Return each metric's second value, and the number of samples whose scores moved.

    `evaluate` takes what `serving` holds by name and returns a Measurement, as it gave `found` before.
    """
    size = serving["batch_size"]
    size = size if size == 1 else BATCH + (size == BATCH)  # of a model that reads texts alone the size stays
    with _other_threads() as threads:
        again = evaluate(**{**serving, "batch_size": size, "batch_tokens": None})
    moved = {name: floor.differing(again.scores[name], found.scores[name]) for name in found.metrics}
    return {
        "batch_size": size,
        "threads": threads,
        "samples": len(found.scores["doc_id"]),
        "metrics": {
            name: {"value": again.metrics[name]["value"], "moved": moved[name]} for name in found.metrics
        },
    }


@contextlib.contextmanager
def _other_threads() -> Iterator[int]:
    """Let torch compute with two threads where it has one, with one where it has more."""
    import torch

    own = torch.get_num_threads()
    torch.set_num_threads(2 if own == 1 else 1)
    try:
        yield torch.get_num_threads()
    finally:
        torch.set_num_threads(own)
