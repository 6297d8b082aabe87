"""What the harness costs: `run` against the bare forward passes over the same batches and cold processes.

    HF_HOME=... python benchmarks/harness.py --model PATH --task sst2 [--cold]

`run` is timed whole, imports aside, records in a fresh folder: checkpoint, dataset, tokenising, eager
comparison, four cells {dense, uniform, logquant3, prune80}, statistics. The bare passes are the dense model
over the same batches, once a cell. --cold times one process a cell too, as lm-eval's command line would be
used. Rounds alternate; medians.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time

METHODS = ("dense", "uniform", "logquant3", "prune80")


def bare(model_name: str, task: str, limit: int | None) -> float:
    """Time the forward passes of the four cells with nothing around them."""
    import torch

    from attnbench.backends.lm_eval import prepare
    from attnbench.inputs import models
    from attnbench.inputs.settings import Settings

    checkpoint = models.find(model_name, task)
    prepared = prepare(task, checkpoint, Settings(limit=limit))
    model = checkpoint.load(prepared.head)
    batches = prepared.batches(prepared.samples)
    started = time.perf_counter()
    with torch.inference_mode():
        for _ in METHODS:
            for batch in batches:
                model(**batch)
    return time.perf_counter() - started


def whole(model_name: str, task: str, limit: int | None) -> float:
    from attnbench import run

    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        run(model_name, list(METHODS[2:]), task, limit=limit, records=folder).table()
        return time.perf_counter() - started


def cold(model_name: str, task: str, limit: int | None) -> float:
    """Time four processes, one a cell: what a loop over lm-eval's command line does."""
    started = time.perf_counter()
    for method in METHODS:
        arguments = f"pretrained={model_name},method={method}"
        command = [
            sys.executable,
            "-m",
            "attnbench",
            "lm-eval",
            "run",
            "--model",
            "attnbench",
            "--model_args",
            arguments,
            "--tasks",
            task,
        ]
        subprocess.run(
            [*command, *(["--limit", str(limit)] if limit else [])], check=True, capture_output=True
        )
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True)
    parser.add_argument("--task", default="sst2")
    parser.add_argument("--limit", type=int)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cold", action="store_true")
    options = parser.parse_args()

    from attnbench.matrix import console

    console.quiet(False)
    import lm_eval.evaluator  # noqa: F401
    import torch
    import transformers

    from attnbench.matrix import runner  # noqa: F401

    transformers.AutoModelForSequenceClassification  # noqa: B018
    print(f"{torch.get_num_threads()} threads, {options.rounds} rounds", file=sys.stderr)
    arguments = (options.model, options.task, options.limit)
    whole(options.model, options.task, 8)
    rows = [(bare(*arguments), whole(*arguments)) for _ in range(options.rounds)]
    ratio = statistics.median(run / forward for forward, run in rows)
    bare_seconds = statistics.median(forward for forward, _ in rows)
    print("| what | median seconds | ratio to the bare passes |\n|---|---|---|")
    print(f"| bare forward passes, 4 cells | {bare_seconds:.2f} | 1.00 |")
    print(
        f"| `run`, 4 cells, imports aside | {statistics.median(run for _, run in rows):.2f} | {ratio:.2f} |"
    )
    if options.cold:
        seconds = cold(*arguments)
        print(f"| 4 cold processes, one a cell | {seconds:.2f} | {seconds / bare_seconds:.2f} |")


if __name__ == "__main__":
    main()
