"""What BLiMP costs: preparing all 67 paradigms once and three methods, against bare forward passes.

    HF_HOME=... HF_HUB_OFFLINE=1 python benchmarks/blimp.py [--model FOLDER] [--limit N] [--rounds N]

The bare passes are the dense model over the same distinct inputs in the same batches, once a method, with
nothing around them. Evaluations and bare passes alternate; medians over the rounds, in CPU seconds of this
process, all threads together. Imports and loading the checkpoint are left out.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import statistics
import time
from typing import Any

METHODS = ("dense", "logquant3", "prune80")


def bare(prepared: Any, model: Any, batch_tokens: int | None) -> float:
    """Time the dense model on each distinct input of the task once."""
    import torch

    lm = prepared._lm
    lm.batch_tokens = batch_tokens
    inputs = list({row.ids for rows in lm.inputs.rows(prepared.task.instances) for row in rows})
    batches = [
        lm.inputs.collate([inputs[k] for k in chosen]) for chosen in lm.batches([len(ids) for ids in inputs])
    ]
    started = time.process_time()
    with torch.no_grad():
        for batch in batches:
            model(**batch, use_cache=False)
    return time.process_time() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", help="folder of a causal checkpoint (pocket-gpt)")
    parser.add_argument("--task", default="blimp")
    parser.add_argument("--limit", type=int, help="pairs of each paradigm (all 1,000)")
    parser.add_argument("--batch-tokens", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=1)
    options = parser.parse_args()
    logging.disable(logging.WARNING)

    import lm_eval.evaluator  # noqa: F401

    from attnbench.backends.causal.prepared import prepare
    from attnbench.engine.serving.attention import apply
    from attnbench.inputs import models
    from attnbench.inputs.settings import Settings
    from attnbench.inputs.tasks import find

    folder = options.model or str(models.checkpoint("gpt"))
    checkpoint = models.Checkpoint("model", folder, "folder")
    model = checkpoint.load("causal-lm")
    started = time.process_time()
    prepared = prepare(find(options.task, None, "causal"), checkpoint, Settings(limit=options.limit))
    seconds: dict[str, list[float]] = {"prepare": [time.process_time() - started]}
    print(f"{prepared.samples} samples, {len(prepared.task.instances)} requests, {folder}")
    for _ in range(options.rounds):
        for method in METHODS:
            with apply(model, method) if method != "dense" else contextlib.nullcontext():
                started = time.process_time()
                prepared.evaluate(model, batch_tokens=options.batch_tokens)
                seconds.setdefault(method, []).append(time.process_time() - started)
            seconds.setdefault("bare", []).append(bare(prepared, model, options.batch_tokens))
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    for name, value in medians.items():
        print(f"{name:12} {value:8.1f} s   {value / medians['bare']:.2f} of a bare pass")
    total = sum(value for name, value in medians.items() if name != "bare")
    print(f"all {total:.1f} s: {total / (len(METHODS) * medians['bare']):.2f} of {len(METHODS)} bare passes")


if __name__ == "__main__":
    main()
