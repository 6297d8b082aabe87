"""Measure what attention methods cost: CPU time and memory, as ratios to SDPA and eager in the same run.

python benchmarks/attention.py              # the table: time
python benchmarks/attention.py --memory     # peak attention memory at (8, 512)
python benchmarks/attention.py --specs identity,prune80 --rounds 5
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import time
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from transformers import BertConfig, BertModel

from attnbench import Method, Site, apply
from attnbench.sites import implementation

LARGE = (8, 512)
SHAPES = ((8, 128), (32, 128), (8, 320))
SPECS = ("identity", "logquant3", "threshold0.001", "prune80")


class Identity(Method):
    """Change nothing, the long way round: the price of having the probabilities in hand."""

    def probs(self, probs: Tensor, site: Site) -> Tensor:
        return probs


def model() -> BertModel:
    """Build a MiniLM-sized BERT, random but for queries and keys scaled so that scores spread by about 3."""
    torch.manual_seed(0)
    config = BertConfig(
        hidden_size=384,
        num_hidden_layers=6,
        num_attention_heads=12,
        intermediate_size=1536,
    )
    built = BertModel(config, add_pooling_layer=False).eval()
    with torch.no_grad():
        for layer in built.encoder.layer:
            layer.attention.self.query.weight.mul_(4.5)
            layer.attention.self.key.weight.mul_(4.5)
    return built


def batch(examples: int, tokens: int, padding: float = 0.0) -> dict[str, Tensor]:
    """Make random token ids; with `padding`, lengths spread evenly down to that share of padding."""
    draw = torch.Generator().manual_seed(1)
    ids = torch.randint(1000, 30000, (examples, tokens), generator=draw)
    lengths = (tokens * (1 - padding * torch.linspace(0, 1, examples))).long()
    return {"input_ids": ids, "attention_mask": (torch.arange(tokens) < lengths[:, None]).long()}


def using(built: BertModel, spec: str) -> contextlib.AbstractContextManager[Any]:
    """Return the context in which a forward pass is the variant's."""
    if spec in ("sdpa", "eager"):
        return implementation(built, spec)
    return apply(built, Identity() if spec == "identity" else spec)


def times(
    built: BertModel, inputs: dict[str, Tensor], specs: tuple[str, ...], rounds: int
) -> dict[str, float]:
    """Return each variant's median over rounds of CPU seconds a pass, divided by SDPA's in the same round."""
    spent: dict[str, list[float]] = {spec: [] for spec in ("sdpa", *specs)}
    for number in range(rounds + 1):
        for spec in spent:
            with using(built, spec), torch.inference_mode():
                started = time.process_time()
                built(**inputs)
                if number:  # the first round warms up
                    spent[spec].append(time.process_time() - started)
    base = spent["sdpa"]
    ratios = {
        spec: statistics.median(a / b for a, b in zip(own, base, strict=True)) for spec, own in spent.items()
    }
    return ratios | {"sdpa": statistics.median(base) * 1000}


def time_table(specs: tuple[str, ...], rounds: int, padding: float) -> None:
    torch.set_num_threads(1)
    built = model()
    found = [times(built, batch(*shape, padding), ("eager", *specs), rounds) for shape in SHAPES]
    print("| variant | " + " | ".join(f"batch {b}, {t} tokens" for b, t in SHAPES) + " |")
    print("|---|" + "---|" * len(SHAPES))
    for spec in found[0]:
        cells = [f"{ratios[spec]:.0f} ms" if spec == "sdpa" else f"{ratios[spec]:.2f}" for ratios in found]
        print(f"| {spec} | " + " | ".join(cells) + " |")


def peak(built: BertModel, spec: str, examples: int, tokens: int) -> int:
    """Return the most bytes that one attention module holds at a time, by torch's allocator events."""
    module: Any = built.get_submodule("encoder.layer.0.attention.self")
    hidden = torch.randn(examples, tokens, built.config.hidden_size)
    profiler = profile(activities=[ProfilerActivity.CPU], profile_memory=True)
    with using(built, spec), torch.inference_mode(), profiler as profiled:
        module(hidden)
    level = highest = 0
    for event in profiled.profiler.kineto_results.events():
        if event.name() == "[memory]":
            level += event.nbytes()
            highest = max(highest, level)
    return highest


def memory_table(specs: tuple[str, ...]) -> None:
    torch.set_num_threads(1)
    built = model()
    eager = peak(built, "eager", *LARGE)
    print(f"| variant | MB at batch {LARGE[0]}, {LARGE[1]} tokens | of eager |\n|---|---|---|")
    for spec in ("eager", "sdpa", *specs):
        held = peak(built, spec, *LARGE)
        print(f"| {spec} | {held / 1e6:.1f} | {held / eager:.2f} |")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--specs", default=",".join(SPECS))
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--padding", type=float, default=0.0, help="share of padding in the shortest example")
    parser.add_argument("--memory", action="store_true")
    arguments = parser.parse_args()
    specs = tuple(arguments.specs.split(","))
    if arguments.memory:
        memory_table(specs)
    else:
        time_table(specs, arguments.rounds, arguments.padding)


if __name__ == "__main__":
    main()
