"""One of several processes that measure cells: it is told cells on stdin and tells of them on stdout.

Both are lines of JSON. `workers.py` starts it, and it ends where that ends.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import traceback
from collections.abc import Iterator
from typing import IO, Any, NoReturn

from attnbench.errors import UserError
from attnbench.inputs.settings import Settings
from attnbench.matrix import console
from attnbench.matrix.desk import Desk
from attnbench.matrix.ledger import Ledger
from attnbench.matrix.plan import Cell
from attnbench.matrix.sharing.leases import Leases
from attnbench.matrix.watchdog import Watchdog
from attnbench.methods import plugins
from attnbench.records.record import Record


class Teller:
    """Listen to a column, and pass on what is said."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def tell(self, **event: Any) -> None:
        self._stream.write(json.dumps(event) + "\n")
        self._stream.flush()

    def start(self, cells: int) -> None: ...
    def begin(self, cell: str) -> None: ...
    def advance(self, cells: float) -> None: ...
    def finish(self, record: Record, reused: bool) -> None: ...

    def line(self, text: str) -> None:
        self.tell(line=text)


def main() -> int:
    """Measure what stdin names until it is closed. Returns the exit status."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # who started this decides: a terminal tells all of them
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _stop)
    driver = os.dup(0)
    teller = Teller(os.fdopen(os.dup(1), "w", encoding="utf-8"))
    os.dup2(2, 1)  # methods may print
    sys.stdout = sys.stderr
    try:
        asked = json.loads(sys.stdin.readline() or "null")
        if asked is not None:
            with _at_work(asked, driver, teller) as desk:
                teller.tell(ready=True)
                for line in sys.stdin:
                    _measure(desk, json.loads(line), teller)
    except KeyboardInterrupt as stopped:
        return 128 + int(str(stopped) or signal.SIGINT)
    except BrokenPipeError:  # who started this has gone
        return 1
    except BaseException:
        teller.tell(bug=traceback.format_exc())
        return 1
    return 0


def _stop(number: int, frame: object) -> NoReturn:
    for each in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, signal.SIG_IGN)  # a second one would cut short what the first has begun
    raise KeyboardInterrupt(number)


@contextlib.contextmanager
def _at_work(asked: dict[str, Any], driver: int, teller: Teller) -> Iterator[Desk]:
    sys.argv = asked["argv"]  # records say by which command they were measured
    if asked["path"] is None:
        os.environ.pop("PYTHONPATH", None)
    else:
        os.environ["PYTHONPATH"] = asked["path"]
    console.quiet(asked["verbose"])
    with open(os.devnull, "w", encoding="utf-8") as nowhere, contextlib.redirect_stderr(nowhere):
        plugins.load(asked["plugins"], asked["folders"])  # what is wrong there has been said once
    with contextlib.ExitStack() as stack:
        limit = asked["cell_timeout"]
        watchdog = limit and stack.enter_context(
            contextlib.closing(Watchdog(limit, "another worker goes on with the others"))
        )
        leases = stack.enter_context(contextlib.closing(Leases(asked["records"], driver)))
        ledger = Ledger(asked["records"], asked["replace"], watchdog or None, leases)
        yield Desk(
            Settings.of(asked["settings"]), ledger, teller,
            alone=asked["alone"], force=asked["force"], strict=asked["strict"],
        )  # fmt: skip


def _measure(desk: Desk, message: dict[str, Any], teller: Teller) -> None:
    """Measure one cell and tell what came of it."""
    named = message["named"]
    desk.ledger.resume(named, message["stamp"])
    for each in message["done"]:
        desk.ledger.done(each)
    try:
        found = desk.measure(Cell(*message["cell"]), named, [Cell(*each) for each in message["others"]])
    except UserError as error:
        teller.tell(mistake=str(error))
        return
    if found is None:
        owner = desk.ledger.leases.owner(" · ".join(named.values())) if desk.ledger.leases else ""
        teller.tell(elsewhere=owner)
    else:
        teller.tell(finish=found[0].body(), reused=found[1])


if __name__ == "__main__":
    sys.exit(main())
