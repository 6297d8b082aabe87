"""Measure simulated windows, with all keys and with those that some query of a strip sees, beside dense SDPA.

python benchmarks/near.py

CPU time on one thread, one attention of 12 heads of 64, all variants in turns: medians of their time over
SDPA's in the same round.
"""

from __future__ import annotations

import argparse
import itertools

import numpy as np
import torch
from skipping import DIM, HEADS, Work, in_turns
from torch.nn.functional import scaled_dot_product_attention

from attnbench import Site, parse
from attnbench.engine.realised import near, sparse
from attnbench.engine.serving.applied import Applied
from attnbench.engine.serving.guard import Guard
from attnbench.engine.serving.scored import Scratch, Stages
from attnbench.engine.serving.tiles import attend


def simulated(rounds: int) -> None:
    """Print the time of simulated windows, with all keys and with those that a strip sees, over SDPA's."""
    print("| window | tokens | | dense SDPA | all keys | keys near |\n|---|---|---|---|---|---|")
    for spec, tokens, causal in itertools.product(
        ("window64", "sink4:window=64"), (1024, 4096), (True, False)
    ):
        draw = torch.Generator().manual_seed(0)
        q, k, v = (torch.randn(1, HEADS, tokens, DIM, generator=draw) for _ in range(3))
        site = Site("", "decoder" if causal else "encoder", 0, HEADS, DIM)
        methods = parse(spec)
        stages, scratch = Stages(scores=[Guard(method, "scores") for method in methods]), Scratch()
        mask = torch.ones(1, 1, tokens, tokens, dtype=torch.bool).tril() if causal else None
        near_alone = near.near([Applied(methods, [site])], site, sparse.Room())
        works: list[Work] = [lambda: scaled_dot_product_attention(q, k, v, is_causal=causal)]  # noqa: B023
        works += [
            lambda skip=skip: attend(site, stages, scratch, q, k, v, mask, causal=causal, skip=skip)  # type: ignore[misc]  # noqa: B023
            for skip in (None, near_alone)
        ]
        spent = in_turns(works, max(3, rounds * 1024 // tokens))
        times = [f"{np.median(spent[:, number] / spent[:, 0]):.2f}" for number in (1, 2)]
        shape = "causal" if causal else "encoder"
        dense = np.median(spent[:, 0]) * 1000
        print(f"| {spec} | {tokens:,} | {shape} | {dense:.0f} ms | {' | '.join(times)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=21)
    torch.set_num_threads(1)
    with torch.inference_mode():
        simulated(parser.parse_args().rounds)


if __name__ == "__main__":
    main()
