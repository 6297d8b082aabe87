"""Measure the cells of a run by several processes of this machine; one that ends costs its cell alone."""

from __future__ import annotations

import dataclasses
import os
import select
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from attnbench.errors import UserError
from attnbench.inputs import models
from attnbench.inputs.settings import Settings
from attnbench.matrix import runner
from attnbench.matrix.console import Listener, Once, Silent
from attnbench.matrix.estimate import seconds_left
from attnbench.matrix.ledger import Ledger, recorded
from attnbench.matrix.plan import Cell
from attnbench.matrix.sharing import leases
from attnbench.matrix.sharing.pool import Worker, end
from attnbench.matrix.sharing.schedule import DENSE, Group, Schedule
from attnbench.records import record
from attnbench.records.record import Record

TRIES = 2  # deaths after which a column is given up, and a worker that never begins


@dataclasses.dataclass(frozen=True)
class Start:
    """What a worker needs to begin: plugin files, folders of such, and whether the libraries may talk."""

    plugins: Sequence[str] = ()
    folders: Sequence[str] = ()
    verbose: bool = False


def run(
    cells: Sequence[Cell],
    settings: Settings,
    records: str,
    workers: int,
    start: Start | None = None,
    *,
    force: bool = False,
    replace: bool = False,
    cell_timeout: float | None = None,
    fail_fast: bool = False,
    debug: bool = False,
    alone: bool | None = None,
    listener: Listener | None = None,
) -> list[Record]:
    """Measure cells as `runner.run` does, by `workers` processes: the column first that will take longest.

    Each has a device of its own where there are several, else its part of the processor's threads. One that
    ends is named and replaced, and its cell has failed. Raises as `runner.run` does; `alone` says whether
    the cells are of the only column that was asked for, where they are not all.
    """
    heard = Once(listener or Silent())
    runner.check(cells, settings, records, replace)
    environments = _environments(settings, min(workers, len(cells)))
    only = len(runner.by_column(cells)) == 1
    asked = {
        "argv": sys.argv, "path": os.environ.get("PYTHONPATH"), "records": records,
        **dataclasses.asdict(start or Start()),
        "settings": dataclasses.asdict(settings), "alone": alone if alone is not None else only,
        "force": force, "replace": replace, "strict": debug or fail_fast, "cell_timeout": cell_timeout,
    }  # fmt: skip
    driver = _Driver(cells, settings, records, heard, fail_fast, debug)
    heard.start(len(cells))
    for line in runner.unproven(dict.fromkeys(cell.method for cell in cells)):
        heard.line(line)
    whole = False
    try:
        driver.start(asked, environments)
        whole = driver.work()
    finally:
        end(driver.workers, at_once=not whole)
    if not whole:
        return [*driver.found.values()]
    return runner.complete(cells, driver.found, driver.mistakes, records)


