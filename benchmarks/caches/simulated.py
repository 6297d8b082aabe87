"""Measure what methods cost a language model that reads a long prompt and its answer in one pass.

python benchmarks/caches/simulated.py --model PATH                # 2,048 drawn tokens, the last 16 an answer
python benchmarks/caches/simulated.py --model PATH --memory 8192  # the most that attention holds at a time
python benchmarks/caches/simulated.py --model PATH --profile      # where the time of a pass goes

CPU time on one thread. A pass of SDPA stands before and after every pass of a method; the ratio is the median
over `--rounds` of the method's time over the mean of these two, with the interquartile range. Methods are as
`attnbench.apply` simulates them: caches are cut by hiding what they would have lost from the answer.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from attention import Variant, using, variant
from torch.profiler import ProfilerActivity, profile
from transformers import AutoModelForCausalLM, PreTrainedModel

from attnbench import prompts
from attnbench.measures.peak import peak_memory

SPECS = (
    "uniform,logquant3,prune80,topk64,evict50:streamingllm,evict50:tova,evict50:snapkv,evict50:h2o,"
    "evict50:knorm,evict50:expected,kvint4,kvint2:kivi"
)
ANSWER, LARGEST = 16, 10


def seconds(model: PreTrainedModel, chosen: Variant, ids: torch.Tensor) -> float:
    """Read a prompt and its answer in one pass."""
    with using(model, chosen), prompts(model, [ids.shape[1] - ANSWER]), torch.no_grad():
        started = time.process_time()
        model(ids, use_cache=False)
        return time.process_time() - started


def times(model: PreTrainedModel, specs: list[str], ids: torch.Tensor, rounds: int) -> None:
    inputs = {"input_ids": ids}
    variants = {spec: variant(model, spec, inputs) for spec in specs}
    for chosen in variants.values():  # warms up
        seconds(model, chosen, ids)
    ratios: dict[str, list[float]] = {spec: [] for spec in specs}
    base = [seconds(model, "sdpa", ids)]
    for _ in range(rounds):
        for spec, chosen in variants.items():
            own = seconds(model, chosen, ids)
            base.append(seconds(model, "sdpa", ids))
            ratios[spec].append(2 * own / sum(base[-2:]))
    print(f"| method | {ids.shape[1]:,} tokens, times SDPA's |\n|---|---|")
    print(f"| sdpa | {np.median(base):.2f} s |")
    for spec, found in ratios.items():
        print("| {} | {:.2f} ({:.2f} to {:.2f}) |".format(spec, *np.percentile(found, (50, 25, 75))))


def memory(model: PreTrainedModel, specs: list[str], ids: torch.Tensor) -> None:
    print(f"| method | MB of one attention at {ids.shape[1]:,} tokens |\n|---|---|")
    inputs = {"input_ids": ids}
    for spec in ("sdpa", *specs):
        with using(model, variant(model, spec, inputs)), prompts(model, [ids.shape[1] - ANSWER]):
            print(f"| {spec} | {peak_memory(model, inputs) / 1e6:.0f} |", flush=True)


def shares(model: PreTrainedModel, specs: list[str], ids: torch.Tensor) -> None:
    print("| method | a pass | of which |\n|---|---|---|")
    for spec in ("sdpa", *specs):
        chosen = variant(model, spec, {"input_ids": ids})
        seconds(model, chosen, ids)  # warms up
        with profile(activities=[ProfilerActivity.CPU]) as profiled:
            seconds(model, chosen, ids)
        found = {
            each.key.removeprefix("aten::"): each.self_cpu_time_total for each in profiled.key_averages()
        }
        most = sorted(found, key=lambda name: -found[name])[:LARGEST]
        told = ", ".join(f"{name} {found[name] / 1e6:.2f}" for name in most)
        print(f"| {spec} | {sum(found.values()) / 1e6:.2f} s | {told} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True)
    parser.add_argument("--specs", default=SPECS)
    parser.add_argument("--tokens", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--memory", type=int, metavar="TOKENS")
    parser.add_argument("--profile", action="store_true", help="print the seconds of a pass by operation")
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = AutoModelForCausalLM.from_pretrained(options.model, dtype=torch.float32).eval()
    draw = torch.Generator().manual_seed(0)
    ids = torch.randint(model.config.vocab_size, (1, options.memory or options.tokens), generator=draw)
    specs = options.specs.split(",")
    if options.profile:
        shares(model, specs, ids)
    elif options.memory:
        memory(model, specs, ids)
    else:
        times(model, specs, ids, options.rounds)


if __name__ == "__main__":
    main()
