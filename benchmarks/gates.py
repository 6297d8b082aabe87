"""Sweep the penalty of Hard Concrete gates: heads kept, their score, that of as many random heads.

    python benchmarks/gates.py
    HF_HOME=... HF_HUB_OFFLINE=1 python benchmarks/gates.py --model MODELS/minilm-sst2 --task sst2 \\
        --limit 872 --draws 5 --penalties 0.001,0.003,0.01,0.03,0.1

The same samples for every row; random heads are the mean over the draws, with the lowest and the highest.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Iterator
from typing import Any


def random_heads(alive: dict[tuple[str, int], Any], draws: int) -> Iterator[str]:
    """Yield specs that close as many heads of a kind as the gates did, drawn over all its layers."""
    places = [(kind, f"{layer}.{head}") for (kind, layer), row in alive.items() for head in range(len(row))]
    kinds = sorted({kind for kind, _ in places})
    for draw in range(draws):
        rng = random.Random(draw)
        terms = []
        for kind in kinds:
            own = [place for each, place in places if each == kind]
            closed = sum(int((row == 0).sum()) for (each, _), row in alive.items() if each == kind)
            if closed:
                off = ":".join(f"off={place}" for place in sorted(rng.sample(own, closed)))
                terms.append(f"heads:fixed:{off}:on={kind}")
        yield "+".join(terms)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", default="bert")
    parser.add_argument("--task", default="pocket-sentiment")
    parser.add_argument("--limit", type=int, default=1000)
    parser.add_argument("--penalties", default="0.01,0.03,0.1,0.2,0.3,0.5")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--lr", type=float, default=0.15)
    parser.add_argument("--draws", type=int, default=10)
    options = parser.parse_args()

    from attnbench import apply, parse
    from attnbench.backends import lm_eval
    from attnbench.inputs import models
    from attnbench.inputs.settings import Settings

    checkpoint = models.find(options.model, options.task)
    prepared = lm_eval.prepare(options.task, checkpoint, Settings(limit=options.limit))
    model = checkpoint.load(prepared.head)
    calibration = prepared.calibration()

    def score(*methods: Any) -> float:
        with apply(model, *methods):
            metrics = prepared.evaluate(model, batch_size=32).metrics
        return 100 * float(next(iter(metrics.values()))["value"])

    print(f"{checkpoint.name}, {prepared.samples} samples of {options.task}, dense {score():.1f}\n")
    print("| penalty | heads kept | score | random heads, as many |\n|---|---|---|---|")
    for penalty in options.penalties.split(","):
        (gates,) = parse(f"gates:l0:lr={options.lr}:penalty={penalty}:steps={options.steps}")
        gates.fit(model, calibration)
        alive: dict[tuple[str, int], Any] = gates.alive_
        kept, total = (sum(int(f(row)) for row in alive.values()) for f in (lambda row: row.sum(), len))
        drawn = "the same"
        if 0 < kept < total:
            found = [score(*parse(spec)) for spec in random_heads(alive, options.draws)]
            drawn = f"{sum(found) / len(found):.1f} ({min(found):.1f} to {max(found):.1f})"
        print(f"| {penalty} | {kept} of {total} | {score(gates):.1f} | {drawn} |", flush=True)


if __name__ == "__main__":
    main()
