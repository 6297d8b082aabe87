"""What a command writes to: what is missing there, disk, reader or character, is no traceback."""

from __future__ import annotations

import codecs
import contextlib
import ctypes
import os
import sys
from collections.abc import Iterator
from typing import IO, Any

from attnbench.errors import UserError

PLAIN = {
    "Δ": "d", "≈": "~", "▼": "v", "▲": "^", "±": "+-", "–": "-", "−": "-", "…": "...", "·": "-", "×": "x",
    "→": "->", "└": "`", "─": "-", "█": "#", "²": "^2", "‘": "'", "’": "'", "“": '"', "”": '"',
}  # fmt: skip
SIDE = "± "  # is as wide as what stands for it: columns stay in line
HANDLER = "attnbench-plain"


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

    Nothing is raised where its reader has left, as in `| head`, where a stream is closed, as by `>&-`, and
    for a character that the terminal has not: what is like it stands for it, else its number.
    """
    with contextlib.ExitStack() as stack:
        for name, redirect in (
            ("stdout", contextlib.redirect_stdout),
            ("stderr", contextlib.redirect_stderr),
        ):
            if getattr(sys, name) is None:
                nothing = stack.enter_context(open(os.devnull, "w", encoding="utf-8"))
                stack.enter_context(redirect(nothing))
            stack.enter_context(_plain(getattr(sys, name)))
        whole = sys.stdout
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


@contextlib.contextmanager
def _plain(stream: Any) -> Iterator[None]:
    """Let a stream write what is like a character in the place of one that its encoding has not."""
    before = getattr(stream, "errors", None)
    if before is None or not hasattr(stream, "reconfigure"):
        yield
        return
    codecs.register_error(HANDLER, _alike)
    stream.reconfigure(errors=HANDLER)
    try:
        yield
    finally:
        with contextlib.suppress(OSError, ValueError):  # it cannot be written, or is closed
            stream.reconfigure(errors=before)


def _alike(error: UnicodeError) -> tuple[str | bytes, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    if error.object.startswith(SIDE, error.start):
        return PLAIN[SIDE[0]], error.start + len(SIDE)
    character = error.object[error.start]
    return PLAIN.get(character) or ascii(character)[1:-1], error.start + 1


def shown(text: str) -> str:
    """Return a text as stdout will have it, some of its characters replaced by what is like them."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    codecs.register_error(HANDLER, _alike)
    return text.encode(encoding, HANDLER).decode(encoding)


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
