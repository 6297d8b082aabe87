"""Integer caches and the largest scores against numpy, value by value, and a plain model with that cache."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from closeness import close
from tiny_models import tiny
from transformers import DynamicCache

import attnbench
from attnbench import NotApplicable, parse, transform
from attnbench.errors import UserError

N, MORE = 21, 4


def levels(x: np.ndarray, bits: int) -> np.ndarray:
    """One group of numbers on its own scale."""
    low, step = x.min(), (x.max() - x.min()) / (2**bits - 1)
    return x if step == 0 else low + np.round((x - low) / step) * step


def by_token(x, bits, width=None):
    """Each token (heads, tokens, head_dim) over groups of channels."""
    width = width or x.shape[-1]
    found = x.copy()
    for head in range(x.shape[0]):
        for token in range(x.shape[1]):
            for first in range(0, x.shape[2], width):
                part = slice(first, first + width)
                found[head, token, part] = levels(x[head, token, part], bits)
    return found


def kivi(keys, values, bits, group, residual):
    new, n = keys.copy(), keys.shape[1]
    for head in range(keys.shape[0]):
        for channel in range(keys.shape[2]):
            for first in range(0, n - n % residual, group):
                part = slice(first, first + group)
                new[head, part, channel] = levels(keys[head, part, channel], bits)
    old = max(0, n - residual)
    return new, np.concatenate(
        [by_token(values[:, :old], bits, min(group, keys.shape[2])), values[:, old:]], 1
    )


CASES = {
    "kvint4": (lambda k, v: (by_token(k, 4), by_token(v, 4)), lambda dim: 4 + 32 / dim),
    "kvint1": (lambda k, v: (by_token(k, 1), by_token(v, 1)), lambda dim: 1 + 32 / dim),
    "kvint2:kivi": (lambda k, v: (k, v), lambda dim: 16),  # 21 tokens are fewer than 128
    "kvint2:kivi:group=4:residual=8": (
        lambda k, v: kivi(k, v, 2, 4, 8),
        lambda dim: ((16 * 10 + 5 * 16) / 21 + (13 * 10 + 8 * 16) / 21) / 2,
    ),
    "kvint3:kivi:group=2:residual=20": (
        lambda k, v: kivi(k, v, 3, 2, 20),
        lambda dim: ((20 * 19 + 16) / 21 + (1 * 19 + 20 * 16) / 21) / 2,
    ),
}


@pytest.mark.parametrize("spec", CASES)
@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_one_pass_is_a_plain_model_with_a_cache_of_integers(name, spec):
    model = copy.deepcopy(tiny(name)).double()
    ids = torch.randint(3, 97, (1, N + MORE), generator=torch.Generator().manual_seed(4))
    change, bits = CASES[spec]
    cache, steps = DynamicCache(), []
    with torch.no_grad():
        model(ids[:, :N], past_key_values=cache)
        for layer in cache.layers:
            pair = change(layer.keys[0].numpy(), layer.values[0].numpy())
            layer.keys, layer.values = (torch.from_numpy(x)[None] for x in pair)
        for at in range(N, N + MORE):
            steps.append(model(ids[:, at : at + 1], past_key_values=cache).logits)
        with attnbench.apply(model, spec) as applied, attnbench.prompts(model, [N]):
            found = model(ids, use_cache=False).logits[:, N:]
    close(found, torch.cat(steps, 1), layers=2)
    assert applied.cached() == pytest.approx({"cache": 1, "kv": bits(layer.keys.shape[-1]) / 16})


def test_every_key_and_value_is_an_integer(monkeypatch):
    model = copy.deepcopy(tiny("llama")).double()
    ids = torch.randint(3, 97, (2, N), generator=torch.Generator().manual_seed(4))
    from transformers.models.llama import modeling_llama as module

    plain = module.eager_attention_forward

    def changed(site, query, key, value, *rest, **more):
        key, value = (torch.from_numpy(np.stack([by_token(x, 4) for x in t.numpy()])) for t in (key, value))
        return plain(site, query, key, value, *rest, **more)

    with torch.no_grad(), attnbench.apply(model, "kvint4:everywhere"):
        found = model(ids, use_cache=False).logits
        cache = DynamicCache()
        parts = [model(part, past_key_values=cache).logits for part in ids.split([9, 1, 11], 1)]
    monkeypatch.setattr(module, "eager_attention_forward", changed)
    model.set_attn_implementation("eager")
    with torch.no_grad():
        expected = model(ids, use_cache=False).logits
    # its softmax is in single precision
    close(found, expected.float(), layers=2)
    close(torch.cat(parts, 1), found, layers=2)


def test_both_kinds_compose_with_eviction():
    model = copy.deepcopy(tiny("llama")).double()
    ids = torch.randint(3, 97, (1, N + MORE), generator=torch.Generator().manual_seed(4))
    for spec in ("evict50:streamingllm+kvint4", "kvint4+evict50:streamingllm"):
        with torch.no_grad(), attnbench.apply(model, spec) as applied, attnbench.prompts(model, [N]):
            model(ids, use_cache=False)
        dim = model.config.head_dim
        share = (N - N // 2) / N
        assert applied.cached() == pytest.approx({"cache": share, "kv": share * (4 + 32 / dim) / 16})


@pytest.mark.parametrize(
    "spec, said",
    [
        ("kvint0", "1 to 16 bits"),
        ("kvint2:kivi:group=3:residual=8", "multiple"),
        ("topk0", "at least 1 key"),
        ("topp0", "over 0"),
        ("topp1.5", "at most 1"),
        ("kvint4:kivi:everywhere", "do not combine"),
    ],
)
def test_what_no_spec_says(spec, said):
    with pytest.raises(UserError, match=said):
        parse(spec)


def test_channels_that_make_no_groups_are_not_applicable():
    model = copy.deepcopy(tiny("llama"))
    with pytest.raises(NotApplicable, match="no groups of 3"):  # noqa: SIM117
        with torch.no_grad(), attnbench.apply(model, "kvint2:kivi:group=3:residual=3"):
            model(torch.arange(3, 12)[None])


ROWS = {
    "random": torch.randn(1, 2, 6, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64),
    "ties": torch.randn(1, 2, 6, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64).round(),
    "constant": torch.zeros(1, 2, 6, 9, dtype=torch.float64),
}


def largest(row: np.ndarray, spec: str) -> set[int]:
    order = sorted(range(len(row)), key=lambda j: (-row[j], j))
    if spec.startswith("topk"):
        return set(order[: int(spec[4:])])
    probs = np.exp(row - row.max()) / np.exp(row - row.max()).sum()
    kept, total = set(), 0.0
    for j in order:
        if total >= float(spec[4:]):
            break
        kept.add(j)
        total += probs[j]
    return kept


@pytest.mark.parametrize("kind", ROWS)
@pytest.mark.parametrize("spec", ["topk1", "topk4", "topk9", "topk20", "topp0.3", "topp0.95"])
def test_the_largest_scores_stay(spec, kind):
    visible = torch.ones(6, 9, dtype=torch.bool).tril(3)[None, None]
    given = ROWS[kind]
    found = transform(spec, given, visible)
    for row in range(6):
        for head in range(2):
            seen = 4 + row if row < 5 else 9
            kept = {j for j in range(9) if not found[0, head, row, j].isneginf()}
            assert kept == largest(given[0, head, row, :seen].numpy(), spec)
            assert all(found[0, head, row, j] == given[0, head, row, j] for j in kept)


def test_what_stays_is_renormalised():
    model = tiny("llama")
    ids = torch.arange(3, 30)[None]
    seen = []
    watching = attnbench.watch(model, probs=lambda probs, site: seen.append(probs.clone()))
    with torch.no_grad(), attnbench.apply(model, "topk4"), watching:
        model(ids, use_cache=False)
    assert all(((probs > 0).sum(-1) <= 4).all() for probs in seen)
    close(torch.cat([probs.sum(-1).flatten() for probs in seen]), torch.ones(2 * 4 * 27), roundings=27)
