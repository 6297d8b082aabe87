"""Hidden-state methods against the original formulas in numpy, float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from closeness import close
from hypothesis import given, settings
from hypothesis import strategies as st

import attnbench
from attnbench import parse, transform
from attnbench.conformance import tiny
from attnbench.engine.applicable import require_sites
from attnbench.engine.places import sites
from attnbench.errors import NotApplicable, UserError
from attnbench.testing import check_method

SPECS = ("hidden-quant{}", "hidden-quant{}:linear", "hidden-quant{}:log")


def states(seed: int = 0, spread: float = 5.0) -> torch.Tensor:
    """Hidden states (batch, tokens, hidden) with zeros, whole numbers and outliers among them."""
    draw = torch.Generator().manual_seed(seed)
    values = torch.randn(2, 9, 40, generator=draw) * spread
    values[0, 0, :8] = torch.tensor([0.0, -0.0, 1.0, -1.0, 1e-6, -1e-6, 31.99, -32.4])
    values[1, 0, :3] = torch.tensor([15.0, 16.0, -16.5])
    return values


def fixed_point(x: np.ndarray, bits: int) -> np.ndarray:
    """Theirs, integer and fraction apart; from 33 up, where theirs falls back, the last value."""
    step = 2.0 ** -(bits - 6)
    whole = np.floor(np.abs(x))
    part = np.floor((np.abs(x) - whole) / step + 0.5) * step
    size = np.where(np.abs(x) >= 33, 33, np.minimum(whole, 32) + part)
    return np.where(x < 0, -1, 1) * size


def linear(x: np.ndarray, bits: int) -> np.ndarray:
    step = 40 / 2**bits
    return np.floor((x + 15) / step + 0.5) * step - 15


def log(x: np.ndarray, bits: int) -> np.ndarray:
    step = 9 / (2 ** (bits - 1) - 1)
    power = np.floor(np.log2(np.where(x == 0, 1e-10, np.abs(x))) / step + 0.5) * step
    size = np.where(power <= -5 + 1e-9, 0, np.where(power > 4, 16, 2**power))
    return np.sign(x) * size


CASES = [
    (SPECS[0], fixed_point, range(7, 17)),
    (SPECS[1], linear, range(1, 17)),
    (SPECS[2], log, range(2, 17)),
]


@pytest.mark.numeric
@pytest.mark.parametrize("spec, formula, bits", [(s, f, b) for s, f, every in CASES for b in every])
def test_quantisers_are_their_formulas(spec, formula, bits):
    for seed, spread in ((0, 0.05), (1, 1), (2, 8), (3, 40)):
        given = states(seed, spread)
        found = transform(spec.format(bits), given).double().numpy()
        x = given.double().numpy()
        # within rounding of a bin's edge either neighbour is right
        near = [formula(x + at * (3e-6 * np.abs(x) + 3e-6), bits) for at in (-1, 0, 1)]
        if formula is log:
            near = [formula(x * (1 + at * 3e-6), bits) for at in (-1, 0, 1)]
        close = np.any([np.isclose(found, value, rtol=2e-5, atol=2e-5) for value in near], axis=0)
        assert close.all(), (x[~close], found[~close])
        inside = near[0] == near[2]
        np.testing.assert_allclose(found[inside], near[1][inside], rtol=2e-5, atol=2e-5)


def test_fixed_point_by_hand():
    given = torch.tensor([0.0, 0.12, 0.125, 0.37, -0.38, 5.0, -31.9, 32.6, 33.0, 40.7, -1e4])
    assert transform("hidden-quant8", given).tolist() == [0, 0, 0.25, 0.25, -0.5, 5, -32, 32.5, 33, 33, -33]


def test_log_by_hand():
    # 3 bits: exponents 0, +-3 and below -5 nothing; half-way is rounded up
    given = torch.tensor([0.0, 1.0, -1.0, 2.0**1.4, 2.0**1.6, 2.0**-1.6, 2.0**-4.4, 2.0**-4.6, -100.0, 1e-30])
    found = transform("hidden-quant3:log", given)
    assert found.tolist() == [0, 1, -1, 1, 8, 0.125, 0.125, 0, -16, 0]


def test_threshold_is_strict_and_by_magnitude():
    given = torch.tensor([0.25, -0.25, 0.26, -0.26, 0.0, 7.0])
    assert torch.equal(transform("hidden-threshold0.25", given), given * (given.abs() > 0.25))
    assert torch.equal(transform("hidden-threshold0", states()), states())


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.floats(-15, 25, width=32), min_size=2, max_size=60),
    st.integers(7, 12),
    st.sampled_from(SPECS),
)
def test_few_levels_in_order_and_near(values, bits, spec):
    given = torch.tensor(sorted(values))
    found = transform(spec.format(bits), given)
    assert (found.diff() >= 0).all()
    assert len(found.unique()) <= 2**bits + 1
    if spec == SPECS[0]:
        assert (found - given).abs().max() <= 2.0 ** (5 - bits)
    if spec == SPECS[1]:
        assert (found - given).abs().max() <= 20 / 2**bits + 1e-5


@pytest.mark.numeric
@pytest.mark.parametrize("spec", [spec.format(8) for spec in SPECS])
def test_gradients_go_straight_through(spec):
    asked = states().requires_grad_()
    found = transform(spec, asked)
    close(found, transform(spec, states()), roundings=2)
    found.sum().backward()
    assert torch.equal(asked.grad, torch.ones_like(asked))


def test_a_thresholded_value_has_no_gradient():
    asked = states().requires_grad_()
    transform("hidden-threshold1", asked).sum().backward()
    assert torch.equal(asked.grad, (states().abs() > 1).float())


@pytest.mark.parametrize("spec", ["hidden-threshold0.1", *(spec.format(8) for spec in SPECS)])
def test_half_precision_rounds_once(spec):
    given = states(spread=1).bfloat16()
    expected = transform(spec, given.float()).bfloat16()
    if "threshold" in spec:
        expected = transform(spec, given)
    assert torch.equal(transform(spec, given), expected)


def test_the_input_of_every_layer_is_changed_and_nothing_else():
    import tiny_models

    model = tiny_models.tiny("bert")
    inputs = tiny_models.padded(model, "right", examples=2)
    sites.discover(model)  # its probe is a forward pass too
    seen, given, layers = [], [], model.base_model.encoder.layer
    handles = [
        layer.register_forward_pre_hook(lambda _, args: given.append(args[0].clone())) for layer in layers
    ]
    watching = attnbench.watch(model, hidden=lambda hidden, site: seen.append(hidden.clone()))
    with torch.no_grad(), attnbench.apply(model, "hidden-quant8"), watching:
        model(**inputs)
    for handle in handles:
        handle.remove()
    assert len(seen) == len(given) == len(layers)
    for after, before in zip(seen, given, strict=True):
        assert torch.equal(after, transform("hidden-quant8", before)) and not torch.equal(after, before)


@pytest.mark.parametrize(
    "spec", ["hidden-quant6", "hidden-quant17", "hidden-quant0:linear", "hidden-quant1:log", "hidden-quant"]
)
def test_amounts_out_of_range(spec):
    with pytest.raises(UserError, match="bits"):
        parse(spec)


@pytest.mark.parametrize("spec", ["hidden-threshold0.1", *(spec.format(8) for spec in SPECS)])
def test_promises(spec):
    report = check_method(spec)
    assert report.ok, report


@pytest.mark.parametrize("name", ["bart", "t5"])
def test_no_layer_begins_at_a_cross_attention(name):
    model = tiny.build(name)
    with pytest.raises(NotApplicable, match="hidden-quant8:on=cross: no layer begins at on=cross"):
        require_sites(model, parse("hidden-quant8:on=cross"))
    require_sites(model, parse("hidden-quant8:on=cross:on=decoder"))
    with attnbench.apply(model, "hidden-quant8:on=cross:on=decoder") as applied:
        assert applied.expected == 2
