"""Measure what a cell costs beside its evaluation: sparsity, bits, heads and divergence of attention.

    HF_HOME=... python benchmarks/cell.py --model PATH --task sst2 [--limit 50] [--specs prune80,logquant3]

CPU time on one thread, in turns: the evaluation alone, the evaluation that looks at attention in its own
passes, as a run does, and the evaluation with a pass of its own for that. Ratios to the first, medians over
rounds with the lowest and the highest.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable

os.environ.setdefault("OMP_NUM_THREADS", "1")

SPECS = "prune80,logquant3,heads50:l2,window16,kvint8:everywhere"


def seconds(run: Callable[[], object]) -> float:
    started = time.process_time()
    run()
    return time.process_time() - started


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True)
    parser.add_argument("--task", default="sst2")
    parser.add_argument("--limit", type=int, default=50)
    parser.add_argument("--specs", default=SPECS)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()

    import torch

    from attnbench import apply, parse
    from attnbench.inputs.settings import Settings
    from attnbench.matrix import console
    from attnbench.matrix.bench import Bench
    from attnbench.measures.along import Along
    from attnbench.measures.measure import SAMPLES, measure
    from attnbench.methods.protocol import needs_fit

    console.quiet(False)
    torch.set_num_threads(1)
    bench = Bench(options.model, options.task, Settings(limit=options.limit))
    model, prepared = bench.model, bench.prepared
    print(
        f"| method | {options.limit} samples of {options.task}, alone | in its own passes | in a pass more |"
    )
    print("|---|---|---|---|")
    for spec in options.specs.split(","):
        methods = parse(spec)
        for method in methods:
            if needs_fit(method):
                method.fit(model, bench.calibration())

        def alone() -> None:
            with apply(model, *methods):  # noqa: B023
                prepared.evaluate(model, None, **bench.serving)

        def along() -> None:
            seen = Along(model, bench.batches(SAMPLES), methods)  # noqa: B023
            with seen.applied():
                prepared.evaluate(model, None, **bench.serving)
            seen.found()

        def beside() -> None:
            alone()
            measure(model, bench.batches(SAMPLES), methods)  # noqa: B023

        ways, rows = (alone, along, beside), []
        for number in range(options.rounds + 1):
            order = range(3) if number % 2 else reversed(range(3))
            spent = {place: seconds(ways[place]) for place in order}
            rows += [spent] if number else []
        told = [f"{statistics.median(row[0] for row in rows):.2f} s"]
        for place in (1, 2):
            ratios = [row[place] / row[0] for row in rows]
            told.append(f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")
        print(f"| {spec} | {' | '.join(told)} |", flush=True)


if __name__ == "__main__":
    main()
