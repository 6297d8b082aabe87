"""Measure how much faster a model is with its heads really removed, beside what the removed FLOPs allow.

python benchmarks/realize.py                          # half of the heads of a MiniLM-sized BERT
python benchmarks/realize.py --spec heads25:random --rounds 31

CPU time on one thread. The dense model (SDPA), the one with masked heads and the one without them take turns;
a ratio is the median over rounds of the dense time divided by the variant's in the same round, with the
interquartile range. The bound is the ratio of FLOPs: projections, attention's two products, feed-forward.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from attention import batch, model
from transformers import BertConfig, BertModel

from attnbench import apply, parse, realize
from attnbench.engine.realised.removal import kept_heads

SHAPES = ((8, 128), (8, 320))


def flops(config: BertConfig, tokens: int, heads: int) -> float:
    """Count the multiply-adds a token of all layers, `heads` of them left in the whole model."""
    width, share = config.hidden_size, heads / (config.num_attention_heads * config.num_hidden_layers)
    attention = share * (4 * width**2 + 2 * tokens * width)
    return config.num_hidden_layers * (attention + 2 * width * config.intermediate_size)


def seconds(built: BertModel, inputs: dict[str, torch.Tensor]) -> float:
    started = time.process_time()
    built(**inputs)
    return time.process_time() - started


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--spec", default="heads50:random", help="a method that needs no data")
    parser.add_argument("--rounds", type=int, default=21)
    options = parser.parse_args()
    torch.set_num_threads(1)
    built = {name: model() for name in ("dense", "masked", "removed")}
    methods = parse(options.spec)
    for method in methods:
        method.fit(built["dense"], [])
    config = built["dense"].config
    with contextlib.ExitStack() as stack, torch.inference_mode():
        stack.enter_context(apply(built["masked"], *methods))
        stack.enter_context(realize(built["removed"], *methods))
        kept = kept_heads(built["removed"])
        left = sum(map(len, kept.values()))
        layers = ", ".join(str(len(own)) for own in kept.values())
        print(f"{options.spec}: {left} heads left, by layer {layers}\n")
        print("| batch, tokens | dense SDPA | masked | removed | FLOP bound | of the bound |")
        print("|---|---|---|---|---|---|")
        for shape in SHAPES:
            inputs, spent = batch(*shape), {name: [] for name in built}
            for _ in range(options.rounds + 1):
                for name, each in built.items():
                    spent[name].append(seconds(each, inputs))
            ratios = {name: np.divide(spent["dense"], spent[name])[1:] for name in ("masked", "removed")}
            tokens = shape[1]
            bound = flops(config, tokens, config.num_attention_heads * config.num_hidden_layers) / flops(
                config, tokens, left
            )
            shown = {
                name: "{1:.2f} × ({0:.2f} to {2:.2f})".format(*np.percentile(values, (25, 50, 75)))
                for name, values in ratios.items()
            }
            dense, share = np.median(spent["dense"][1:]) * 1000, np.median(ratios["removed"]) / bound
            print(
                f"| {shape} | {dense:.0f} ms | {' | '.join(shown.values())} | {bound:.2f} × | {share:.0%} |"
            )


if __name__ == "__main__":
    main()
