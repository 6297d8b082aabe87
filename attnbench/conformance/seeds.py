"""The generators that everybody draws from: torch's, numpy's and Python's."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch


def sow(seed: int) -> None:
    """Set all seeds."""
    torch.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)


def states() -> dict[str, Any]:
    """Return where each generator is, by its name, to be compared."""
    return {
        "torch": torch.get_rng_state().tolist(),
        "numpy.random": str(np.random.get_state(legacy=False)),
        "random": random.getstate(),
    }


@contextlib.contextmanager
def kept() -> Iterator[None]:
    """Put all generators back at the end."""
    before = np.random.get_state(), random.getstate()
    try:
        with torch.random.fork_rng():
            yield
    finally:
        np.random.set_state(before[0])
        random.setstate(before[1])
