"""Measure what caches that hold only what is kept save: bytes, peak, seconds to a token.

python benchmarks/caches/realised.py --model PATH       # prompts of 2,048 and 8,000 drawn tokens
python benchmarks/caches/realised.py --model PATH --lengths 2048 --specs evict50:snapkv,evict75:h2o

CPU time on one thread, a copy of the model for each variant, dense SDPA among them. Prompts are read in
turns, `--rounds` times; then all generate `--tokens` tokens in turns, one each. The ratio of the tokens after
is the median over turns of dense's time over the variant's in the same turn, with the interquartile range; of
the first token it is the variant's time over dense's. Bytes are those of the cache after one token, with its
room to grow, over dense's; the peak is that of a prompt and two tokens, weights aside. The last column tells
whether the tokens are those of the simulated method. `evict0:streamingllm` keeps all: what it differs from 1
by is not the tokens that go.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import os
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from attnbench import apply, realize
from attnbench.measures.peak import peak_of

SPECS = "evict0:streamingllm,evict50:streamingllm,evict50:snapkv,evict50:h2o"


def read(model: PreTrainedModel, ids: torch.Tensor) -> tuple[float, torch.Tensor, object]:
    """Read a prompt: seconds, the first token after it, the cache."""
    started = time.process_time()
    output = model(ids, use_cache=True, logits_to_keep=1)
    return time.process_time() - started, output.logits[:, -1].argmax(-1)[:, None], output.past_key_values


def write(model: PreTrainedModel, token: torch.Tensor, cache: object) -> tuple[float, torch.Tensor]:
    """Go on by one token: seconds, the next one."""
    started = time.process_time()
    found = model(token, past_key_values=cache).logits[:, -1].argmax(-1)[:, None]
    return time.process_time() - started, found


def written(model: PreTrainedModel, ids: torch.Tensor, tokens: int) -> list[int]:
    _, token, cache = read(model, ids)
    found = [int(token)]
    for _ in range(tokens):
        _, token = write(model, token, cache)
        found.append(int(token))
    return found


def size(cache: object) -> int:
    tensors = [tensor for layer in cache.layers for tensor in (layer.keys, layer.values)]  # type: ignore[attr-defined]
    return sum(tensor.untyped_storage().nbytes() for tensor in tensors)


def shown(peak: float, form: str) -> str:
    return form.format(peak) if peak else "not measured"


def spread(values: list[float]) -> str:
    return "{1:.2f} ({0:.2f} to {2:.2f})".format(*np.percentile(values, (25, 50, 75)))


def table(models: dict[str, PreTrainedModel], ids: torch.Tensor, options: argparse.Namespace) -> None:
    first: dict[str, list[float]] = {name: [] for name in models}
    after: dict[str, list[float]] = {name: [] for name in models}
    state, bytes_, texts = {}, {}, {name: [] for name in models}
    for _ in range(options.rounds):
        state.clear()
        for name, model in models.items():
            seconds, token, cache = read(model, ids)
            first[name].append(seconds)
            state[name] = token, cache
    for turn in range(options.tokens):
        for name, model in models.items():
            token, cache = state[name]
            texts[name].append(int(token))
            seconds, token = write(model, token, cache)
            after[name].append(seconds)
            bytes_[name] = size(cache) if turn == 0 else bytes_[name]
            state[name] = token, cache
    for name in models:
        texts[name].append(int(state[name][0]))
    state.clear()
    peaks = {
        name: peak_of(lambda model=model: written(model, ids, 2), False) if options.peak else 0
        for name, model in models.items()
    }
    for name in models:
        same = ""
        if name != "dense" and options.simulated:
            with apply(models["dense"], name):
                same = "yes" if written(models["dense"], ids, options.tokens) == texts[name] else "no"
        ratios = [b / a for a, b in zip(after[name], after["dense"], strict=True)]
        waits = [a / b for a, b in zip(first[name], first["dense"], strict=True)]
        peak = shown(peaks[name] / max(1, peaks["dense"]), "{:.2f}")
        if name == "dense":
            peak = shown(peaks[name] / 1e6, "{:.0f} MB")
            rate, wait = 1 / np.median(after["dense"]), np.median(first["dense"])
            print(
                f"| {ids.shape[1]:,} | dense | {bytes_[name] / 1e6:.1f} MB | {peak} | "
                f"{wait:.2f} s | {rate:.1f} a second | |"
            )
        else:
            print(
                f"| {ids.shape[1]:,} | {name} | {bytes_[name] / bytes_['dense']:.3f} | "
                f"{peak} | {spread(waits)} | {spread(ratios)} | {same} |",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True)
    parser.add_argument("--specs", default=SPECS)
    parser.add_argument("--lengths", default="2048,8000")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--peak", action="store_true", help="measure the peak too: one more prompt each")
    parser.add_argument("--simulated", action="store_true", help="compare with the simulated tokens")
    options = parser.parse_args()
    torch.set_num_threads(1)
    dense = AutoModelForCausalLM.from_pretrained(options.model, dtype=torch.float32).eval()
    with contextlib.ExitStack() as stack, torch.inference_mode(False), torch.no_grad():
        models = {"dense": dense}
        for spec in options.specs.split(","):
            models[spec] = stack.enter_context(realize(copy.deepcopy(dense), spec))
        print("| prompt | method | KV bytes | peak | first token | tokens after it | simulated |")
        print("|---|---|---|---|---|---|---|")
        for length in map(int, options.lengths.split(",")):
            draw = torch.Generator().manual_seed(0)
            table(models, torch.randint(100, dense.config.vocab_size, (1, length), generator=draw), options)


if __name__ == "__main__":
    main()
