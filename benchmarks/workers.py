"""What several workers are worth: the cells of one column by one process, and by N.

    OMP_NUM_THREADS=1 python benchmarks/workers.py --workers 2 [--methods 38] [--limit 200] [--rounds 3]

Each round runs the same cells by one worker and by N into fresh folders, by turns; medians. The start-up of a
worker is the time from its first instruction to its first word, imports included. Records are compared, time
and machine aside. Cores that others use make both slower and the ratio meaningless: leave them idle. The
most that the machine allows is printed below: N processes that only read sentences by the bare model, each as
many as one that is alone, from when all are ready.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

PASSES = 200  # of the bare model: some ten seconds
LONGEST = 600  # seconds after which a process that does not answer has failed


def timed(cells: list[Any], settings: Any, workers: int) -> tuple[float, dict[str, Any]]:
    """Return the seconds that cells take by so many workers, and their records by method."""
    from attnbench.matrix.sharing import workers as several

    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        found = several.run(cells, settings, str(Path(folder, "r")), workers)
        return time.perf_counter() - started, {item.cell["method"]: item for item in found}


def start_up(settings: Any) -> float:
    """Return the seconds from a worker's start to its first word."""
    import dataclasses
    import sys

    from attnbench.matrix.sharing.pool import Worker, end

    with tempfile.TemporaryDirectory() as folder:
        asked = {
            "argv": sys.argv, "path": None, "records": folder, "plugins": [], "folders": [], "verbose": False,
            "settings": dataclasses.asdict(settings), "alone": True, "force": False, "replace": False,
            "strict": False, "cell_timeout": None,
        }  # fmt: skip
        started = time.perf_counter()
        worker = Worker(1, asked, {})
        try:
            while not any("ready" in event for event in worker.events()):
                time.sleep(0.01)
            return time.perf_counter() - started
        finally:
            end([worker], at_once=True)


def bare(model: str, task: str, processes: int) -> float:
    """Return the seconds in which each of so many processes reads the same batch PASSES times."""
    import multiprocessing

    context = multiprocessing.get_context("spawn")
    ready, done = context.Barrier(processes + 1), context.Barrier(processes + 1)
    threads = max(1, (os.cpu_count() or 1) // processes)
    given = (model, task, threads, ready, done)
    readers = [context.Process(target=read, args=given) for _ in range(processes)]
    for reader in readers:
        reader.start()
    ready.wait(timeout=LONGEST)
    started = time.perf_counter()
    done.wait(timeout=LONGEST)
    taken = time.perf_counter() - started
    for reader in readers:
        reader.join()
    return taken


def read(model: str, task: str, threads: int, ready: Any, done: Any) -> None:
    """Read one batch again and again, when all are ready."""
    import torch

    from attnbench.inputs.settings import Settings
    from attnbench.matrix.bench import Bench

    torch.set_num_threads(threads)
    bench = Bench(model, task, Settings(limit=32))
    (batch,) = bench.batches(32)[:1]
    inputs = {name: tensor for name, tensor in batch.items() if name != "labels"}
    with torch.no_grad():
        bench.model(**inputs)
        ready.wait()
        for _ in range(PASSES):
            bench.model(**inputs)
    done.wait()


def main() -> None:
    """Print a row for each number of workers."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--model", default="bert")
    options.add_argument("--task", default="pocket-sentiment")
    options.add_argument("--workers", type=int, default=2)
    options.add_argument("--methods", type=int, default=38)
    options.add_argument("--limit", type=int, default=200)
    options.add_argument("--rounds", type=int, default=3)
    asked = options.parse_args()
    from attnbench.matrix.plan import plan
    from attnbench.matrix.request import Request

    methods = [f"prune{1 + k}" for k in range(asked.methods)]
    request = Request.of([asked.model], methods, [asked.task], limit=asked.limit)
    cells = plan(request)
    seconds: dict[int, list[float]] = {1: [], asked.workers: []}
    records: list[dict[str, Any]] = []
    for _ in range(asked.rounds):
        for workers, found in seconds.items():
            taken, measured = timed(cells, request.settings, workers)
            found.append(taken)
            records.append(measured)
    for each in records:
        assert {name: item.metrics for name, item in each.items()} == {
            name: item.metrics for name, item in records[0].items()
        }
    one = statistics.median(seconds[1])
    print("| workers | cells | median seconds | times as fast |\n|---|---|---|---|")
    for workers, found in seconds.items():
        median = statistics.median(found)
        print(f"| {workers} | {len(cells)} | {median:.1f} | {one / median:.2f} |")
    print(f"\nstart-up of a worker: {start_up(request.settings):.1f} s")
    n = asked.workers
    alone, together = (
        statistics.median(bare(asked.model, asked.task, k) for _ in range(asked.rounds)) for k in (1, n)
    )
    print(f"{n} processes of the bare model: {n * alone / together:.2f} times as fast as one")


if __name__ == "__main__":
    main()
