"""The cell that is being measured, as a note beside its record: it outlives a process that the cell ends."""

from __future__ import annotations

import contextlib
import faulthandler
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

try:
    import fcntl
except ImportError:  # without locks a note could not be told from that of a run at work
    fcntl = None  # type: ignore[assignment]

FATAL = "Fatal Python error: "  # begins what faulthandler writes
UNKNOWN = "ended its process: by a kill from outside, for want of memory or by os._exit"


def place(path: Path) -> Path:
    """Return the note of a record."""
    digest = hashlib.sha256(path.name.encode()).hexdigest()[:8]
    return path.with_name(f".{path.stem[:40]}-{digest}.started")


@contextlib.contextmanager
def noted(path: Path, identity: str) -> Iterator[None]:
    """Keep a note of a cell while the block runs; whatever Python can still see ends with its removal.

    The note is locked as long as this process lives. Raises OSError where it cannot be written.
    """
    note = place(path)
    note.parent.mkdir(parents=True, exist_ok=True)
    with note.open("a+b") as file:
        if not _locked(file):  # another run is measuring the same cell
            yield
            return
        try:
            file.truncate(0)
            file.write(identity.encode() + b"\n")
            file.flush()
            with _told_of_crashes(file):
                yield
        finally:
            note.unlink(missing_ok=True)


def left(path: Path, identity: str | None) -> str | None:
    """Say how a cell ended the process that measured it, and remove its note.

    None where there is no note, where its process is still there, and where the cell was another then.
    """
    note = place(path)
    try:
        with note.open("r+b") as file:
            if not _locked(file):
                return None
            first, _, rest = file.read().decode(errors="replace").partition("\n")
            note.unlink(missing_ok=True)
    except OSError:
        return None
    if first != identity:
        return None
    said = [line for line in rest.splitlines() if line]
    if any(line.startswith(FATAL) for line in said):
        return f"crashed its process: {said[0].removeprefix(FATAL)}"
    return said[0] if said else UNKNOWN


def _locked(file: IO[bytes]) -> bool:
    if fcntl is None:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


@contextlib.contextmanager
def _told_of_crashes(file: IO[bytes]) -> Iterator[None]:
    if faulthandler.is_enabled():  # somebody's own
        yield
        return
    faulthandler.enable(file.fileno(), all_threads=False)
    try:
        yield
    finally:
        faulthandler.disable()
