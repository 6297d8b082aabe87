"""Processes that measure cells: started, told what to do, heard, and ended."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

from attnbench.matrix.plan import Cell
from attnbench.matrix.sharing.schedule import Group

GRACE = 15.0  # seconds that a worker has to end in


class Worker:
    """One process, and what it is at."""

    def __init__(self, number: int, asked: dict[str, Any], environment: dict[str, str]) -> None:
        self.number, self.ready = number, False
        self.group: Group | None = None  # whose column it has open
        self.cell: Cell | None = None  # that it measures
        path = os.pathsep.join(each or os.getcwd() for each in sys.path)
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "attnbench.matrix.sharing.worker"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            env={**os.environ, **environment, "PYTHONPATH": path},
        )  # fmt: skip
        assert self._process.stdout is not None
        self.output = self._process.stdout.fileno()
        self._held = b""
        self.tell(**asked)

    def tell(self, **message: Any) -> None:
        """Send a message; one that has ended is noticed by who listens."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(message).encode() + b"\n")
            self._process.stdin.flush()

    def events(self) -> Iterator[dict[str, Any]]:
        """Yield what it has told since."""
        while select.select([self.output], [], [], 0)[0] and (read := os.read(self.output, 1 << 16)):
            *lines, self._held = (self._held + read).split(b"\n")
            yield from map(json.loads, lines)

    @property
    def name(self) -> str:
        return f"worker {self.number}, process {self._process.pid}"

    @property
    def ended(self) -> str | None:
        """Say how the process has ended, None while it lives."""
        status = self._process.poll()
        if status is None:
            return None
        return f"killed by {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"

    def stop(self, at_once: bool) -> None:
        """Let it end: at once, as Ctrl-C ends a run, or with nothing more to do."""
        with contextlib.suppress(OSError):
            assert self._process.stdin is not None
            self._process.stdin.close()
        if at_once and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)

    def wait(self, until: float) -> None:
        """Wait for its end, and make one where it does not come."""
        try:
            self._process.wait(max(0.0, until - time.monotonic()))
        except BaseException as error:
            self._process.kill()
            self._process.wait()
            if not isinstance(error, subprocess.TimeoutExpired):
                raise
        finally:
            assert self._process.stdout is not None
            self._process.stdout.close()


def end(workers: Sequence[Worker], at_once: bool) -> None:
    """End workers; none is left, whatever happens meanwhile."""
    for worker in workers:
        worker.stop(at_once)
    with contextlib.ExitStack() as stack:
        until = time.monotonic() + GRACE
        for worker in workers:
            stack.callback(worker.wait, until)
