"""Attention with a cache is attention without one: windows that have lost keys, static caches, beams."""

from __future__ import annotations

import pytest
import tapped_models
import torch
from closeness import close
from tiny_models import ZOO, padded, tiny
from transformers import DynamicCache, EncoderDecoderCache, StaticCache

import attnbench
from attnbench.engine.places import origins
from attnbench.errors import UserError
from attnbench.methods.spec import parse

POSITIONS = ("sink2:window=3", "prune50:random", "mask70")


def fitted(spec, model, batch):
    methods = parse(spec)
    for method in methods:
        method.fit(model, [batch])
    return methods


def caches(kind, model):
    """A new cache: one that grows, one of fixed size, one that keeps all keys whatever a window hides."""
    if kind == "static":
        return StaticCache(config=model.config, max_cache_len=16)
    return DynamicCache(config=model.config) if kind == "dynamic" else DynamicCache()


def in_parts(model, batch, cache, parts):
    """Logits of calls of so many tokens each, one after the other."""
    found, done = [], 0
    for size in parts:
        ids, mask = batch["input_ids"][:, done : done + size], batch["attention_mask"][:, : done + size]
        found.append(model(ids, attention_mask=mask, past_key_values=cache).logits)
        done += size
    return torch.cat(found, 1)


@pytest.mark.numeric
@pytest.mark.parametrize("spec", POSITIONS)
@pytest.mark.parametrize("name", ["mistral", "gemma", "llama"])
def test_a_window_s_cache_changes_no_method(name, spec):
    model = tiny(name)
    batch = padded(model, "left", examples=4)
    real = batch["attention_mask"].bool()
    methods = fitted(spec, model, batch)
    with torch.no_grad(), attnbench.apply(model, *methods):
        expected = model(**batch, use_cache=False).logits[real]
        for kind in ("dynamic", "static", "whole"):
            for parts in ([9, 1, 1, 1, 1, 1], [3, 6, 3, 2], [1, 1, 1, 8, 3]):
                found = in_parts(model, batch, caches(kind, model), parts)[real]
                close(found, expected, layers=2, says=f"{kind} {parts}")
    with torch.no_grad():
        assert (model(**batch, use_cache=False).logits[real] - expected).abs().max() > 0.1


@pytest.mark.numeric
@pytest.mark.parametrize("name", ["gpt-neo", "gpt-j"])
def test_a_tapped_window_s_cache_changes_no_method(name):
    model, batch = tapped_models.tiny(name), tapped_models.padded(name)
    places, shown = batch["position_ids"], batch["attention_mask"]
    with torch.no_grad(), attnbench.apply(model, "prune50:random"):
        expected = model(**batch, use_cache=False).logits[shown.bool()]
        cache, found = DynamicCache(), []
        for low, high in ((0, 7), (7, 8), (8, 11)):
            step = {"input_ids": batch["input_ids"][:, low:high], "position_ids": places[:, low:high]}
            found.append(model(**step, attention_mask=shown[:, :high], past_key_values=cache).logits)
        found = torch.cat(found, 1)[shown.bool()]
        close(found, expected, layers=2)


def test_beams_share_a_window_s_cache():
    model = tiny("mistral")
    batch = padded(model, "left", examples=3, tokens=9)
    settings = {
        "max_new_tokens": 6,
        "min_new_tokens": 6,
        "num_beams": 3,
        "do_sample": False,
        "pad_token_id": 0,
    }
    with torch.no_grad(), attnbench.apply(model, "prune50:random"):
        found = model.generate(**batch, **settings)
        assert torch.equal(found, model.generate(**batch, **settings, use_cache=False))


@pytest.mark.numeric
def test_a_tile_of_a_step_is_the_last_row_without_a_cache():
    model, seen = tiny("mistral"), []
    ids = padded(model, examples=1, tokens=3)["input_ids"].repeat(1, 4)
    with torch.no_grad():
        cache = model(ids[:, :-1], use_cache=True).past_key_values
        with attnbench.watch(model, probs=lambda probs, site: seen.append((probs.clone(), site))):
            model(ids, use_cache=False)
            model(ids[:, -1:], past_key_values=cache)
    for (whole, _), (step, site) in zip(seen[:2], seen[2:], strict=True):
        assert (site.offset, step.shape[2:]) == (11, (1, 12)) and not site.visible[..., :7].any()
        close(step, whole[:, :, -1:], layers=2)


def test_a_window_under_a_mask_of_unknown_origin_is_refused():
    model = tiny("mistral")
    ids = torch.arange(3, 15)[None]
    with torch.no_grad(), attnbench.apply(model, "prune50:random"):
        cache = model(ids[:, :-1], use_cache=True).past_key_values
        with pytest.raises(UserError, match="window of 5 keys"):
            model(ids[:, -1:], attention_mask=torch.zeros(1, 1, 1, 5), past_key_values=cache)
        # without a cache every token sees its own key
        hidden = torch.ones(12, 12, dtype=torch.bool).tril().logical_not()
        mask = torch.zeros(12, 12).masked_fill(hidden, torch.finfo(torch.float32).min)
        model(ids, attention_mask=mask[None, None], use_cache=False)


def test_nothing_is_remembered_of_a_mask_that_is_gone():
    before = len(origins._known)
    test_a_tile_of_a_step_is_the_last_row_without_a_cache()
    assert len(origins._known) == before


@pytest.mark.numeric
@pytest.mark.parametrize("spec", ["prune50:random:on=cross", "prune50:random", "mask70"])
@pytest.mark.parametrize("name", ["t5", "bart", "marian"])
def test_a_static_cache_changes_no_cross_attention(name, spec):
    model = tiny(name)
    batch = padded(model, examples=4)
    ids, shown = batch["decoder_input_ids"], torch.ones_like(batch["decoder_input_ids"])
    shown[1, :2] = 0  # a decoder's padding on the left, which positions do not count
    methods = fitted(spec, model, batch)
    with torch.no_grad(), attnbench.apply(model, *methods):
        expected = model(**batch, decoder_attention_mask=shown, use_cache=False).logits[shown.bool()]
        encoded = model.get_encoder()(batch["input_ids"], attention_mask=batch["attention_mask"])
        for kind in (StaticCache, DynamicCache):
            sizes = [{"max_cache_len": n} if kind is StaticCache else {} for n in (9, 14)]
            config = model.config.get_text_config(decoder=True)
            cache = EncoderDecoderCache(*(kind(config=config, **size) for size in sizes))
            found = []
            for low, high in ((0, 3), (3, 4), (4, 5)):
                step = model(
                    attention_mask=batch["attention_mask"], encoder_outputs=encoded, past_key_values=cache,
                    decoder_input_ids=ids[:, low:high], decoder_attention_mask=shown[:, :high],
                )  # fmt: skip
                found.append(step.logits)
            close(torch.cat(found, 1)[shown.bool()], expected, layers=len(ZOO[name][2]))
