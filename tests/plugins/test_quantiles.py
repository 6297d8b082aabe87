"""Data-dependent quantisers against the original formulas in numpy, float64, bug by bug."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from closeness import EPS
from hypothesis import given, settings
from hypothesis import strategies as st
from probability_rows import ROWS, rows_of

from attnbench import Site, parse, transform
from attnbench.errors import UserError
from attnbench.testing import check_method

M = 1e-3
SPECS = ("quantile{}", "quantile{}:halving", "quantile{}:halving:unpruned")


def example(kind: str, seed: int, heads: int = 3, queries: int = 7, keys: int = 29) -> torch.Tensor:
    """One example's probabilities (heads, queries, keys)."""
    return torch.stack([rows_of(kind, queries, keys, seed + head) for head in range(heads)])


def function_8(x: np.ndarray, bits: int) -> np.ndarray | None:
    """Their quantiser, an exact 1.0 in the top bin; None where it fails, lacks a bin or has bins too many."""
    s = np.sort(x[x > M])
    n, bins = len(s), 2**bits - 1
    stride = max(int(n / bins), 1)
    edges = [M] + [s[i * stride] for i in range(1, n) if i * stride < n]
    regular = n > 1 and (n < bins or (n % bins and len(edges) - 1 == bins))
    if not regular:
        return None
    y = np.zeros_like(x)
    for low, high in pairwise(edges):
        y[(x >= low) & (x < high)] = (low + high) / 2
    y[x >= edges[-1]] = (edges[-2] + edges[-1]) / 2
    return y


