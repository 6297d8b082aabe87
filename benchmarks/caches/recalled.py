"""Measure what it saves to read a prompt once for all methods that cut caches.

python benchmarks/caches/recalled.py --model PATH              # 4 prompts of 512 drawn tokens, answers of 8
python benchmarks/caches/recalled.py --model PATH --tokens 2048 --specs evict50:h2o,kvint4

CPU time on one thread. Each method is evaluated on the same requests twice in turns: with its prompts read by
itself, in one pass with the answer, and with prompts that were read before. The ratio is the median over
`--rounds` turns of the first over the second, with the interquartile range. The last column is the largest
difference between the log-likelihoods of both.
"""

from __future__ import annotations

import argparse
import os
import time
from unittest import mock

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from lm_eval.api.instance import Instance
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from attnbench import apply
from attnbench.backends.causal.model import CausalLM
from attnbench.engine.serving import recalled

SPECS = "evict50:streamingllm,evict50:tova,evict50:snapkv,evict50:h2o,evict50:expected,kvint4,kvint2:kivi"


def evaluated(
    lm: CausalLM, model: torch.nn.Module, spec: str, requests: list[Instance]
) -> tuple[float, np.ndarray]:
    """Evaluate one method: seconds and log-likelihoods."""
    started = time.process_time()
    with apply(model, spec), lm.serving(model) as served:
        found = served.loglikelihood(requests)
    return time.process_time() - started, np.array([value for value, _ in found])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True)
    parser.add_argument("--specs", default=SPECS)
    parser.add_argument("--tokens", type=int, default=512)
    parser.add_argument("--prompts", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    model = AutoModelForCausalLM.from_pretrained(options.model, dtype=torch.float32).eval()
    draw, n = torch.Generator().manual_seed(0), options.prompts

    def text(tokens: int) -> str:
        return str(tokenizer.decode(torch.randint(len(tokenizer), (tokens,), generator=draw)))

    pairs = [(text(options.tokens), " " + text(8)) for _ in range(n)]
    told = enumerate(pairs)
    requests = [Instance("loglikelihood", {}, pair, k, metadata=("drawn", k, 1)) for k, pair in told]
    lm = CausalLM(AutoConfig.from_pretrained(options.model), tokenizer)
    seconds, _ = evaluated(lm, model, "evict50:random", requests)
    print(f"prompts read, kept and cut the first time: {seconds / n:.2f} s a sample\n")
    print("| method | in one pass | read before | ratio | largest difference |\n|---|---|---|---|---|")
    for spec in options.specs.split(","):
        times, most = [], 0.0
        for _ in range(options.rounds):
            with mock.patch.object(recalled, "recalls", lambda model: False):
                one, alone = evaluated(lm, model, spec, requests)
            again, found = evaluated(lm, model, spec, requests)
            times.append((one / n, again / n))
            most = max(most, float(np.abs(alone - found).max()))
        first, second = np.median(times, 0)
        low, middle, high = np.percentile([a / b for a, b in times], (25, 50, 75))
        ratio = f"{middle:.1f} ({low:.1f} to {high:.1f})"
        print(f"| {spec} | {first:.2f} s | {second:.2f} s | {ratio} | {most:.1e} |")


if __name__ == "__main__":
    main()
