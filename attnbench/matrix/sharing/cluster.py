"""A connection to a Ray cluster, which is one line where there is none to be had."""

from __future__ import annotations

import contextlib
import signal
import socket
from collections.abc import Iterator
from typing import Any

from attnbench.errors import UserError

PLAIN, CLIENT = "ray", "ray://"
ANSWERS = 10.0  # seconds in which an address has to


@contextlib.contextmanager
def connected(address: str, verbose: bool) -> Iterator[Any]:
    """Connect to a cluster, or start one on this machine. Raises UserError."""
    try:
        import ray
    except ImportError:
        raise UserError('--on ray: ray is not installed. Next: pip install "attnbench[ray]"') from None
    if address != PLAIN:
        host, _, port = address.removeprefix(CLIENT).rpartition(":")
        try:
            socket.create_connection((host, int(port)), ANSWERS).close()
        except OSError as error:
            raise UserError(f"--on {address}: no answer: {error.strerror or error}") from error
    before = signal.getsignal(signal.SIGTERM)
    mine = not ray.is_initialized()
    try:
        if mine:
            quiet = {"log_to_driver": verbose, "logging_level": "INFO" if verbose else "ERROR"}
            ray.init(None if address == PLAIN else address, **quiet)
    except Exception as error:
        raise UserError(f"--on {address}: {error}") from error
    finally:
        if before is not None:
            signal.signal(signal.SIGTERM, before)  # else it would end this process past all that it holds
    try:
        yield ray
    finally:
        if mine:
            ray.shutdown()
