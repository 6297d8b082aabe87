"""The helper for numeric tests: its bounds pass rounding and nothing else, its jumps are found."""

from __future__ import annotations

import os

import pytest
import torch
from closeness import EPS, LAYER, clear_of_jumps, close, jumps, near_jumps
from tiny_models import padded, tiny

from attnbench import apply


@pytest.mark.numeric
def test_a_run_is_what_its_environment_asks_for():
    assert torch.get_num_threads() == int(os.environ["OMP_NUM_THREADS"])
    asked = os.environ.get("ATEN_CPU_CAPABILITY")
    assert asked is None or torch.backends.cpu.get_cpu_capability().lower() in (asked, "default")


def test_a_bound_is_eps_times_roundings_times_size():
    expected = torch.tensor([3.0, -8.0, 0.0])
    for share, fits in ((0.9, True), (1.1, False)):
        for options, most in (
            ({"roundings": 5}, 5 * EPS * 8),
            ({"roundings": 5, "gain": 7}, 35 * EPS * 8),
            ({"layers": 2}, 2 * LAYER * EPS * 8),
        ):
            found = expected.double() + torch.tensor([0, 0, share * most])
            for given in (found, found.numpy()):
                if fits:
                    close(given, expected, **options)
                else:
                    with pytest.raises(AssertionError, match="not close"):
                        close(given, expected, **options)
    close(torch.tensor(LAYER * EPS / 2), torch.tensor(0.0), layers=1)  # sums of terms of size 1
    with pytest.raises(AssertionError):
        close(torch.tensor(EPS), torch.tensor(0.0), roundings=100)


@pytest.mark.parametrize("spec", ["prune80", "threshold0.05", "logquant3", "linquant3:mid", "prune80:random"])
@pytest.mark.parametrize("name", ["bert", "llama"])
def test_a_method_switched_off_is_not_close(name, spec):
    model = tiny(name)
    batch = clear_of_jumps(model, spec, lambda seed: padded(model, seed=seed))
    with torch.no_grad():
        with apply(model, spec):
            expected = model(**batch).logits
        with pytest.raises(AssertionError, match="not close"):
            close(model(**batch).logits, expected, layers=3)


@pytest.mark.parametrize(
    ("spec", "row"),
    [
        ("prune50", [0.1, 0.2, 0.3, 0.4]),
        ("threshold0.25", [0.1, 0.2, 0.3, 0.4]),
        ("threshold0.5:row", [0.1, 0.15, 0.35, 0.4]),
        ("linquant2", [0.1, 0.2, 0.3, 0.4]),
        ("logquant3", [0.1, 0.2, 0.3, 0.4]),
    ],
)
def test_a_value_close_to_a_jump_is_found(spec, row):
    near = {
        "prune50": [0.1, 0.3 * (1 - 4 * EPS), 0.3, 0.4],
        "threshold0.25": [0.1, 0.2, 0.25 * (1 + 4 * EPS), 0.4],
        "threshold0.5:row": [0.1, 0.2 * (1 - 4 * EPS), 0.3, 0.4],
        "linquant2": [0.5 / 3 * (1 + 4 * EPS), 0.2, 0.3, 0.4],
        "logquant3": [0.1, 0.2, 0.37275937 * (1 + 4 * EPS), 0.4],
    }
    assert not jumps(spec, torch.tensor([row]))
    assert jumps(spec, torch.tensor([near[spec]]))


def test_equal_values_stay_equal():
    assert not jumps("prune50", torch.full((3, 8), 0.125))


def test_what_is_clear_is_what_the_method_gets():
    model = tiny("bert")
    batch = padded(model, examples=2)
    with near_jumps(model, "hidden-threshold0.2+prune50") as near:
        model(**batch)
    assert len(near) == 3 + 3 * 2  # hidden states of both examples together, attention of each
    with near_jumps(model, "uniform") as near:  # no jump
        model(**batch)
    assert near == []
