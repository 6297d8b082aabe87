"""Measure the columns of a run as tasks of a Ray cluster; the records come back and are written here."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import sys
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

from attnbench.errors import NotApplicable, UserError
from attnbench.inputs import models
from attnbench.inputs.settings import Settings
from attnbench.matrix import runner
from attnbench.matrix.console import Listener, Once, Silent
from attnbench.matrix.ledger import Ledger, recorded
from attnbench.matrix.plan import Cell
from attnbench.matrix.sharing import cluster, node, post, travelling, workers
from attnbench.matrix.sharing.leases import Leases, Lost
from attnbench.matrix.sharing.schedule import DENSE
from attnbench.matrix.sharing.workers import Start
from attnbench.records import record, whereabouts
from attnbench.records.record import Record

LOOKS = 0.2  # seconds between two looks at what has come
TRIES = 3  # losses after which a column is given up


def run(
    cells: Sequence[Cell],
    settings: Settings,
    records: str,
    address: str,
    device: str | None = None,
    start: Start | None = None,
    *,
    force: bool = False,
    replace: bool = False,
    cell_timeout: float | None = None,
    fail_fast: bool = False,
    debug: bool = False,
    listener: Listener | None = None,
) -> list[Record]:
    """Measure cells as `runner.run` does, a column a task, with a GPU each where the cluster has some.

    What a task measures comes back cell by cell: a node that is lost costs the cell that it was at, and its
    column goes on elsewhere. Raises as `runner.run` does, and UserError where the cluster does not answer.
    """
    heard = Once(listener or Silent())
    runner.check(cells, settings, records, replace)
    with cluster.connected(address, (start or Start()).verbose) as ray:
        device = device or ("cuda" if ray.cluster_resources().get("GPU", 0) >= 1 else "cpu")
        if settings.measure and device == "cpu":
            raise UserError("--on ray: --measure takes times, which tasks on one processor would change")
        asked = {
            "argv": sys.argv, "force": force, "cell_timeout": cell_timeout, "device": device, "strict": debug,
            "threads": int(os.environ.get("OMP_NUM_THREADS") or 1),
        }  # fmt: skip
        with contextlib.closing(Leases(records)) as leases:
            ledger = Ledger(records, replace, leases=leases)
            driver = _Driver(ray, cells, settings, ledger, heard, asked, start or Start())
            heard.start(len(cells))
            for line in runner.unproven(dict.fromkeys(cell.method for cell in cells)):
                heard.line(line)
            try:
                whole = driver.work(fail_fast)
            except SystemExit as stopped:
                raise KeyboardInterrupt from stopped
            except (ray.exceptions.RayError, ConnectionError) as error:
                raise UserError(f"--on {address}: the cluster is gone: {error}") from error
            finally:
                driver.cancel()
    if not whole:
        return [*driver.found.values()]
    return runner.complete(cells, driver.found, driver.mistakes, records)


class _Driver:
    """Submits columns and writes what comes back."""

    def __init__(
        self,
        ray: Any,
        cells: Sequence[Cell],
        settings: Settings,
        ledger: Ledger,
        heard: Listener,
        asked: dict[str, Any],
        start: Start,
    ) -> None:
        self.ray, self.settings, self.ledger, self.heard = ray, settings, ledger, heard
        self.names = recorded(cells, settings)
        self.ledger.begin(self.names.values())
        self.groups = workers.largest_first(cells, ledger, self.names)
        self.asked = {**asked, "alone": len(runner.by_column(cells)) == 1, "numerics": record.NUMERICS}
        self.start = start
        self.found: dict[Cell, Record] = {}
        self.mistakes: list[UserError] = []
        self._losses: Counter[int] = Counter()
        self._open: set[int] = set(range(len(self.groups)))  # columns with cells to measure
        self._running: dict[Any, int] = {}
        self._held: dict[int, list[Cell]] = {}
        self._nodes: dict[int, str] = {}
        gpus = float(asked["device"].startswith("cuda"))
        self._task = ray.remote(num_cpus=asked["threads"], num_gpus=gpus, max_retries=0, max_calls=1)(
            node.measure
        )
        self._box = post.Box(ray)

    def work(self, fail_fast: bool) -> bool:
        """Measure all columns. Returns whether all were: they are not after a failure that ends the run."""
        while self._open or self._running:
            self._submit()
            if not self._running:
                left = [cell for number in self._open for cell in self._left(number)]
                leases = self.ledger.leases
                assert leases is not None
                self.heard.line(runner.waiting([leases.owner(self._name(cell)) for cell in left]))
                leases.wait()
                continue
            time.sleep(
                LOOKS
            )  # not in Ray's own waiting, which makes SystemExit of a signal's KeyboardInterrupt
            ended, _ = self.ray.wait([*self._running], num_returns=len(self._running), timeout=0)
            self._take()
            for each in ended:
                if each in self._running:  # it has not said so itself
                    self._lose(each)
            if fail_fast and any(item.status == "failed" for item in self.found.values()):
                return False
        return True

    def cancel(self) -> None:
        """End the tasks that run, write what they have posted, and give back what is held."""
        for each in self._running:
            with contextlib.suppress(Exception):  # the cluster may be what is gone
                self.ray.cancel(each, force=True)
        self._running = {}
        posted = []
        with contextlib.suppress(Exception):
            posted = [*self._box.posted(cluster.ANSWERS)]
            self._box.close()
        for number, item, reused in posted:
            if isinstance(item, Record):
                self._write(number, item, reused)

    def _name(self, cell: Cell) -> str:
        return " · ".join(self.names[cell].values())

    def _left(self, number: int) -> list[Cell]:
        return [cell for cell in self.groups[number][1] if cell not in self.found]

    def _submit(self) -> None:
        """Submit the columns that are not running, of each what no other run is measuring."""
        for number in sorted(self._open - {*self._running.values()}):
            column = self.groups[number][0]
            if any(self.groups[other][0] == column for other in self._open if other < number):
                continue  # dense comes first
            leases, left = self.ledger.leases, self._left(number)
            assert leases is not None
            mine = [cell for cell in left if leases.take(self._name(cell))]
            if not mine or (left[0].method == DENSE and left[0] not in mine):
                for cell in mine:
                    leases.release(self._name(cell))
                continue
            self._held[number] = mine
            dense = dataclasses.replace(mine[0], method=DENSE)
            cells = mine if mine[0] == dense or dense not in self.names else [dense, *mine]
            self._running[self._sent(number, cells)] = number

    def _sent(self, number: int, cells: Sequence[Cell]) -> Any:
        """Send a column's cells to a node, with the records that they have, and return its task."""
        luggage, asked = travelling.packed(
            cells, dataclasses.asdict(self.settings), self.start.plugins, self.start.folders
        )
        for cell in cells:
            path = record.path_of(self.ledger.folder, self.names[cell])
            for file in (path, path.with_suffix(".npz")):
                if file.exists():
                    place = record.path_of("records", self.names[cell]).with_suffix(file.suffix)
                    luggage.files[place.as_posix()] = file.read_bytes()
        return self._task.remote(number, luggage, {**self.asked, **asked}, self._box.post)

    def _take(self) -> None:
        """Write what has come back."""
        for number, item, reused in self._box.posted():
            if isinstance(item, str):
                self.heard.line(item)
            elif isinstance(item, post.Began):
                self._nodes[number] = item.node
            elif isinstance(item, post.Ended):
                self._end(number, item.mistake)
            else:
                self._write(number, item, reused)

    def _write(self, number: int, item: Record, reused: bool) -> None:
        cell = next(each for each in self.groups[number][1] if self.names[each] == item.cell)
        if cell in self.found or cell not in self._held.get(number, []):
            return
        if not reused:
            self._place(cell, item)
            with contextlib.suppress(Lost):  # this process stood still: what the other records counts
                self.ledger.write(item)
        self.found[cell] = item
        self.heard.finish(item, reused)
        self._release(number, cell)

    def _place(self, cell: Cell, item: Record) -> None:
        """Say where a column's things lie on this machine, not in a node's temporary folder."""
        if "places" in item.provenance:
            with contextlib.suppress(UserError, NotApplicable):
                found = models.find(cell.model, cell.task, self.settings.trust_remote_code)
                item.provenance["places"] = whereabouts.of(found, cell.task, self.settings)

    def _release(self, number: int, cell: Cell) -> None:
        assert self.ledger.leases is not None
        self.ledger.leases.release(self._name(cell))
        self._held[number].remove(cell)

    def _lose(self, task: Any) -> None:
        """Hear why a task has ended that did not say so: as a rule its node is gone."""
        why = "not all that it measured came back"
        try:
            self.ray.get(task)
        except self.ray.exceptions.RayError as error:
            why = str(error).strip().splitlines()[0]
        self._end(self._running[task], None, why)

    def _end(self, number: int, mistake: str | None, why: str = "") -> None:
        """Close a column; what it has lost is submitted again, some times.

        It is closed by its own word, not by the state of its task: through Ray's client that may never come.
        """
        for task in [each for each, other in self._running.items() if other == number]:
            del self._running[task]
        model, name = self.groups[number][0]
        shown = f"{models.label(model)} · {name}"
        lost = self._held.pop(number, [])
        for cell in lost:
            assert self.ledger.leases is not None
            self.ledger.leases.release(self._name(cell))
        if mistake is None and lost:
            self._losses[number] += 1
            place = self._nodes.pop(number, "no node yet")
            gone = f"its task on {place} was lost: {why}"
            mistake = gone if self._losses[number] == TRIES else None
            then = "it is given up" if mistake else "what it had not measured is begun again"
            self.heard.line(f"{shown}: {gone}; {then}")
        if mistake is None and self._left(number):
            return
        self._open.discard(number)
        if mistake is not None:
            if self.asked["alone"] or self.asked["strict"]:
                raise UserError(mistake)
            self.mistakes.append(UserError(mistake))
            self.heard.line(f"{shown}: not measured: {mistake}")