def halving(x: np.ndarray, bits: int, pruned: bool) -> np.ndarray:
    """Functions 9 and 10, with 2^i as exact integers and an exact 1.0 in the top bin."""
    s = np.sort(x[x > M] if pruned else x.ravel())
    y, n = np.zeros_like(x), len(s)
    if not n:
        return y
    ends = np.cumsum([n // 2**i for i in range(1, 2**bits + (not pruned))])
    level, low, at = s[0], M if pruned else -np.inf, 0
    for end in ends:
        if end > at:
            level = s[at:end].mean()
        y[(x >= low) & (x < s[end])] = level
        low, at = s[end], end
    y[x >= low] = level
    return y


@pytest.mark.numeric
@pytest.mark.parametrize("bits", range(2, 9))
def test_equal_counts_are_their_function_8_where_that_is_well_defined(bits):
    compared = 0
    for kind in ROWS:
        for queries in (4, 5, 8, 11, 16, 17):
            probs = example(kind, 40 * queries, heads=2, queries=queries)
            expected = function_8(probs.double().numpy(), bits)
            if expected is not None:
                compared += 1
                found = transform(f"quantile{bits}", probs[None])[0].numpy()
                np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert compared >= 10


@pytest.mark.numeric
def test_equal_counts_are_function_8_on_large_tensors():
    for bits, queries in ((2, 60), (3, 60), (4, 61), (6, 90), (8, 200)):
        probs = example("random", bits, heads=6, queries=queries, keys=71)
        expected = function_8(probs.double().numpy(), bits)
        assert expected is not None
        np.testing.assert_allclose(transform(f"quantile{bits}", probs[None])[0].numpy(), expected, rtol=1e-6)


@pytest.mark.numeric
@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("kind", ROWS)
@pytest.mark.parametrize("pruned", [True, False])
def test_halving_counts_are_their_functions_9_and_10(kind, bits, pruned):
    spec = f"quantile{bits}:halving" + ("" if pruned else ":unpruned")
    for seed in range(3):
        probs = example(kind, 40 * seed)
        found = transform(spec, probs[None])[0].numpy()
        np.testing.assert_allclose(
            found, halving(probs.double().numpy(), bits, pruned), rtol=2e-6, atol=1e-30
        )


@pytest.mark.numeric
def test_equal_counts_by_hand():
    # n = 6, two bits: R = 3 divides 6, so stride 2 and a last edge at the largest value
    probs = torch.tensor([[[[0.0, 0.0005, 0.1, 0.2], [0.3, 0.4, 0.5, 0.6]]]])
    found = transform("quantile2", probs).flatten().numpy()
    edges = [0.001, 0.3, 0.5, 0.6]
    low, mid, top = ((a + b) / 2 for a, b in pairwise(edges))
    np.testing.assert_allclose(found, [0, 0, low, low, mid, mid, top, top], rtol=1e-6)
    # n = 5 for R = 3: by their stride 1 five bins, so even shares instead: edges at s[1], s[3], s[4]
    found = transform("quantile2", probs[..., 1:, :].clone()).flatten()
    assert len(found.unique()) <= 4
    five = torch.tensor([[[[0.1, 0.2, 0.3, 0.4, 0.5]]]])
    edges = [0.001, 0.2, 0.4, 0.5]
    low, mid, top = ((a + b) / 2 for a, b in pairwise(edges))
    np.testing.assert_allclose(
        transform("quantile2", five).flatten().numpy(), [low, mid, mid, top, top], rtol=1e-6
    )


def test_one_bit_is_one_level():
    probs = torch.tensor([[[[0.0002, 0.1, 0.2, 0.7]]]])
    assert transform("quantile1", probs).flatten().tolist() == pytest.approx([0, *[(0.001 + 0.7) / 2] * 3])
    assert transform("quantile1:halving", probs).flatten().tolist() == pytest.approx([0, 0.1, 0.1, 0.1])


shapes = st.tuples(
    st.sampled_from(ROWS), st.integers(0, 10**6), st.integers(1, 4), st.integers(1, 9), st.integers(1, 40)
)


@settings(max_examples=120, deadline=None)
@given(shapes, st.integers(1, 8), st.sampled_from(SPECS))
def test_few_levels_in_order_and_in_range(shape, bits, spec):
    probs = example(*shape)
    found = transform(spec.format(bits), probs[None])[0]
    assert len(found.unique()) <= 2**bits
    order = probs.flatten().argsort()
    assert (found.flatten()[order].diff() >= 0).all()
    assert found.min() >= 0 and found.max() <= max(probs.max(), M) * (1 + 1e-6)
    if "unpruned" not in spec:
        assert torch.equal(found == 0, probs < torch.tensor(M))


@pytest.mark.parametrize("spec", [*(spec.format(3) for spec in SPECS), "quantile8", "binary"])
def test_an_example_is_alone_in_its_statistics(spec):
    probs = torch.stack([example(kind, 5) for kind in ("random", "peaked", "one-hot", "constant")])
    together = transform(spec, probs)
    for one, found in zip(probs, together, strict=True):
        assert torch.equal(transform(spec, one[None])[0], found)


@pytest.mark.parametrize("spec", [*(spec.format(3) for spec in SPECS), "binary"])
def test_hidden_keys_do_not_count(spec):
    inner = example("random", 9)
    padded = torch.nn.functional.pad(inner, (0, 11))[None]
    visible = torch.arange(40)[None, None, None] < 29
    found = transform(spec, padded, visible.expand(1, 1, 7, 40))
    assert torch.equal(found[0, ..., :29], transform(spec, inner[None])[0])
    assert not found[..., 29:].any()


@pytest.mark.numeric
@pytest.mark.parametrize("spec", [*(spec.format(bits) for spec in SPECS for bits in (1, 3, 8)), "binary"])
def test_degenerate_examples(spec):
    nothing = transform(spec, torch.full((1, 1, 2, 2000), 0.0005))
    if "unpruned" in spec:
        assert torch.allclose(nothing, torch.tensor(0.0005))
    else:
        assert not nothing.any()
    one_hot = transform(spec, torch.eye(5)[None, None])
    if "unpruned" not in spec:
        top = {"binary": 0.2, "quantile1": 0.5005}.get(spec, 1.0)
        torch.testing.assert_close(one_hot, torch.eye(5)[None, None] * top)
    for empty in (transform(spec, torch.zeros(1, 2, 3, 4)), transform(spec, torch.zeros(1, 2, 3, 0))):
        assert not empty.any()


@pytest.mark.numeric
def test_binary_is_one_over_the_count():
    for kind in ROWS:
        x = example(kind, 3).double().numpy()
        count = (x >= M).sum()
        found = transform("binary", example(kind, 3)[None])[0].numpy()
        np.testing.assert_allclose(found, np.where(x >= np.float32(M), 1 / max(count, 1), 0), rtol=1e-6)


@pytest.mark.numeric
@pytest.mark.parametrize("spec", [*(spec.format(bits) for spec in SPECS for bits in (3, 8)), "binary"])
def test_gradients_go_straight_through(spec):
    probs = torch.stack([example("random", 1), example("peaked", 2)])
    asked = probs.clone().requires_grad_()
    found = transform(spec, asked)
    difference = (found - transform(spec, probs)).abs().max()
    assert difference <= 2 * EPS * probs.max()  # p + (q - p) is rounded as p is
    found.sum().backward()
    assert torch.equal(asked.grad, torch.ones_like(probs))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_other_dtypes(dtype):
    probs = example("random", 2).to(dtype)[None]
    for spec in (*(spec.format(bits) for spec in SPECS for bits in (3, 8)), "binary"):
        found = transform(spec, probs)
        assert found.dtype == dtype and found.isfinite().all()
        method = parse(spec)[0]
        edited = probs.clone()
        assert torch.equal(method.probs(edited, Site("", "encoder", 0, 3, 8)), found)


@pytest.mark.parametrize("spec", ["quantile0", "quantile17:halving"])
def test_amounts_out_of_range(spec):
    with pytest.raises(UserError, match="1 to 16 bits"):
        parse(spec)


@pytest.mark.parametrize("spec", [*(spec.format(3) for spec in SPECS), "quantile1", "quantile8", "binary"])
def test_promises(spec):
    report = check_method(spec)
    assert report.ok, report
