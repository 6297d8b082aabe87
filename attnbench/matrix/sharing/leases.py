"""Who is measuring which cell, as files beside the records: several runs on one folder share its cells."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from attnbench.matrix.sharing.heartbeat import Heartbeat

try:
    import fcntl
except ImportError:  # then a dead owner is told by its heartbeat alone
    fcntl = None  # type: ignore[assignment]

FOLDER = ".leases"
LASTS = 60.0  # seconds without a heartbeat, of which there is one every few
PAUSE = 1.0  # seconds between two looks at what others measure
BOOT = "/proc/sys/kernel/random/boot_id"


class Lost(Exception):
    """A lease that another run has taken over: this process was stopped longer than a lease lasts."""


class Leases:
    """The leases of one run on a folder of records, kept alive while they are held.

    A lease ends with its owner. On one machine its lock says so at once. Elsewhere its time does, a
    heartbeat: a lease is dead where that has stayed the same for LASTS seconds of the watcher's own clock. No
    two clocks are compared, because hosts' clocks differ, and on parallel file systems (Lustre, GPFS) a
    file's time is its writer's.
    """

    def __init__(
        self, folder: str | Path, driver: int | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.folder, self._clock = Path(folder).absolute() / FOLDER, clock
        self._heartbeat = Heartbeat(driver)
        self._held: dict[
            str, tuple[int, str]
        ] = {}  # a cell -> its open file, which has the lock, and content
        self._seen: dict[Path, tuple[tuple[int, int], float]] = {}

    def take(self, cell: str) -> bool:
        """Take a cell's lease, of a dead owner too. Returns whether it is ours now. Raises OSError."""
        file = self._place(cell)
        content = json.dumps({
            "cell": cell, "owner": uuid.uuid4().hex, "host": platform.node(), "process": os.getpid(),
            "machine": machine(),
        })  # fmt: skip
        for _ in range(3):
            self.folder.mkdir(parents=True, exist_ok=True)
            try:
                number = os.open(file, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o666)
            except FileNotFoundError:  # a run that ended has removed the empty folder
                continue
            except FileExistsError:
                if not self._ended(file):
                    return False
                continue
            _lock(number)  # before anybody can read whose it is
            os.write(number, content.encode())
            self._held[cell] = (number, content)
            self._heartbeat.keep(str(file), content)
            return True
        return False

    def mine(self, cell: str) -> bool:
        """Tell whether a lease that was taken is still ours."""
        return cell in self._held and _content(self._place(cell)) == self._held[cell][1]

    def release(self, cell: str) -> None:
        """Give a lease back."""
        file, ours = self._place(cell), self.mine(cell)
        self._heartbeat.drop(str(file))
        if ours:
            file.unlink(missing_ok=True)
        os.close(self._held.pop(cell)[0])

    def owner(self, cell: str) -> str:
        """Say who has a cell's lease, nothing where nobody has."""
        content = _content(self._place(cell))
        return _owner(content)[1] if content is not None else ""

    def wait(self) -> None:
        """Let others work for a moment."""
        time.sleep(PAUSE)

    def close(self) -> None:
        """Give everything back."""
        for cell in [*self._held]:
            self.release(cell)
        self._heartbeat.close()
        with contextlib.suppress(OSError):  # others hold some, or it was never made
            self.folder.rmdir()

    def _place(self, cell: str) -> Path:
        return self.folder / f"{hashlib.sha256(cell.encode()).hexdigest()[:24]}.lease"

    def _ended(self, file: Path) -> bool:
        """Remove a lease whose owner is dead, and tell whether there is none now."""
        try:
            number = os.open(file, os.O_RDWR)
        except FileNotFoundError:
            return True
        try:
            stamp = _stamp(os.fstat(number))
            here = _machine_of(os.read(number, 1 << 12)) == machine()
            if not (here and _lock(number)) and not self._still(file, stamp):
                return False
            return self._removed(file, stamp)
        finally:
            os.close(number)

    def _removed(self, file: Path, stamp: tuple[int, int]) -> bool:
        """Remove a dead lease: one at a time, else the second would remove the lease that the first took."""
        guard = file.with_suffix(".taking")
        try:
            os.close(os.open(guard, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            with contextlib.suppress(FileNotFoundError):
                if self._still(guard, _stamp(guard.stat())):  # who made it has died over it
                    guard.unlink()
            return False
        try:
            if _stamp(file.stat()) != stamp:
                return False
            file.unlink()
        except FileNotFoundError:
            pass
        finally:
            guard.unlink(missing_ok=True)
        return True

    def _still(self, file: Path, stamp: tuple[int, int]) -> bool:
        """Tell whether a file has been as it is for as long as a lease lasts, by this process's clock."""
        seen, since = self._seen.get(file, (None, 0.0))
        if seen != stamp:
            self._seen[file] = (stamp, self._clock())
            return False
        return self._clock() - since > LASTS


def held(folder: str | Path) -> list[tuple[str, str]]:
    """List the cells that are leased on a folder of records, and by whom: dead owners among them."""
    found = [_content(file) for file in sorted((Path(folder) / FOLDER).glob("*.lease"))]
    return [_owner(content) for content in found if content is not None]


def _owner(content: str) -> tuple[str, str]:
    """Return the cell and the owner that a lease names."""
    try:
        found = json.loads(content)
        return str(found["cell"]), f"{found['host']}, process {found['process']}"
    except (ValueError, TypeError, KeyError):  # just begun
        return "a cell", "another run"


def machine() -> str:
    """Return what tells this machine since it was started from every other: locks hold within it."""
    try:
        return Path(BOOT).read_text(encoding="ascii").strip()
    except OSError:
        return f"{platform.node()} {uuid.getnode()}"


def _machine_of(content: bytes) -> Any:
    try:
        return json.loads(content)["machine"]
    except (ValueError, TypeError, KeyError):  # just begun
        return None


def _content(file: Path) -> str | None:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return None


def _stamp(found: os.stat_result) -> tuple[int, int]:
    return found.st_ino, found.st_mtime_ns


def _lock(number: int) -> bool:
    if fcntl is None:
        return False
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
