"""What methods do to attention, measured on it."""

from __future__ import annotations

import math

import pytest
import torch
from tiny_models import padded, tiny

from attnbench import parse
from attnbench.measure import measure


@pytest.mark.parametrize(
    "spec, bits",
    [
        ("logquant2", 2), ("linquant1", 1), ("prune80+binary", 1),
        ("prune80", None), ("prune95", None), ("entmax", None), ("window2", None),  # few values, none twice
    ],
)  # fmt: skip
@pytest.mark.parametrize("name", ["bert", "llama"])
def test_only_what_quantises_has_bits(name, spec, bits):
    model = tiny(name)
    found = measure(model, [padded(model, examples=3)], parse(spec))
    assert found["bits"] == bits and (found["entropy"] is None) == (bits is None)
    assert bits is None or 0 < found["entropy"] <= bits


@pytest.mark.parametrize(
    "spec, bits",
    [("binary", 1), ("quantile2", 2), ("quantile3:halving", 3), ("logquant4", 4), ("uniform", 0)],
)
def test_levels_are_those_of_one_example(spec, bits):
    model = tiny("bert")
    together = {"input_ids": torch.randint(5, 60, (4, 37)), "attention_mask": torch.ones(4, 37, dtype=int)}
    alone = [{key: value[place : place + 1] for key, value in together.items()} for place in range(4)]
    found, apart = (measure(model, batches, parse(spec)) for batches in ([together], alone))
    assert found["bits"] == bits == apart["bits"]
    assert found["entropy"] == pytest.approx(apart["entropy"], abs=1e-6)


def test_the_shares_of_what_is_left():
    model = tiny("bert")
    batch = padded(model, examples=8)
    lengths = batch["attention_mask"].sum(1).tolist()
    found = measure(model, [batch], parse("prune80"))
    dropped = sum(n * min(math.floor(n * 0.8), n - 1) for n in lengths) / sum(n * n for n in lengths)
    assert found["sparsity"] == pytest.approx(dropped) == found["nominal"]
    assert found["heads"] == 1 and 0 < found["divergence"] < 1 and found["samples"] == 8
    halved = measure(model, [batch], parse("heads:fixed:off=0.1:off=1"))
    heads, layers = model.config.num_attention_heads, model.config.num_hidden_layers
    kept = 1 - (1 + heads) / (heads * layers)
    assert halved["heads"] == pytest.approx(kept) and halved["divergence"] == 0
