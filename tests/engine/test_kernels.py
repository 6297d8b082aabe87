"""The kernels against plain formulas in numpy, float64, on rows of every character."""

from __future__ import annotations

import math
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
import torch
from closeness import EPS, close
from hypothesis import example, given, settings
from hypothesis import strategies as st
from probability_rows import ROWS, rows_of

from attnbench import transform
from attnbench.engine.serving import kernels, smallest
from attnbench.methods.fields import SEEDS
from attnbench.methods.protocol import Site


def dropped_by_sorting(probs: np.ndarray, percent: int, visible: np.ndarray) -> np.ndarray:
    result = probs.astype(np.float64).copy()
    for row, seen in zip(result, visible, strict=True):
        places = [place for place in range(len(row)) if seen[place]]
        most = min(len(places) * percent // 100, len(places) - 1)
        for place in sorted(places, key=lambda place: (row[place], place))[: max(most, 0)]:
            row[place] = 0
    return result


rows = st.tuples(st.sampled_from(ROWS), st.integers(1, 12), st.integers(1, 90), st.integers(0, 10**6))


@pytest.fixture(params=[0, 1 << 20], ids=["guessed", "parted"], scope="module")
def threshold(request):
    """Thresholds as many threads find them, and as few do."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(smallest, "ALONE", request.param)
        yield


@settings(max_examples=150, deadline=None)
@given(rows, st.integers(0, 100), st.booleans())
@pytest.mark.usefixtures("threshold")
def test_drop_smallest_is_a_sort(shape, percent, causal):
    probs = rows_of(*shape)
    visible = torch.ones(probs.shape, dtype=torch.bool)
    if causal:
        visible = visible.tril(max(0, probs.shape[1] - probs.shape[0]))
        probs = probs * visible
    found = kernels.drop_smallest(probs.clone(), percent, visible if causal else None)
    np.testing.assert_array_equal(found.numpy(), dropped_by_sorting(probs.numpy(), percent, visible.numpy()))


@pytest.mark.parametrize("percent", [10, 50, 80, 95, 99.5])
@pytest.mark.parametrize("keys", [16, 128, 320, 515])
@pytest.mark.usefixtures("threshold")
def test_drop_smallest_is_a_sort_on_long_rows(keys, percent):
    for sharpness in (0.1, 1, 3, 10, 40):
        draw = torch.Generator().manual_seed(keys)
        probs = torch.softmax(sharpness * torch.randn(200, keys, generator=draw), -1)
        order = probs.double().numpy().argsort(-1, kind="stable")
        expected = probs.numpy().copy()
        np.put_along_axis(expected, order[:, : int(keys * percent // 100)], 0, axis=-1)
        np.testing.assert_array_equal(kernels.drop_smallest(probs.clone(), percent).numpy(), expected)


def test_no_row_is_nothing_to_drop():
    assert kernels.drop_smallest(torch.zeros(0, 2, 5, 16), 50).shape == (0, 2, 5, 16)


def test_shares_are_exact():
    probs = torch.arange(1, 101, dtype=torch.float32)[None] / 5050
    for percent, zeros in ((29, 29), (57, 57), (58, 58), (0, 0), (100, 99), (99.9, 99), (0.1, 0)):
        assert int((kernels.drop_smallest(probs.clone(), percent) == 0).sum()) == zeros


def log_quantised(x: np.ndarray, name: str, bits: int) -> np.ndarray:
    with np.errstate(divide="ignore"):
        logs = np.log2(x)
    low = math.log2(1e-10 if name == "unpruned" else 1e-3)
    if name == "edge":
        step = low / (2**bits - 1)
        return np.where(logs < low - step, 0, 2 ** (step * np.floor(np.maximum(logs, low) / step + 0.5)))
    step = -low / (2**bits if name == "unpruned" else 2**bits - 1)
    place = np.minimum(np.floor((np.maximum(logs, low - step) - low) / step), (-low / step) - 1)
    zero = logs < (low + step if name == "unpruned" else low)
    return np.where(zero, 0, 2 ** (step * np.round(place * 2) / 2 + step / 2 + low))


def linear_quantised(x: np.ndarray, name: str, bits: int) -> np.ndarray:
    low = 1e-3 if "pruned" in name else 0
    if "mid" in name:
        step = (1 - low) / 2**bits
        place = np.minimum(np.floor((x - low) / step), 2**bits - 1)
        return np.where(place < 1, 0, step * place + step / 2 + low)
    step = (1 - low) / (2**bits - 1)
    place = np.floor((x - low) / step + 0.5)
    return np.where(place < 1, 0, step * place + low)


QUANTISERS = [("logquant", variant, log_quantised) for variant in ("", "edge", "unpruned")]
QUANTISERS += [("linquant", variant, linear_quantised) for variant in ("", "mid", "pruned", "mid:pruned")]
GRADIENT = ("prune80", "prune80:random", "threshold0.01", "threshold0.5:row", "logquant3", "logquant6")


@pytest.mark.numeric
@pytest.mark.parametrize("family, variant, formula", QUANTISERS)
@settings(max_examples=60, deadline=None)
@given(rows, st.integers(1, 8))
def test_quantisers_are_their_formulas(family, variant, formula, shape, bits):
    probs = rows_of(*shape)
    found = transform(f"{family}{bits}" + (f":{variant}" if variant else ""), probs).double().numpy()
    x = probs.double().numpy()
    # within rounding of a bin's edge either neighbour is right: log2 x, at most 33, and its place are rounded
    near = [formula(x * (1 + at * 40 * EPS), variant, bits) for at in (-1, 0, 1)]
    same = [np.isclose(found, value, rtol=4 * EPS, atol=0) for value in near]
    assert np.any(same, axis=0).all()
    inside = np.isclose(near[0], near[2], rtol=1e-12)
    assert same[1][inside].all()


@pytest.mark.numeric
def test_the_wired_quantiser_at_three_bits():
    levels = [0.001638, 0.004394, 0.011788, 0.031623, 0.084834, 0.227585, 0.610540]
    edges = [0.001, 0.0026827, 0.0071969, 0.019307, 0.051795, 0.13895, 0.37276]
    found = transform("logquant3", torch.tensor([0.0, 0.00099, *[edge * 1.001 for edge in edges], 1.0]))
    np.testing.assert_allclose(found.numpy(), [0, 0, *levels, levels[-1]], rtol=1e-3)
    assert transform("logquant3", torch.tensor([1e-3])).item() > 0


@pytest.mark.numeric
@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("count", [20000, 20007])  # a processor's vectors and a rest that they leave
def test_levels_of_the_log_quantiser(bits, count):
    values = transform(f"logquant{bits}", torch.logspace(-4, 0, count, dtype=torch.float32)[1:]).unique()
    assert len(values) == 2**bits


@pytest.mark.parametrize(
    "spec", ["logquant3", "logquant6", "logquant6:edge", "logquant6:unpruned", "linquant6"]
)
def test_quantisers_do_not_hide_what_is_no_number(spec):
    assert transform(spec, torch.tensor([[0.5, torch.nan, 0.25]])).isnan().tolist() == [[False, True, False]]


def test_thresholds_are_strict():
    probs = torch.tensor([[0.1, 0.2, 0.4, 0.3], [0.25, 0.25, 0.25, 0.25]])
    assert transform("threshold0.25", probs).tolist() == [[0, 0, probs[0, 2], probs[0, 3]], [0, 0, 0, 0]]
    assert transform("threshold0.5:row", probs).count_nonzero(-1).tolist() == [2, 4]
    assert transform("prune50", probs).tolist() == [[0, 0, probs[0, 2], probs[0, 3]], [0, 0, 0.25, 0.25]]


@settings(max_examples=100, deadline=None)
@given(
    rows,
    st.floats(0, 1, width=32) | st.integers(0, 1000),
    st.sampled_from([torch.float32, torch.float64, torch.bfloat16]),
)
@example(("random", 1, 1, 0), 0.998046875, torch.bfloat16)  # the bound rounds up to a value that is there
def test_thresholds_are_comparisons(shape, tau, dtype):
    probs = rows_of(*shape).to(dtype)
    if isinstance(tau, int):  # one of the values, which does not survive
        tau = probs.flatten()[tau % probs.numel()].item()
    bound = torch.tensor(tau, dtype=dtype)  # a number is compared in the tensor's own precision
    spec = f"threshold{Decimal(tau):f}"
    np.testing.assert_array_equal(
        transform(spec, probs).double(), np.where(probs.double() > bound.double(), probs.double(), 0)
    )
    x = probs.double().numpy()
    found = transform(f"{spec}:row", probs).double().numpy()
    share = x / np.maximum(x.max(-1, keepdims=True), 1e-300)
    assert np.isin(found, [0, *np.unique(x)]).all() and ((found == 0) | (found == x)).all()
    sure = np.abs(share - tau) > 2 * torch.finfo(dtype).eps
    np.testing.assert_array_equal((found > 0)[sure], ((share > tau) & (x > 0))[sure])


@pytest.mark.numeric
@pytest.mark.parametrize("spec", GRADIENT)
def test_gradients_flow_and_values_agree(spec):
    probs = rows_of("random", 6, 40, 1)
    asked = probs.clone().requires_grad_()
    out = transform(spec, asked)
    close(out, transform(spec, probs), roundings=2)
    out.sum().backward()
    kept = torch.ones_like(probs) if "quant" in spec else (out.detach() != 0).float()
    assert torch.equal(asked.grad, kept)


def test_random_draws_depend_on_the_place_alone():
    probs = torch.full((1, 2, 40, 40), 1 / 40)
    whole = kernels.drop_random(probs.clone(), 80, None, 0, (0, 0, 3))
    assert (whole.count_nonzero(-1) == 8).all()
    part = kernels.drop_random(probs[:, :, 10:20].clone(), 80, None, 10, (0, 0, 3))
    assert torch.equal(part, whole[:, :, 10:20])
    for other in ((1, 0, 3), (0, 1, 3), (0, 0, 4)):
        assert not torch.equal(kernels.drop_random(probs.clone(), 80, None, 0, other), whole)
    counts = whole.count_nonzero((0, 1, 2)).float()  # no key is favoured
    assert counts.min() > 5 and counts.max() < 30


def _kept(seed, keys):
    row = torch.full((1, 1, 1, keys), 1 / keys)
    return kernels.drop_random(row, 75, None, 0, (seed, 0, 3)).nonzero()[:, 3].tolist()


@pytest.mark.parametrize("seed, kept", [(0, [2, 4, 5, 12]), (7, [0, 2, 4, 10])])
def test_a_seed_goes_on_drawing_what_it_drew(seed, kept):
    assert _kept(seed, 16) == kept


def test_every_bit_of_a_seed_counts():
    seeds = {seed ^ 1 << bit for seed in (0, 7) for bit in range(31)} | {SEEDS - 1, SEEDS - 8}
    assert len({tuple(_kept(seed, 64)) for seed in seeds}) == len(seeds)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_other_dtypes(dtype):
    probs = rows_of("random", 5, 30, 2).to(dtype)
    assert ((kernels.drop_smallest(probs.clone(), 80) == 0).sum(-1) == 24).all()
    linear = [
        f"linquant{b}{variant}" for b in (2, 3, 8) for variant in ("", ":mid", ":pruned", ":mid:pruned")
    ]
    for spec in ("logquant3", "logquant6", "logquant3:edge", "logquant8:unpruned", "threshold0.01", *linear):
        found = transform(spec, probs)
        assert found.dtype == dtype
        if dtype != torch.float64 or spec not in linear:  # rounded once, at the end
            assert torch.equal(found, transform(spec, probs.float()).to(dtype))


@pytest.mark.parametrize("percent", [33.333333333333336, 99.99999999999999, 0.00000000000001])
def test_shares_of_many_digits(percent):
    found = kernels.drop_smallest(rows_of("random", 2, 4096, 1), percent)
    assert ((found == 0).sum(-1) == min(int(4096 * Fraction(str(percent)) / 100), 4095)).all()


@pytest.mark.parametrize("spec", ["prune101", "threshold2", "logquant0", "linquant17"])
def test_amounts_out_of_range(spec):
    from attnbench.errors import UserError

    with pytest.raises(UserError, match=r"between|bits"):
        transform(spec, torch.ones(1, 3))


def test_pieces_change_nothing(monkeypatch):
    probs = rows_of("peaked", 7, 90, 3)
    steps = {
        "quantise": lambda p: kernels.quantise(p, [0.001, 0.1], [0.05, 0.3]),
        "log": lambda p: kernels.quantise_log(p, 1e-3, -9.9, 0.3, 33),
        "linear": lambda p: kernels.quantise_linear(p, 0.1, 0.5, 0.0, 1.0),
    }
    expected = {name: step(probs.clone()) for name, step in steps.items()}
    monkeypatch.setattr(kernels, "PIECE", 100)
    for name, step in steps.items():
        assert torch.equal(step(probs.clone()), expected[name])
        assert torch.equal(step(probs.mT.clone().mT), expected[name])


def hashed(numbers: list[int]) -> int:
    """Hash numbers one after another by xor-shifts and products modulo 2^32, in Python's integers."""
    state = 0
    for number in numbers:
        state = (state + number) % 2**32
        for shift, factor in ((16, 0x7FEB352D), (16, 0x846CA68B), (15, 1)):
            signed = state - 2**32 * (state >= 2**31)
            state = ((state ^ (signed >> shift) % 2**32) * factor) % 2**32
    return state


def test_a_draw_is_a_hash_of_its_place():
    site = Site("", "cross", 3, heads=2, head_dim=4)
    found = kernels.draw(7, site, torch.zeros(2, 5, 6), 40)
    assert found.shape == (2, 5, 6) and found.dtype == torch.float32
    for head, row, key in ((0, 0, 0), (1, 4, 5), (0, 2, 3)):
        bits = hashed([7, 2, 3, head, 40 + row, key]) % 2**23
        assert found[head, row, key].item() == (bits + 0.5) / 2**23
    assert torch.equal(kernels.draw(7, site, torch.zeros(2, 2, 6), 41), found[:, 1:3])  # a tile
    assert kernels.draw(7, site, torch.zeros(2, 5), 40).shape == (2, 5)  # a prompt's tokens


def test_draws_are_even_and_others_at_other_places():
    def draw(seed=0, kind="encoder", layer=0, first=0):
        return kernels.draw(seed, Site("", kind, layer, heads=4, head_dim=4), torch.zeros(4, 64, 64), first)

    whole = draw()
    assert whole.min() > 0 and whole.max() < 1
    counts = (whole * 16).long().flatten().bincount(minlength=16).double()
    expected = whole.numel() / 16
    assert ((counts - expected) ** 2 / expected).sum() < 50  # chi-square, 15 degrees: p < 1e-5
    for other in (draw(seed=1), draw(kind="decoder"), draw(layer=1), draw(first=1)):
        assert abs(torch.corrcoef(torch.stack([whole.flatten(), other.flatten()]))[0, 1]) < 5 / 128


def test_the_smallest_draws_are_what_drop_random_drops():
    site = Site("", "decoder", 2, heads=3, head_dim=4)
    probs = torch.rand(2, 3, 8, 12).add_(0.1)
    luck = kernels.draw(5, site, probs[0], 4)
    kept = kernels.drop_smallest(luck.clone(), 60, None) > 0
    assert torch.equal(probs * kept, kernels.drop_random(probs.clone(), 60, None, 4, (5, 1, 2)))
