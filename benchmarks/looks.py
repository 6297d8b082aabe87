"""What studies cost: a look at a task's documents against the eager passes that it needs.

    OMP_NUM_THREADS=1 python benchmarks/looks.py --model ./minilm-sst2 --task sst2 [--limit 200]
        [--studies distribution,sparsity,divergence,roles] [--methods prune80] [--rounds 5] [--each]

Each round runs the model in eager attention, attentions returned, over the batches that the look has, once
densely and once more for each method; and lets the studies look, densely and with the methods. The ratio is
that of a round's two times; medians over rounds. `--each`: every study alone too.
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any


def eager(model: Any, batches: list[Any], passes: int) -> float:
    """Return the seconds of so many eager passes over all batches."""
    import torch

    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        started = time.perf_counter()
        with torch.no_grad():
            for _ in range(passes):
                for batch in batches:
                    model(**batch.inputs, output_attentions=True)
        return time.perf_counter() - started
    finally:
        model.set_attn_implementation(before)


def looked(opened: Any, studies: list[str], methods: dict[str, Any]) -> float:
    """Return the seconds of a look, tables included."""
    from attnbench.methods import spec
    from attnbench.studies.passes import conduct

    started = time.perf_counter()
    for seen in conduct(opened.model, list(map(spec.parse_study, studies)), opened.reading, methods):
        if seen.failed or seen.absent:
            raise SystemExit(f"{seen.name}: {seen.failed or seen.absent}")
        seen.tables()
    return time.perf_counter() - started


def main() -> None:
    from attnbench.inputs.settings import Settings
    from attnbench.studies import opening

    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="bert")
    parser.add_argument("--task", default="pocket-sentiment")
    parser.add_argument("--limit", type=int, default=200)
    parser.add_argument("--studies", default="distribution,sparsity,divergence,roles")
    parser.add_argument("--methods", default="")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--each", action="store_true")
    options = parser.parse_args()
    opened = opening.Opened(options.model, options.task, (), Settings(limit=options.limit))
    methods = opened.learned(opening.parsed([text for text in options.methods.split(",") if text]))
    batches = list(opened.reading.batches(opened.reading.given))
    studies = options.studies.split(",")
    sets = [studies, *([each] for each in studies if options.each)]
    ratios: dict[str, list[float]] = {",".join(each): [] for each in sets}
    times = []
    for _ in range(options.rounds + 1):
        for each in sets:
            passes = eager(opened.model, batches, 1 + len(methods))
            ratios[",".join(each)].append(looked(opened, each, methods) / passes)
            times.append(passes)
    shown = f"{len(opened.reading.given)} documents, {1 + len(methods)} passes of {len(batches)} batches"
    print(f"{shown}: eager {statistics.median(times):.2f} s")
    for name, found in ratios.items():
        print(f"{name}: {statistics.median(found[1:]):.2f} times that")


if __name__ == "__main__":
    main()
