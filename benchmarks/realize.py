"""Measure how much faster a model is with its heads really removed, beside what the removed FLOPs allow.

python benchmarks/realize.py                          # half of the heads of a MiniLM-sized BERT
python benchmarks/realize.py --spec heads25:random --rounds 31
python benchmarks/realize.py --steps                  # a tenth of the heads more in each row

CPU time on one thread. The dense model (SDPA), the one with masked heads and the one without them take turns;
a ratio is the median over rounds of the dense time divided by the variant's in the same round, with the
interquartile range. The bound is the ratio of FLOPs: projections, attention's two products, feed-forward.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import time
from collections.abc import Sequence

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from attention import batch, model
from transformers import BertConfig, BertModel

from attnbench import apply, parse, realize
from attnbench.engine.realised.removal import kept_heads

SHAPES = ((8, 128), (8, 320))
COLUMNS = ("dense SDPA", "masked", "removed", "FLOP bound", "of the bound")


def flops(config: BertConfig, tokens: int, heads: int) -> float:
    """Count the multiply-adds a token of all layers, `heads` of them left in the whole model."""
    width, share = config.hidden_size, heads / (config.num_attention_heads * config.num_hidden_layers)
    attention = share * (4 * width**2 + 2 * tokens * width)
    return config.num_hidden_layers * (attention + 2 * width * config.intermediate_size)


def seconds(built: BertModel, inputs: dict[str, torch.Tensor]) -> float:
    started = time.process_time()
    built(**inputs)
    return time.process_time() - started


def table(spec: str, shapes: Sequence[tuple[int, int]], rounds: int, head: bool) -> None:
    """Print a row a shape: a model without the heads that a method removes, beside the dense one."""
    built = {name: model() for name in ("dense", "masked", "removed")}
    methods = parse(spec)
    for method in methods:
        method.fit(built["dense"], [])
    config = built["dense"].config
    every = config.num_attention_heads * config.num_hidden_layers
    with contextlib.ExitStack() as stack, torch.inference_mode():
        stack.enter_context(apply(built["masked"], *methods))
        stack.enter_context(realize(built["removed"], *methods))
        kept = kept_heads(built["removed"])
        left = sum(map(len, kept.values()))
        if head:
            print(
                f"| removed | heads left, by layer | batch, tokens | {' | '.join(COLUMNS)} |\n{'|---' * 8}|"
            )
        for shape in shapes:
            inputs, spent = batch(*shape), {name: [] for name in built}
            for _ in range(rounds + 1):
                for name, each in built.items():
                    spent[name].append(seconds(each, inputs))
            ratios = {name: np.divide(spent["dense"], spent[name])[1:] for name in ("masked", "removed")}
            bound = flops(config, shape[1], every) / flops(config, shape[1], left)
            shown = [
                "{1:.2f} × ({0:.2f} to {2:.2f})".format(*np.percentile(values, (25, 50, 75)))
                for values in ratios.values()
            ]
            dense, share = np.median(spent["dense"][1:]) * 1000, np.median(ratios["removed"]) / bound
            where = f"{left}: {', '.join(str(len(own)) for own in kept.values())}"
            cells = [spec, where, str(shape), f"{dense:.0f} ms", *shown, f"{bound:.2f} ×", f"{share:.0%}"]
            print(f"| {' | '.join(cells)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--spec", default="heads50:random", help="a method that needs no data")
    parser.add_argument("--steps", action="store_true", help="10, 20 … 90 % of the heads, of the first shape")
    parser.add_argument("--rounds", type=int, default=21)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.steps:
        for percent in range(10, 100, 10):
            table(f"heads{percent}:random", SHAPES[:1], options.rounds, percent == 10)
    else:
        table(options.spec, SHAPES, options.rounds, True)


if __name__ == "__main__":
    main()
