"""End a process whose cell takes too long: from a second process, which no hang in C keeps from acting.

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
from typing import Any


class Watchdog:
    """Kill this process where `start` is not followed by `stop` within some seconds."""

    def __init__(self, seconds: float, after: str = "the same command goes on with the others") -> None:
        self.seconds, self.after = seconds, after
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, cell: str, note: str) -> None:
        """Begin to count for a cell, whose note is to say why the process ended."""
        if self._process is None or self._process.poll() is not None:
            command = [sys.executable, "-I", "-S", __file__, str(os.getpid())]
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
        self._tell({"seconds": self.seconds, "cell": cell, "note": note, "after": self.after})

    def stop(self) -> None:
        """Count no longer."""
        self._tell({})

    def close(self) -> None:
        """Let the second process go."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()

    def _tell(self, content: dict[str, object]) -> None:
        if self._process is not None and self._process.stdin is not None:
            with contextlib.suppress(OSError):  # it has been ended from outside
                self._process.stdin.write(json.dumps(content).encode() + b"\n")
                self._process.stdin.flush()


def watch(owner: int) -> None:
    """Read what to count from stdin until it is closed, and kill the owner when a count is over."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # a terminal sends them to both
        signal.signal(number, signal.SIG_IGN)
    content: dict[str, Any] = {}
    end, held = None, b""
    while True:
        left = None if end is None else max(0.0, end - time.monotonic())
        if not select.select([0], [], [], left)[0]:
            break
        if not (read := os.read(0, 1 << 16)):
            return
        *lines, held = (held + read).split(b"\n")
        for line in lines:
            content = json.loads(line)
            end = time.monotonic() + content["seconds"] if content else None
    if os.getppid() != owner:
        return
    reason = f"took longer than --cell-timeout {content['seconds']:g}"
    with contextlib.suppress(OSError), open(content["note"], "a", encoding="utf-8") as file:
        file.write(reason + "\n")
    print(
        f"attnbench: stopped: {content['cell']} {reason}; {content['after']}",
        file=sys.stderr, flush=True,
    )  # fmt: skip
    os.kill(owner, signal.SIGKILL)


if __name__ == "__main__":
    watch(int(sys.argv[1]))
