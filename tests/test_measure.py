"""What methods do to attention, measured on it."""

from __future__ import annotations

import math

import pytest
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
