"""What methods do to attention, measured on it."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from closeness import clear_of_jumps, close
from tiny_models import padded, tiny

from attnbench import parse
from attnbench.measures.codes import Codes
from attnbench.measures.measure import measure, summary


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


@pytest.mark.numeric
@pytest.mark.parametrize(
    "spec, bits",
    [("binary", 1), ("quantile2", 2), ("quantile3:halving", 3), ("logquant4", 4), ("uniform", 0)],
)
def test_levels_are_those_of_one_example(spec, bits):
    model = tiny("bert")
    mask = torch.ones(4, 37, dtype=int)

    def draw(seed):
        ids = torch.randint(5, 60, (4, 37), generator=torch.Generator().manual_seed(seed))
        return {"input_ids": ids, "attention_mask": mask}

    together = clear_of_jumps(model, spec, draw)
    alone = [{key: value[place : place + 1] for key, value in together.items()} for place in range(4)]
    found, apart = (measure(model, batches, parse(spec)) for batches in ([together], alone))
    assert found["bits"] == bits == apart["bits"]
    close(found["entropy"], apart["entropy"], layers=3)


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


LEARNED = [
    (torch.tensor([[0.5, 1.0]]), [[0.5, 1.0]]),
    (torch.tensor([3, 0, 7]), [3, 0, 7]),
    (torch.tensor(2.5), 2.5),
    (np.array([0.25, 2]), [0.25, 2.0]),
    (np.float32(0.5), 0.5),
    (np.int64(4), 4),
    (np.bool_(True), True),
    (torch.tensor([True, False]), {"shape": [2], "density": 0.5}),
    (np.array([[True, True]]), {"shape": [1, 2], "density": 1.0}),
    (torch.ones(10, 1000), {"shape": [10, 1000], "density": 1.0}),
    ({("encoder", 3): (1, None, "a")}, {"encoder 3": [1, None, "a"]}),
]


@pytest.mark.parametrize("value, expected", LEARNED, ids=range(len(LEARNED)))
def test_what_is_learned_becomes_json(value, expected):
    found = summary({"x_": value})
    assert found == {"x_": expected} and json.loads(json.dumps(found, allow_nan=False)) == found


@pytest.mark.parametrize(
    "value, words",
    [
        (float("nan"), "x_ is nan"), (torch.tensor([1.0, float("-inf")]), "x_ is -inf"),
        (np.float64("inf"), "x_ is inf"), ({"a": [np.array([np.nan])]}, "x_.a is nan"), ({1}, "x_ is a set"),
        (1j, "x_ is a complex"), (len, "x_ is a builtin"), ("\ud800", "surrogates not allowed"),
    ],
)  # fmt: skip
def test_what_json_cannot_hold_is_refused_by_name(value, words):
    with pytest.raises((TypeError, ValueError), match=words):
        summary({"x_": value})


@pytest.mark.parametrize("levels", [1, 3, 40])
def test_codes_are_counted_as_by_unique(levels):
    draw, codes = torch.Generator().manual_seed(levels), Codes()
    table = torch.rand(levels, generator=draw)
    expected = []
    for example in range(6):
        values = table[torch.randint(min(levels, example + 1), (200,), generator=draw)]
        codes.add(("encoder", 0), values)
        expected.append(values.unique(return_counts=True))
    for found, wanted in zip(codes.found["encoder", 0], expected, strict=True):
        assert all(torch.equal(one, other) for one, other in zip(found, wanted, strict=True))
    assert codes.most == max(len(values) for values, _ in expected) and codes.few()
