"""Measure attention to what masks and windows leave, beside dense SDPA in turns.

python benchmarks/skipping.py                    # one attention of 12 heads of 64, one thread
python benchmarks/skipping.py --whole            # a BERT-sized encoder at 512 tokens: of attention's own time
python benchmarks/skipping.py --growth           # a window's time a token from 1,024 to 8,192 tokens
python benchmarks/skipping.py --table            # masks of 0, 50 and 90 %: time, memory, FLOPs

CPU time on one thread. Dense and realised take turns; a ratio is the median over rounds of the dense time divided
by the realised one in the same round, with the interquartile range. What is left is the share of the visible
entries, which bounds the ratio by its inverse.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention as sdpa

from attnbench import Site, parse
from attnbench.engine.realised import skipping
from attnbench.engine.serving.scored import Scratch, Stages
from attnbench.engine.serving.tiles import attend

HEADS, DIM = 12, 64
CASES = (  # spec, tokens, causal, how the mask is made
    ("window256", 1024, True, ""),
    ("window256", 4096, True, ""),
    ("window256", 8192, True, ""),
    ("sink4:window=256", 4096, True, ""),
    ("mask90:block:size=64", 1024, True, "drawn"),
    ("mask90:block:size=64", 4096, True, "drawn"),
    ("mask90:block", 1024, True, "drawn"),
    ("mask90:block", 4096, True, "drawn"),
    ("mask90:block", 1024, True, "fitted"),
    ("mask90:block", 4096, True, "fitted"),
    ("mask60:block", 1024, True, "fitted"),
    ("mask90:block", 512, False, "drawn"),
    ("mask90:block:size=64", 512, False, "drawn"),
    ("mask80:block:size=64", 512, False, "drawn"),
    ("mask70:block:size=64", 512, False, "drawn"),
    ("mask60:block:size=64", 512, False, "drawn"),
    ("mask50:block:size=64", 512, False, "drawn"),
    ("mask90:block", 512, False, "fitted"),
    ("mask60:block", 512, False, "fitted"),
    ("mask95", 1024, True, "fitted"),
)


def average(tokens: int, causal: bool, made: str) -> Tensor:
    """Make an average attention (heads, tokens, tokens): drawn alike everywhere, or as models have it.

    There heads look back over distances of their own, and at the first token, some much, some little.
    """
    draw = torch.Generator().manual_seed(0)
    table = torch.rand(HEADS, tokens, tokens, generator=draw)
    if made == "fitted":
        at = torch.arange(tokens)
        distance = (at[:, None] - at).abs().float()
        reach = torch.logspace(0.7, 2.7, HEADS)[:, None, None]
        table.mul_(0.1).sub_(distance / reach)
        table[..., 0] = torch.linspace(-2, 2, HEADS)[:, None]
    hidden = torch.ones(tokens, tokens, dtype=torch.bool).triu(1) if causal else None
    return (table if hidden is None else table.masked_fill_(hidden, -torch.inf)).softmax(-1)


def method_of(spec: str, tokens: int, causal: bool, made: str) -> Any:
    (method,) = parse(spec)
    if made:
        live = torch.ones(HEADS, tokens, tokens, dtype=torch.bool)
        live = live.tril() if causal else live
        if made == "drawn":
            size = method.size
            pattern = torch.rand(HEADS, *[-(-tokens // size)] * 2, generator=torch.Generator().manual_seed(0))
            pattern = pattern.repeat_interleave(size, 1).repeat_interleave(size, 2)[:, :tokens, :tokens]
        else:
            pattern = average(tokens, causal, made)
        method.hide_ = {("decoder" if causal else "encoder", 0): method._hide(pattern, live, ("", 0))}
    return method


def layer(spec: str, tokens: int, causal: bool, made: str) -> tuple[Callable[[], Tensor], Callable[[], Tensor], Any]:
    """Return one attention dense and realised, and the plan."""
    draw = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, HEADS, tokens, DIM, generator=draw) for _ in range(3))
    site = Site("", "decoder" if causal else "encoder", 0, HEADS, DIM)
    method = method_of(spec, tokens, causal, made)
    tally = skipping.Tally(told=True)
    skip = skipping.Skip([method], site, range(HEADS), tally)
    stages, scratch = Stages(scores=[lambda *_: None]), Scratch()  # type: ignore[list-item]
    mask = torch.ones(1, 1, tokens, tokens, dtype=torch.bool).tril() if causal else None

    def realised() -> Tensor:
        return attend(site, stages, scratch, q, k, v, mask, causal=causal, skip=skip)

    return lambda: sdpa(q, k, v, is_causal=causal), realised, skip


def seconds(work: Callable[[], Tensor]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started
