"""What chance hangs on: the generators that everybody draws from, and the hash of a string."""

from __future__ import annotations

import builtins
import contextlib
import random
import sys
from collections.abc import Iterator
from typing import Any
from unittest import mock

import numpy as np
import torch

OTHERS = {*sys.stdlib_module_names, "numpy", "scipy", "sklearn", "sympy", "torch", "transformers"}


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


@contextlib.contextmanager
def rehashed() -> Iterator[list[str]]:
    """Let hash() give what another process may give; list who called it for more than numbers.

    Python draws the hash of a string anew in every process, and many an object's is its address.
    """
    plain, callers = builtins.hash, list[str]()

    def salted(value: Any) -> int:
        caller = sys._getframe(1)
        package = str(caller.f_globals.get("__name__")).partition(".")[0]
        # a `__hash__` has to find again what is in a dict already
        if _numeric(value) or package in OTHERS or caller.f_code.co_name == "__hash__":
            return plain(value)
        callers.append(f"{caller.f_code.co_filename}:{caller.f_lineno}")
        return plain((20210409, plain(value)))

    with mock.patch.object(builtins, "hash", salted):
        yield callers


def _numeric(value: Any) -> bool:
    """Tell whether a value has the same hash in every process."""
    if isinstance(value, tuple | frozenset):
        return all(map(_numeric, value))
    return isinstance(value, int | float | complex)
