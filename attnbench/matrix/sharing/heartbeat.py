"""Keep leases alive from a second process, which no hang in C keeps from it and which ends with its owner.

Imports the standard library alone: the second process is this file.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time

EVERY = 5.0  # seconds
GRACE = 10.0  # seconds that an owner has to end once its driver has


class Heartbeat:
    """Touch files again and again while this process lives.

    Where `driver` is the reading end of a pipe, this process is ended once nobody has its other end.
    """

    def __init__(self, driver: int | None = None) -> None:
        self._driver = driver
        self._kept: dict[str, str] = {}
        self._process: subprocess.Popen[bytes] | None = None

    def keep(self, path: str, content: str) -> None:
        """Begin to touch a file, for as long as it holds this."""
        self._kept[path] = content
        if self._process is None or self._process.poll() is not None:
            passed = () if self._driver is None else (self._driver,)
            command = [sys.executable, "-I", "-S", __file__, str(os.getpid()), *map(str, passed)]
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, pass_fds=passed
            )
            self._tell(self._kept)
        else:
            self._tell({path: content})

    def drop(self, path: str) -> None:
        """Touch a file no longer."""
        self._kept.pop(path, None)
        self._tell({path: None})

    def close(self) -> None:
        """Let the second process go."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def _tell(self, content: dict[str, str] | dict[str, None]) -> None:
        if self._process is not None and self._process.stdin is not None:
            with contextlib.suppress(OSError):  # it has been ended from outside
                self._process.stdin.write(json.dumps(content).encode() + b"\n")
                self._process.stdin.flush()


def beat(owner: int, driver: int | None) -> None:
    """Touch what stdin names until it is closed; end the owner where its driver has gone."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # a terminal sends them to both
        signal.signal(number, signal.SIG_IGN)
    kept: dict[str, str] = {}
    held, due, ends = b"", time.monotonic() + EVERY, None
    while True:
        poll = select.poll()
        poll.register(0, select.POLLIN)
        if driver is not None:
            poll.register(driver, 0)  # told when it is hung up, whatever is still to be read
        until = due if ends is None else min(due, ends)
        found = dict(poll.poll(max(0.0, until - time.monotonic()) * 1000))
        if 0 in found:
            if not (read := os.read(0, 1 << 16)):
                return
            *lines, held = (held + read).split(b"\n")
            for line in lines:
                for path, content in json.loads(line).items():
                    kept.pop(path, None)
                    kept |= {path: content} if content is not None else {}
        if driver in found and driver is not None and os.getppid() == owner:
            os.kill(owner, signal.SIGTERM)
            driver, ends = None, time.monotonic() + GRACE
        if ends is not None and time.monotonic() >= ends and os.getppid() == owner:
            os.kill(owner, signal.SIGKILL)
            return
        if time.monotonic() >= due:
            for path, content in kept.items():
                touch(path, content)
            due = time.monotonic() + EVERY


def touch(path: str, content: str) -> None:
    """Set a file's time where it holds what it should; else it is another's by now."""
    with contextlib.suppress(OSError), open(path, encoding="utf-8") as file:
        if file.read() == content:
            os.utime(path)


if __name__ == "__main__":
    beat(int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else None)
