"""Measure attention to what masks and windows leave, beside dense SDPA in turns.

python benchmarks/skipping.py                    # one attention of 12 heads of 64
python benchmarks/skipping.py --whole            # a BERT-sized encoder at 512 tokens: of attention's own time
python benchmarks/skipping.py --growth           # a window's time a token from 1,024 to 8,192 tokens

CPU time on one thread. Dense and realised take turns; a ratio is the median over rounds of the dense time
divided by the realised one in the same round, with the interquartile range. `kept` is the share of the
visible entries that is left, which bounds the ratio by its inverse.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Sequence
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import BertConfig, BertModel

from attnbench import Site, parse, realize
from attnbench.engine.realised import skipping
from attnbench.engine.serving.scored import Scratch, Stages
from attnbench.engine.serving.tiles import attend

HEADS, DIM = 12, 64
CASES = (  # spec, tokens, causal, how the mask is made
    *(("window256", tokens, True, "") for tokens in (1024, 4096, 8192)),
    ("sink4:window=256", 4096, True, ""),
    *(("mask90:block:size=64", tokens, True, "drawn") for tokens in (1024, 4096)),
    *(("mask90:block", tokens, True, made) for made in ("drawn", "fitted") for tokens in (1024, 4096)),
    *((spec, 1024, True, "fitted") for spec in ("mask60:block", "mask95")),
    *((f"mask{percent}:block:size=64", 512, False, "drawn") for percent in (90, 80, 70, 60, 50)),
    *(("mask90:block", 512, False, made) for made in ("drawn", "fitted")),
    ("mask60:block", 512, False, "fitted"),
)
Work = Callable[[], Any]


def live(tokens: int, causal: bool) -> Tensor:
    whole = torch.ones(tokens, tokens, dtype=torch.bool)
    return (whole.tril() if causal else whole).expand(HEADS, -1, -1)


def average(tokens: int, causal: bool, made: str, size: int) -> Tensor:
    """Make an average attention (heads, tokens, tokens): drawn block by block, or as models have it.

    There every head looks back over distances of its own, and at the first token some much, some little.
    """
    draw = torch.Generator().manual_seed(0)
    if made == "drawn":
        blocks = torch.rand(HEADS, *[-(-tokens // size)] * 2, generator=draw)
        return blocks.repeat_interleave(size, 1).repeat_interleave(size, 2)[:, :tokens, :tokens]
    table = torch.rand(HEADS, tokens, tokens, generator=draw).mul_(0.1)
    at = torch.arange(tokens)
    distance = (at[:, None] - at).abs()
    for head, reach in enumerate(torch.logspace(0.7, 2.7, HEADS).tolist()):
        table[head] -= distance / reach
    table[..., 0] = torch.linspace(-2, 2, HEADS)[:, None]
    return table.masked_fill_(~live(tokens, causal), -torch.inf).softmax(-1)


def method_of(spec: str, tokens: int, causal: bool, made: str, layers: int = 1) -> Any:
    """Read a spec, and give a mask what it would have learnt."""
    (method,) = parse(spec)
    if made:
        pattern = average(tokens, causal, made, getattr(method, "size", 1))
        hide = method._hide(pattern, live(tokens, causal), ("", 0))
        method.hide_ = {("decoder" if causal else "encoder", layer): hide for layer in range(layers)}
    return method


def layer(spec: str, tokens: int, causal: bool, made: str) -> tuple[Work, Work, skipping.Skip, float]:
    """Return one attention dense and realised, what realises it, and the share of entries left."""
    draw = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, HEADS, tokens, DIM, generator=draw) for _ in range(3))
    site = Site("", "decoder" if causal else "encoder", 0, HEADS, DIM)
    skip = skipping.Skip([method_of(spec, tokens, causal, made)], site, range(HEADS), skipping.Tally())
    stages, scratch = Stages(scores=[lambda scores, site: scores]), Scratch()  # type: ignore[list-item]
    mask = torch.ones(1, 1, tokens, tokens, dtype=torch.bool).tril() if causal else None

    def dense() -> Tensor:  # as transformers' interface has it
        return scaled_dot_product_attention(q, k, v, is_causal=causal).transpose(1, 2).contiguous()

    def realised() -> Tensor:
        return attend(site, stages, scratch, q, k, v, mask, causal=causal, skip=skip)

    kept = seen = 0
    for start in range(0, tokens, 64):
        rows = torch.arange(start, start + 64)[:, None]
        visible = (torch.arange(tokens) <= rows) | (not causal)
        kept += int((skip.pattern.kept(start, start + 64, tokens, q[:0]) & visible).sum())
        seen += HEADS * int(visible.sum())
    return dense, realised, skip, kept / seen


def seconds(work: Work) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


def in_turns(works: Sequence[Work], rounds: int) -> np.ndarray:
    """Return the CPU seconds of each work (rounds, works)."""
    for work in works:
        work()
    return np.array([[seconds(work) for work in works] for _ in range(rounds)])


def ratio(dense: np.ndarray, realised: np.ndarray) -> str:
    return "{1:.2f} × ({0:.2f} to {2:.2f})".format(*np.percentile(dense / realised, (25, 50, 75)))


def attention(rounds: int, only: str) -> None:
    print("| mask | tokens | | dense SDPA | kept | realised | as |\n|---|---|---|---|---|---|---|")
    for case in CASES:
        if only in str(case):
            dense, realised, skip, kept = layer(*case)
            spent = in_turns((dense, realised), max(3, rounds * 1024 // case[1]))
            plan = next(iter(skip.plans.values()))
            way = (
                "simulated" if isinstance(plan, str) else f"blocks of {plan.size}" if plan.size else "strips"
            )
            shape = ("causal" if case[2] else "encoder") + (f", {case[3]}" if case[3] else "")
            print(
                f"| {case[0]} | {case[1]:,} | {shape} | {np.median(spent[:, 0]) * 1000:.1f} ms | {kept:.0%} "
                f"| {ratio(spent[:, 0], spent[:, 1])} | {way} |", flush=True,
            )  # fmt: skip


def encoder() -> BertModel:
    config = BertConfig(max_position_embeddings=512, num_hidden_layers=4)
    return BertModel(config, add_pooling_layer=False).eval()


def timed(model: Any) -> tuple[list[float], list[Any]]:
    """Sum up the CPU time that a model spends in the function that attends."""
    from transformers import AttentionInterface

    from attnbench.engine.places import routing

    spent = [0.0]

    def clocked(attend: Any) -> Any:
        def call(*given: Any, **options: Any) -> Any:
            started = time.process_time()
            found = attend(*given, **options)
            spent[0] += time.process_time() - started
            return found

        return call

    for name in ("sdpa", routing.NAME):
        AttentionInterface.register(name, clocked(AttentionInterface()[name]))
    return spent, []


def whole(rounds: int) -> None:
    """Print how much of attention's own time, and of all of it, an encoder saves at 512 tokens."""
    print("| mask | batch, tokens | attention's time saved | the whole model |\n|---|---|---|---|")
    dense, real = encoder(), encoder()
    spent, _ = timed(dense)
    for spec in ("mask90:block:size=64", "mask90:block"):
        method = method_of(spec, 512, False, "drawn", 4)
        for examples in (1, 4):
            inputs = {"input_ids": torch.randint(1000, 30000, (examples, 512))}
            inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
            with realize(real, method):
                own: list[list[float]] = []

                def clock(model: Any, inputs: Any = inputs, own: Any = own) -> Work:
                    def work() -> None:
                        spent[0] = 0.0
                        model(**inputs)
                        own.append([spent[0]])

                    return work

                found = in_turns((clock(dense), clock(real)), rounds)
            inside = np.array(own[2:]).reshape(-1, 2)
            saved = 1 - inside[:, 1] / inside[:, 0]
            shown = "{1:.0%} ({0:.0%} to {2:.0%})".format(*np.percentile(saved, (25, 50, 75)))
            print(f"| {spec} | {examples}, 512 | {shown} | {ratio(found[:, 0], found[:, 1])} |", flush=True)


def growth(rounds: int) -> None:
    """Print a window's time a token in one attention, each length over the one before."""
    print("| tokens | µs a token | times the length before |\n|---|---|---|")
    lengths = (1024, 2048, 4096, 8192)
    works = [layer("window256", tokens, True, "")[1] for tokens in lengths]
    spent = in_turns(works, rounds) / np.array(lengths)
    for number, tokens in enumerate(lengths):
        steps = "" if not number else f"{np.median(spent[:, number] / spent[:, number - 1]):.2f}"
        print(f"| {tokens:,} | {np.median(spent[:, number]) * 1e6:.1f} | {steps} |")


WAYS = (whole, growth)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for way in WAYS:
        parser.add_argument(f"--{way.__name__}", action="store_true")
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--only", default="", help="rows of the first table that contain this text")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with torch.inference_mode():
        chosen = [way for way in WAYS if getattr(options, way.__name__)]
        for way in chosen:
            way(options.rounds)
        if not chosen:
            attention(options.rounds, options.only)


if __name__ == "__main__":
    main()
