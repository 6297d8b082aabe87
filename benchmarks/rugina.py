"""Measure masks of 0, 50 and 90 % as Rugina et al. 2020 have them: simulated and realised, beside dense SDPA.

python benchmarks/rugina.py

A BERT-sized encoder at 512 tokens and a Llama of 2 layers at 4,096, random weights, masks of blocks of 64
that are fitted to attention as models have it. CPU time on one thread, all three in turns: medians of their
time over SDPA's in the same round. Memory is the most that one attention module holds, FLOPs are counted.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
from skipping import HEADS, encoder, in_turns, method_of
from transformers import LlamaConfig, LlamaModel

from attnbench import apply, realize
from attnbench.engine.places.sites import discover
from attnbench.engine.realised import skipping
from attnbench.measures.cost import flops
from attnbench.measures.peak import peak_memory


def decoder(tokens: int) -> LlamaModel:
    config = LlamaConfig(
        vocab_size=1000, hidden_size=768, intermediate_size=2048, num_hidden_layers=2,
        num_attention_heads=HEADS, max_position_embeddings=tokens, use_cache=False,
    )  # fmt: skip
    return LlamaModel(config).eval()


def table(rounds: int) -> None:
    """Print what masks of 0, 50 and 90 % cost in an encoder of 512 tokens and a decoder of 4,096."""
    titles = ("model", "mask", "time simulated", "time realised", "attention's memory", "FLOPs")
    print(f"| {' | '.join(titles)} |\n{'|---' * len(titles)}|")
    for name, build, tokens, causal in (
        ("BERT-sized", encoder, 512, False),
        ("Llama, 2 layers", None, 4096, True),
    ):
        dense, simulated, real = (build() if build else decoder(tokens) for _ in range(3))
        inputs = {"input_ids": torch.randint(0, 1000, (1, tokens))}
        inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
        held, work = peak_memory(dense, inputs), flops(dense, [inputs])
        works = [lambda model=model: model(**inputs) for model in (dense, simulated, real)]  # noqa: B023
        for percent in (0, 50, 90):
            layers = len(discover(real))
            made = method_of(f"mask{percent}:block:size=64", tokens, causal, "fitted", layers)
            with apply(simulated, made), realize(real, made):
                works[2]()
                known = skipping.tally(real)
                costs = ["", "", ""]
                skips = known is not None and known.done
                spent = in_turns(works if skips else works[:2], rounds)
                times = [f"{np.median(spent[:, k] / spent[:, 0]):.2f}" for k in range(1, spent.shape[1])]
                if skips:
                    costs = [
                        times[1],
                        f"{peak_memory(real, inputs) / held:.2f}",
                        f"{flops(real, [inputs]) / work:.2f}",
                    ]
            print(f"| {' | '.join([name, f'{percent} %', times[0], *costs])} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=9)
    torch.set_num_threads(1)
    with torch.inference_mode():
        table(parser.parse_args().rounds)


if __name__ == "__main__":
    main()