def _environments(settings: Settings, workers: int) -> list[dict[str, str]]:
    """Return what each worker's environment has of its own. Raises UserError where times would be wrong."""
    devices: list[str] = []
    if settings.device == "cuda":
        import torch

        given = os.environ.get("CUDA_VISIBLE_DEVICES")
        devices = given.split(",") if given else [str(k) for k in range(torch.cuda.device_count())]
    if settings.measure and len(devices) < workers:
        raise UserError(
            f"--workers {workers}: --measure takes times, which workers that share a device would change: "
            "give as many as there are devices, or none"
        )
    if devices:
        return [{"CUDA_VISIBLE_DEVICES": devices[k % len(devices)]} for k in range(workers)]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = os.environ.get("OMP_NUM_THREADS") or str(max(1, cores // workers))
    return [{"OMP_NUM_THREADS": threads} for _ in range(workers)]


class _Driver:
    """Hands cells to workers and hears of them."""

    def __init__(
        self,
        cells: Sequence[Cell],
        settings: Settings,
        records: str,
        heard: Listener,
        fail_fast: bool,
        debug: bool,
    ) -> None:
        self.heard, self.fail_fast, self.debug = heard, fail_fast, debug
        self.names = recorded(cells, settings)
        self.ledger = Ledger(records)
        self.ledger.begin(self.names.values())
        self.columns = runner.by_column(cells)
        self.schedule = Schedule(largest_first(cells, self.ledger, self.names))
        self.found: dict[Cell, Record] = {}
        self.mistakes: list[UserError] = []
        self.workers: list[Worker] = []
        self._given_up: set[tuple[str, str]] = set()
        self._deaths: Counter[Cell | None] = Counter()
        self._again = 0.0

    def start(self, asked: dict[str, Any], environments: Sequence[dict[str, str]]) -> None:
        """Start the workers."""
        self._asked, self._environments = asked, environments
        for number in range(len(environments)):
            self.workers.append(self._begun(number))

    def _begun(self, number: int) -> Worker:
        return Worker(number + 1, self._asked, self._environments[number])

    def work(self) -> bool:
        """Hand out all cells. Returns whether all were, which they are not after a failure that ends a run.

        Raises UserError for a mistake in the only column.
        """
        while True:
            for worker in self.workers:
                if worker.ready and worker.cell is None:
                    self._hand_out(worker)
            busy = [worker for worker in self.workers if worker.cell is not None]
            if not busy and not self.schedule.left:
                return True
            select.select([worker.output for worker in self.workers], [], [], leases.PAUSE)
            for number, worker in enumerate(self.workers):
                gone = worker.ended  # before it is heard for the last time
                for event in worker.events():
                    self._hear(worker, event)
                if gone is not None:
                    self._bury(number, gone)
            if self.fail_fast and any(item.status == "failed" for item in self.found.values()):
                return False
            if time.monotonic() >= self._again:
                self.schedule.again()
                self._again = time.monotonic() + leases.PAUSE

    def _hand_out(self, worker: Worker) -> None:
        taken = self.schedule.take(worker.group)
        if taken is None:
            return
        worker.group, worker.cell = taken
        cell, named = worker.cell, self.names[worker.cell]
        self.heard.begin(" · ".join(named.values()))
        dense = Cell(cell.model, cell.task, DENSE)
        worker.tell(
            cell=dataclasses.astuple(cell), named=named, stamp=self.ledger.stamp(named),
            done=[self.names[dense]] if dense in self.found else [],
            others=[dataclasses.astuple(each) for each in self.columns.pop((cell.model, cell.task), [])],
        )  # fmt: skip

    def _hear(self, worker: Worker, event: dict[str, Any]) -> None:
        if "line" in event:
            self.heard.line(event["line"])
        elif "ready" in event:
            worker.ready = True
            self._deaths.pop(None, None)
        elif "bug" in event:
            raise RuntimeError(f"{worker.name}:\n{event['bug']}")
        else:
            assert worker.group is not None and worker.cell is not None
            cell, worker.cell = worker.cell, None
            self._told(worker.group, cell, event)

    def _told(self, group: Group, cell: Cell, event: dict[str, Any]) -> None:
        if "elsewhere" in event:
            self.heard.line(runner.waiting([event["elsewhere"]]))
            self.schedule.elsewhere(group, cell)
        elif "mistake" in event:
            self._give_up(group, UserError(event["mistake"]))
        else:
            self.schedule.done(group, cell)
            self.found[cell] = self._read(cell, event["finish"])
            self.heard.finish(self.found[cell], event["reused"])

    def _read(self, cell: Cell, body: dict[str, Any]) -> Record:
        """Return a cell's record: what a worker tells, and of what was measured the samples from its file."""
        if body["status"] != "measured":
            return Record(**body)
        try:
            return record.read(record.path_of(self.ledger.folder, self.names[cell]))
        except ValueError as error:
            raise UserError(str(error)) from error

    def _give_up(self, group: Group, mistake: UserError) -> None:
        if self._asked["alone"] or self.debug or self.fail_fast:
            raise mistake
        if (group.model, group.task) not in self._given_up:  # several may be at one column
            self._given_up.add((group.model, group.task))
            self.mistakes.append(mistake)
            self.heard.line(f"{models.label(group.model)} · {group.task}: not measured: {mistake}")
            self.schedule.drop(group)

    def _bury(self, number: int, how: str) -> None:
        """Name a worker that has ended, and begin another, which records of the cell how that ended it."""
        gone = self.workers[number]
        where = " · ".join(self.names[gone.cell].values()) if gone.cell else ""
        self.heard.line(f"{gone.name}, has ended{' at ' + where if where else ''}: {how}; another goes on")
        self._deaths[gone.cell] += 1
        last = self._deaths[gone.cell] == TRIES
        if gone.cell is None and last:
            raise UserError(f"workers end as soon as they begin: {how}")
        end([gone], at_once=True)
        self.workers[number] = self._begun(number)
        if gone.cell is not None and gone.group is not None:
            self.schedule.back(gone.group, gone.cell)
            if last:
                self._give_up(gone.group, UserError(f"workers end before {where} is begun: {how}"))


def largest_first(
    cells: Sequence[Cell], ledger: Ledger, names: Mapping[Cell, dict[str, str]]
) -> list[tuple[tuple[str, str], list[Cell]]]:
    """Return cells by column, the one first that will take longest; what has ended a process comes last."""
    left = seconds_left(ledger.folder, [(*_column(names[cell]), names[cell]["method"]) for cell in cells])
    groups = [*runner.grouped(cells, ledger, names)]
    seen: set[tuple[str, str]] = set()
    keys = []
    for column, mine in groups:
        keys.append((column in seen, -left[_column(names[mine[0]])]))
        seen.add(column)
    return [groups[place] for place in sorted(range(len(groups)), key=keys.__getitem__)]


def _column(named: Mapping[str, str]) -> tuple[str, str]:
    return named["model"], named["task"]
