"""Stdout of a command: what cannot be written there is one line, what its reader left is nothing."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from collections.abc import Iterator
from typing import IO, Any

from attnbench.errors import UserError


class Unwritten(UserError):
    """Stdout that cannot be written."""


class _Told:
    """A stream whose errors are Unwritten; anything else is the stream's own."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with _telling():
            return self._stream.write(text)

    def flush(self) -> None:
        with _telling():
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def _telling() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise Unwritten(f"stdout cannot be written: {error.strerror or error}") from error


@contextlib.contextmanager
def guarded() -> Iterator[None]:
    """Write out what stdout holds at the end. Raises Unwritten where it cannot be written.

    Nothing is raised where its reader has left, as in `| head`.
    """
    whole = sys.stdout
    if whole is None:  # closed: print says nothing either
        yield
        return
    try:
        with contextlib.redirect_stdout(_Told(whole)):
            try:
                yield
            finally:
                sys.stdout.flush()
    except BrokenPipeError:
        _drop(whole)
    except Unwritten:
        _drop(whole)
        raise


def _drop(stream: IO[str]) -> None:
    """Let what is still held go nowhere, else the interpreter would complain of it on leaving."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


@contextlib.contextmanager
def aside() -> Iterator[None]:
    """Send to stderr what the block, or code in C that it calls, writes to stdout: methods may print."""
    _flush()
    try:
        kept = os.dup(1)
    except OSError:  # stdout is closed
        with contextlib.redirect_stdout(sys.stderr):
            yield
        return
    try:
        os.dup2(2, 1)
    except OSError:  # stderr is
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        _flush()
        os.dup2(kept, 1)
        os.close(kept)


def _flush() -> None:
    """Write out what Python and the C library hold of stdout."""
    for stream in (sys.stdout, sys.__stdout__):
        with contextlib.suppress(OSError, ValueError):
            if stream is not None:
                stream.flush()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).fflush(None)
