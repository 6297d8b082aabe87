"""Windows, entmax and uniform attention against loops, a bisection and a model that has a window itself."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from closeness import EPS, close
from hypothesis import given, settings
from hypothesis import strategies as st
from probability_rows import ROWS

import attnbench
from attnbench import Site, parse, transform
from attnbench.errors import UserError
from attnbench.testing import check_method

SITE = {"path": "", "layer": 0, "heads": 2, "head_dim": 4}


def scores_of(kind: str, queries: int, keys: int, seed: int = 0) -> torch.Tensor:
    """Scores (1, 2, queries, keys) of one character."""
    draw = torch.Generator().manual_seed(seed)
    scores = torch.randn(1, 2, queries, keys, generator=draw)
    if kind == "one-hot":
        scores[..., 0] += 100
    if kind == "ties":
        scores = scores.round()
    spread = {"constant": 0.0, "peaked": 6.0, "zeros": 60.0, "edges": 0.1}
    return scores * spread.get(kind, 1.0)


@pytest.mark.parametrize(
    "spec, first, width", [("window3", 0, 3), ("sink2:window=3", 2, 3), ("sink1", 1, 64)]
)
@pytest.mark.parametrize("offset", [0, 4, 70])
def test_what_a_window_shows(spec, first, width, offset):
    (method,) = parse(spec)
    queries, keys = 6, offset + 9
    found = method.scores(torch.ones(1, 2, queries, keys), Site(kind="encoder", offset=offset, **SITE))
    for row in range(queries):
        for key in range(keys):
            shown = key < first or abs(offset + row - key) < width
            assert (found[0, 0, row, key] == 1) if shown else found[0, 0, row, key].isneginf()


@pytest.mark.numeric
@pytest.mark.parametrize("width", [1, 4, 7])
def test_a_causal_window_is_mistrals(width):
    from transformers import MistralConfig, MistralForCausalLM

    torch.manual_seed(0)
    config = MistralConfig(
        vocab_size=60, hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, sliding_window=None, attn_implementation="eager",
    )  # fmt: skip
    model = MistralForCausalLM(config).eval()
    own = MistralForCausalLM(MistralConfig(**{**config.to_dict(), "sliding_window": width}))
    own.load_state_dict(model.state_dict())
    own.set_attn_implementation("eager")
    ids = torch.randint(60, (2, 20))
    with torch.no_grad():
        expected = own.eval()(ids).logits
        with attnbench.apply(model, f"window{width}"):
            found = model(ids).logits
        dense = model(ids).logits
    close(found, expected, layers=3)
    assert (dense - expected).abs().max() > 1e-3


def test_windows_leave_cross_attention_alone():
    for spec in ("window2", "sink1:window=2"):
        (method,) = parse(spec)
        assert method.selects(Site(kind="decoder", **SITE)) and not method.selects(Site(kind="cross", **SITE))
        assert not parse(f"{spec}:on=cross")[0].selects(Site(kind="cross", **SITE))
        assert not parse(f"{spec}:on=encoder")[0].selects(Site(kind="decoder", **SITE))


def by_bisection(row: np.ndarray) -> np.ndarray:
    """Solve sum max(z / 2 - t, 0)^2 = 1 for t, and return z / 2 - t."""
    half = row / 2
    low, high = half.max() - 1, half.max()
    for _ in range(100):
        mid = (low + high) / 2
        low, high = (mid, high) if (np.maximum(half - mid, 0) ** 2).sum() > 1 else (low, mid)
    return half - low


@pytest.mark.numeric
@pytest.mark.parametrize("kind", ROWS)
@pytest.mark.parametrize("keys", [1, 2, 9, 40, 130])
def test_entmax_solves_its_equation(kind, keys):
    scores = scores_of(kind, 8, keys)
    found = transform("entmax", scores)
    roots = np.stack([by_bisection(row) for row in scores.double().flatten(0, 2).numpy()])
    most = 4 + keys**0.5  # a difference, a square, and sums over the keys for the threshold
    close(found.flatten(0, 2), np.maximum(roots, 0) ** 2, roundings=most)
    # zeros are exact, but where rounding decides whether a key is left
    assert not found.flatten(0, 2)[torch.from_numpy(roots < -most * EPS)].any()


@pytest.mark.numeric
@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=50))
def test_entmax_is_a_distribution_in_order(values):
    scores = torch.tensor(sorted(values))[None]
    found = transform("entmax", scores)
    assert found.sum().item() == pytest.approx(1, abs=2 * len(values) * EPS)
    assert (found.diff() >= 0).all() and found.min() >= 0


@pytest.mark.numeric
def test_entmax_of_hidden_keys_is_entmax_of_the_others():
    scores = scores_of("random", 8, 12)
    lowest = torch.finfo(torch.float32).min / 2
    hidden = torch.nn.functional.pad(scores, (3, 5), value=lowest)
    found = parse("entmax")[0].normalize(hidden.clone(), Site(kind="encoder", **SITE))
    close(found[..., 3:15], transform("entmax", scores), roundings=8)
    assert not found[..., :3].any() and not found[..., 15:].any()
    assert torch.equal(
        transform("entmax", scores.bfloat16()), transform("entmax", scores.bfloat16().float()).bfloat16()
    )


@pytest.mark.numeric
def test_entmax_has_its_gradient():
    scores = scores_of("random", 4, 30).requires_grad_()
    weight = torch.randn(scores.shape, generator=torch.Generator().manual_seed(5))
    probs = transform("entmax", scores)
    (probs * weight).sum().backward()
    slope = probs.detach().sqrt()  # dp/dz = diag(s) - s s' / sum s with s = sqrt p
    expected = slope * (weight - (slope * weight).sum(-1, keepdim=True) / slope.sum(-1, keepdim=True))
    close(scores.grad, expected, roundings=8)  # a root, two sums, a division, products


def watched(spec, **inputs):
    from tiny_models import padded, tiny

    model, seen = tiny("bert"), []
    watching = attnbench.watch(model, probs=lambda probs, site: seen.append(probs.clone()))
    with torch.no_grad(), attnbench.apply(model, spec), watching:
        model(**padded(model, "right", examples=3), **inputs)
    return seen


@pytest.mark.numeric
def test_uniform_divides_by_the_keys_that_earlier_methods_show():
    for probs in watched("window2+uniform"):
        shown = (torch.arange(probs.shape[2])[:, None] - torch.arange(probs.shape[3])).abs() < 2
        close(probs, (shown / shown.sum(-1, keepdim=True)).expand_as(probs), roundings=4)
    for probs in watched("uniform"):
        close(probs, torch.full_like(probs, 1 / probs.shape[-1]), roundings=4)


@pytest.mark.numeric
def test_uniform_sees_what_is_visible():
    visible = torch.ones(5, 5, dtype=torch.bool).tril()[None, None]
    found = transform("uniform", torch.randn(1, 2, 5, 5), visible)
    close(found, (visible / visible.sum(-1, keepdim=True)).expand_as(found), roundings=4)
    asked = torch.randn(1, 2, 5, 5).requires_grad_()
    assert torch.equal(transform("uniform", asked, visible), found)


@pytest.mark.parametrize("spec", ["window3000000000", "sink3000000000", "sink1:window=3000000000"])
def test_a_window_wider_than_any_text_hides_nothing(spec):
    scores = torch.randn(1, 2, 6, 6)
    assert torch.equal(transform(spec, scores), scores)


@pytest.mark.numeric
def test_a_query_that_a_mask_leaves_nothing_stays_within_the_window():
    """Whether the window comes later or earlier: it hides of what the query attends to uniformly."""
    from tiny_models import padded, tiny

    model = tiny("bert")
    batch = padded(model, examples=2, tokens=9)
    mask, window = parse("mask50+window2")
    mask.fit(model, [batch])
    for hide in mask.hide_.values():
        hide[:, 4] = True
    places = torch.arange(9)
    near = ((4 - places).abs() < 2).float()
    for methods in ((mask, window), (window, mask)):
        for grad in (False, True):
            seen = []
            watching = attnbench.watch(
                model, probs=lambda p, site, seen=seen: seen.append(p.detach().clone())
            )
            with torch.set_grad_enabled(grad), attnbench.apply(model, *methods), watching:
                model(**{key: value[1:] for key, value in batch.items()})
            for probs in seen:
                close(probs[0, :, 4], (near / near.sum()).expand(4, 9), roundings=4)
                assert not probs[0][:, (places[:, None] - places).abs() >= 2].any()


@pytest.mark.parametrize("spec", ["window0", "sink0", "sink4:window=0"])
def test_amounts_out_of_range(spec):
    with pytest.raises(UserError, match="at least 1"):
        parse(spec)


@pytest.mark.parametrize("spec", ["window64", "window8", "sink4", "sink4:window=8", "entmax", "uniform"])
def test_promises(spec):
    report = check_method(spec)
    assert report.ok, report
