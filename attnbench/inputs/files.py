"""Read a file of somebody else's: a regular one of bounded size, without waiting for one that never ends."""

from __future__ import annotations

import os
import stat
from pathlib import Path

LARGEST = 64 << 20
LINK = "a link, which is not followed"


def expanded(path: str | Path) -> Path:
    """Return a path with the user's home for ~; as it is where nobody has that name."""
    return Path(os.path.expanduser(path))


class Unreadable(ValueError):
    """A file that is not read, with the reason."""


def content(path: str | Path, largest: int = LARGEST, follow: bool = True) -> bytes:
    """Return what a regular file holds, at most `largest` bytes; a link only where it is to be followed.

    Raises Unreadable for a device, a pipe, a folder and more bytes, FileNotFoundError where there is none.
    """
    link = 0 if follow else getattr(os, "O_NOFOLLOW", 0)
    if not follow and not link and os.path.islink(path):
        raise Unreadable(LINK)
    try:
        # a pipe would make the reader wait for a writer
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0) | link)
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:  # the latter for a zero byte in its name
        if link and os.path.islink(path):
            raise Unreadable(LINK) from error
        raise Unreadable(f"cannot be read: {getattr(error, 'strerror', None) or error}") from error
    try:
        found = os.fstat(handle)
        if not stat.S_ISREG(found.st_mode):
            raise Unreadable(
                "cannot be read: Is a directory" if stat.S_ISDIR(found.st_mode) else "no regular file"
            )
        if found.st_size > largest:
            raise Unreadable(f"{found.st_size:,} bytes, at most {largest:,}")
        return _read(handle, found.st_size)
    except OSError as error:
        raise Unreadable(f"cannot be read: {error.strerror or error}") from error
    finally:
        os.close(handle)


def _read(handle: int, size: int) -> bytes:
    data = os.read(handle, size)
    while len(data) < size and (more := os.read(handle, size - len(data))):
        data += more
    return data
