"""Caches that hold only what is kept: generation is the simulated one token by token, and a plain model's."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import pytest
import slow_caches as slow
import torch
from closeness import close
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import tiny
from transformers import DynamicCache, StaticCache

import attnbench
from attnbench import Kept, Method, NotApplicable
from attnbench.errors import UserError

NEW = 6
WRITE = {
    "max_new_tokens": NEW, "do_sample": False, "return_dict_in_generate": True, "output_logits": True,
    "pad_token_id": 0, "eos_token_id": None,
}  # fmt: skip
SPECS = (
    "evict50:snapkv",
    "evict60:h2o:budget=adakv",
    "evict70:snapkv:budget=pyramidkv:window=2",
    "evict50:streamingllm",
    "evict50:tova:layers=1",
    "evict50:tova+evict20:random",
    "evict50:expected",
    "evict90:random:bare",
    "evict0:streamingllm",
)


@pytest.fixture(scope="module")
def models():
    return {name: copy.deepcopy(tiny(name)).double() for name in ("llama", "gpt2", "qwen", "opt")}


def filled(model, batch):
    """Return a cache that has read the first nine places."""
    cache, mask = DynamicCache(), batch["attention_mask"][:, :9]
    at = (mask.cumsum(1) - 1).clamp(min=0)
    model(batch["input_ids"][:, :9], attention_mask=mask, position_ids=at, past_key_values=cache)
    return cache


def texts(tokens=(20, 16, 9, 1), seed=5):
    """Make ids (texts, tokens) padded on the left, and their mask."""
    draw = torch.Generator().manual_seed(seed)
    ids, longest = torch.randint(3, 97, (len(tokens), max(tokens)), generator=draw), max(tokens)
    mask = torch.stack([torch.arange(longest) >= longest - each for each in tokens]).long()
    return {"input_ids": ids * mask, "attention_mask": mask}


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("name", ["llama", "gpt2", "qwen", "opt"])
def test_generation_is_the_simulated_one(models, name, spec):
    model, batch = models[name], texts()
    with attnbench.apply(model, spec):
        expected = model.generate(**batch, **WRITE)
    with attnbench.realize(model, spec):
        found = model.generate(**batch, **WRITE)
    assert torch.equal(found.sequences, expected.sequences)
    close(torch.stack(found.logits), torch.stack(expected.logits), layers=2, says=spec)


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_it_is_a_plain_model_with_a_cache_that_was_cut(models, name):
    model, n, more = models[name], 20, 5
    ids = torch.randint(3, 97, (1, n + more), generator=torch.Generator().manual_seed(3))
    run = slow.dense(model, ids[:, :n])
    heads = len(run["keys"][0])
    kept = [slow.table([slow.largest(run["attention"][k][:, n - 1].mean(0), 10)] * heads, n) for k in (0, 1)]
    cache = DynamicCache()
    with torch.no_grad(), attnbench.realize(model, "evict50:tova"):
        model(ids[:, :n], past_key_values=cache)
        assert [layer.keys.shape[2] for layer in cache.layers] == [10, 10]
        found = [model(ids[:, p : p + 1], past_key_values=cache).logits for p in range(n, n + more)]
    close(torch.cat(found, 1), slow.continued(model, ids, n, kept), layers=2)
    off = slow.continued(model, ids, n, [each[:, ::-1].copy() for each in kept])
    assert (torch.cat(found, 1) - off).abs().max() > 1e-2  # the reference can fail


@dataclass
class Uneven(Method):
    """Keep of each head another number of tokens, drawn from the prompt's length."""

    seed: int = 0
    name = "uneven"

    def cache(self, prompt, site):
        heads, tokens = prompt.keys.shape[:2]
        draw = torch.Generator().manual_seed(100 * self.seed + 10 * site.rank + tokens)
        kept = torch.rand(heads, tokens, generator=draw) < torch.rand(heads, 1, generator=draw)
        kept[:, -1] = True
        return Kept(values=prompt.values * 0.5, tokens=kept)


@settings(max_examples=6, deadline=None)
@given(st.lists(st.integers(1, 12), min_size=1, max_size=4), st.integers(0, 9), st.integers(1, 4))
def test_heads_and_texts_may_keep_what_they_like(lengths, seed, size):
    model, batch = copy.deepcopy(tiny("llama")).double(), texts(lengths, seed)
    later = torch.randint(3, 97, (len(lengths), 6), generator=torch.Generator().manual_seed(seed))
    mask, found = batch["attention_mask"], {}
    for way in (attnbench.apply, attnbench.realize):
        cache = DynamicCache()
        with torch.no_grad(), way(model, Uneven(seed)):
            model(**batch, past_key_values=cache, position_ids=(mask.cumsum(1) - 1).clamp(min=0))
            parts, whole = [], mask
            for part in later.split(size, 1):
                whole = torch.cat([whole, torch.ones_like(part)], 1)
                at = (whole.cumsum(1) - 1)[:, -part.shape[1] :]
                more = {"attention_mask": whole, "position_ids": at, "past_key_values": cache}
                parts.append(model(part, **more).logits)
            found[way] = torch.cat(parts, 1)
            assert cache.get_seq_length() == mask.shape[1] + 6
    close(found[attnbench.realize], found[attnbench.apply], layers=2)


def test_nothing_else_is_held(models):
    """Of 20 tokens 10, for every head, in the layers that are cut; not even the padding of the others."""
    with attnbench.realize(models["llama"], "evict50:tova:layers=1"):
        cache = models["llama"].generate(**texts((20, 16)), **WRITE).past_key_values
        short = models["llama"].generate(**texts((9, 8)), **WRITE | {"max_new_tokens": 1}).past_key_values
    read = 20 + NEW - 1
    assert [layer.keys.shape[2] for layer in cache.layers] == [read, read - 10]
    assert cache.get_seq_length() == read and cache.get_mask_sizes(1, 1) == (read - 9, 10)
    assert cache.layers[1].nbytes() <= 1.05 * 2 * 2 * 2 * (read - 10) * 8 * 8 + 2 * 2 * 10
    assert [layer.keys.shape[2] for layer in short.layers] == [9, 5]


