"""Stay in the working folder, whatever somebody's code does: names of files there are relative to it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator


@contextlib.contextmanager
def staying() -> Iterator[None]:
    """Go back after the block to the folder that was the working folder before it."""
    try:
        here = os.open(".", os.O_RDONLY)
    except OSError:  # it is gone
        yield
        return
    try:
        yield
    finally:
        os.fchdir(here)
        os.close(here)