def test_beams_take_their_caches_along(models):
    model, batch = models["llama"], texts((14, 9))
    options = {"max_new_tokens": 8, "num_beams": 3, "do_sample": False, "pad_token_id": 0}
    with attnbench.apply(model, "evict50:snapkv"):
        expected = model.generate(**batch, **options)
    with attnbench.realize(model, "evict50:snapkv"):
        assert torch.equal(model.generate(**batch, **options), expected)


def test_rows_of_a_cache_may_be_chosen_repeated_and_taken_back(models):
    model = models["llama"]
    batch = texts((14, 12, 10, 8))
    at = (batch["attention_mask"].cumsum(1) - 1).clamp(min=0)

    def rest(cache, rows):
        more = {"attention_mask": batch["attention_mask"][rows], "past_key_values": cache}
        return model(batch["input_ids"][rows, 9:], position_ids=at[rows, 9:], **more).logits

    with torch.no_grad(), attnbench.realize(model, Uneven()):
        expected = rest(filled(model, batch), [0, 1, 2, 3])
        for rows in ([2], [1, 1, 0, 3, 2]):
            cache = filled(model, batch)
            cache.batch_select_indices(torch.tensor(rows))
            close(rest(cache, rows), expected[rows], layers=2, says=str(rows))
        cache = filled(model, batch)
        cache.batch_repeat_interleave(2)
        close(rest(cache, [0, 0, 1, 1, 2, 2, 3, 3]), expected.repeat_interleave(2, 0), layers=2)
        cache = filled(model, batch)
        again = copy.deepcopy(cache)
        rest(cache, [0, 1, 2, 3])
        close(rest(again, [0, 1, 2, 3]), expected, layers=2, says="a copy")
        cache.crop(-5)
        close(rest(cache, [0, 1, 2, 3]), expected, layers=2, says="cropped")
        with pytest.raises(UserError, match="6 tokens of a realised cache were to go: its prompt was cut"):
            cache.crop(-6)
        cache.reset()
        assert cache.get_seq_length() == 0


def test_what_cannot_be_held_is_refused(models):
    model = models["llama"]
    batch = texts((14, 12, 10, 8))
    with torch.no_grad():
        dense = filled(model, batch)
        with attnbench.realize(model, "evict50:tova"):
            ours = filled(model, batch)
            static = StaticCache(config=model.config, max_cache_len=20)
            refused = {
                "filled before the block": lambda: model(**batch, past_key_values=dense),
                "realised cache grows by what is read": lambda: model(**batch, past_key_values=static),
                "leave that block before methods are applied": lambda: model_with(model, batch),
                "leave attnbench.prompts out": lambda: told(model, batch),
            }
            for said, call in refused.items():
                with pytest.raises(UserError, match=said):
                    call()
            holes = {**batch, "attention_mask": batch["attention_mask"].clone()}
            holes["attention_mask"][:, -3] = 0
            with pytest.raises(UserError, match="has holes"):
                model(**holes)
        with pytest.raises(UserError, match="use it within its block"):
            model(batch["input_ids"][:, :1], past_key_values=ours)
        with attnbench.apply(model, "evict50:tova"), pytest.raises(UserError, match="realize first"):
            attnbench.realize(model, "evict50:tova").__enter__()


def model_with(model, batch):
    with attnbench.apply(model, "prune50"):
        model(**batch)


def told(model, batch):
    with attnbench.prompts(model, [3, 5, 7, 9]):
        model(**batch, use_cache=True)


@pytest.mark.parametrize(
    "name, spec, said",
    [
        ("mistral", "evict50:tova", "whose cache is a window or a state"),
        ("gemma", "evict50:tova", "whose cache is a window or a state"),
        ("bert", "evict50:tova", "a model with an encoder"),
        ("t5", "evict50:tova", "a model with an encoder"),
        ("llama", "evict50:oracle", "not known while generating"),
        ("llama", "kvint4", "only a packed storage would save"),
        ("llama", "evict50:tova+prune50", "prune is only simulated"),
        ("llama", "heads:fixed:off=0.2:off=0.3+evict50:tova", "differs by"),  # heads that go do not vote
    ],
)
def test_what_stays_simulated_says_so(models, name, spec, said):
    with pytest.raises(NotApplicable, match=said):
        attnbench.realize(models.get(name, tiny(name)), spec).__enter__()


def test_a_prompt_without_a_cache_is_dense(models):
    model, batch = models["llama"], texts((9, 5))
    with torch.no_grad():
        expected = model(**batch, use_cache=False).logits
        with attnbench.realize(model, "evict50:tova"), pytest.warns(UserWarning, match="has no prompt"):
            close(model(**batch, use_cache=False).logits, expected, layers=2)


def test_heads_may_go_beside(models):
    model, batch = copy.deepcopy(models["llama"]), texts((20, 16))
    methods = "heads:fixed:off=0.2:off=0.3+evict50:streamingllm"
    with attnbench.apply(model, methods):
        expected = model.generate(**batch, **WRITE)
    with attnbench.realize(model, methods):
        found = model.generate(**batch, **WRITE)
        assert [layer.keys.shape[1] for layer in found.past_key_values.layers] == [1, 2]
    close(torch.stack(found.logits), torch.stack(expected.logits), layers=2)
    assert not model._forward_pre_hooks
