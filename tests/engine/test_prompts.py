"""Queries after a prompt see what a method left: in one pass, on a cache, in pieces, while generating."""

from __future__ import annotations

import copy
import warnings
from dataclasses import dataclass

import pytest
import torch
from closeness import close
from tiny_models import padded, tiny
from transformers import DynamicCache, StaticCache

import attnbench
from attnbench import Kept, Method, NotApplicable
from attnbench.engine.serving.guard import StageError
from attnbench.errors import UserError

PARTS = ([9, 5], [9, 1, 1, 1, 1, 1], [4, 5, 3, 2], [3, 9, 2], [14])


@dataclass
class Odd(Method):
    """Keep tokens of the prompt that are even or odd by head, and halve the values."""

    name = "odd"

    def cache(self, prompt, site):
        heads, tokens = prompt.keys.shape[:2]
        place = torch.arange(tokens) + prompt.start
        kept = torch.stack([place % 2 == (head + site.rank) % 2 for head in range(heads)])
        return Kept(values=prompt.values / 2, tokens=kept, bits=8)


@dataclass
class Half(Method):
    """Halve every key, prompt or not, by itself."""

    name = "half"

    def keys(self, keys, site):
        return keys.mul_(0.5) if not keys.requires_grad else keys * 0.5


def slow(model, ids, n):
    """Logits after a prompt of n tokens: plain eager attention, what is left of the prompt done by hooks."""
    handles = []
    for layer, module in enumerate(
        m for m in model.modules() if hasattr(m, "layer_idx") and hasattr(m, "scaling")
    ):

        def change(module, args, kwargs, layer=layer):
            cache = kwargs["past_key_values"]
            if len(cache.layers) <= layer:
                return None
            own = cache.layers[layer]
            if not hasattr(own, "cut"):
                own.cut = True
                own.values[:, :, :n] /= 2
            groups = module.config.num_attention_heads // own.keys.shape[1]
            keys = torch.arange(own.keys.shape[2] + 1)
            wanted = [
                (keys % 2 == (head // groups + layer) % 2) | (keys >= n)
                for head in range(module.config.num_attention_heads)
            ]
            return args, {**kwargs, "attention_mask": torch.stack(wanted)[None, :, None]}

        handles.append(module.register_forward_pre_hook(change, with_kwargs=True))
    cache, found = DynamicCache(), []
    with torch.no_grad():
        model(ids[:, :n], past_key_values=cache)
        for at in range(n, ids.shape[1]):
            found.append(
                model(ids[:, at : at + 1], past_key_values=cache, position_ids=torch.tensor([[at]])).logits
            )
    for handle in handles:
        handle.remove()
    return torch.cat(found, 1)


def in_parts(model, batch, cache, parts):
    found, done = [], 0
    for size in parts:
        ids, mask = batch["input_ids"][:, done : done + size], batch["attention_mask"][:, : done + size]
        positions = (mask.cumsum(1) - 1).clamp(min=0)[:, done:]
        more = {"attention_mask": mask, "position_ids": positions, "past_key_values": cache}
        found.append(model(ids, **more).logits)
        done += size
    return torch.cat(found, 1)


@pytest.fixture(scope="module")
def llama():
    return copy.deepcopy(tiny("llama")).double()


def batch_of(model, side="left"):
    """Four texts of 8, 10, 12 and 14 tokens, padded on one side, and where their prompts end."""
    batch = padded(model, side, examples=4)
    mask = torch.zeros(4, 14, dtype=torch.long)
    for row, tokens in enumerate((8, 10, 12, 14)):
        mask[row, slice(14 - tokens, 14) if side == "left" else slice(tokens)] = 1
    ids = torch.randint(3, 97, (4, 14), generator=torch.Generator().manual_seed(5))
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    return {**batch, "input_ids": ids * mask, "attention_mask": mask, "position_ids": positions}, [3, 5, 7, 9]


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("name", ["llama", "gpt2", "qwen"])
def test_one_pass_is_a_plain_model_with_hooks(name, side):
    model = copy.deepcopy(tiny(name)).double()
    batch, lengths = batch_of(model, side)
    with torch.no_grad(), attnbench.apply(model, Odd()) as applied, attnbench.prompts(model, lengths) as told:
        found = model(**batch, use_cache=False).logits
    for row, n in enumerate(lengths):
        real = batch["attention_mask"][row].bool()
        ids = batch["input_ids"][row][real][None]
        close(found[row][real][n:], slow(model, ids, n)[0], layers=2, says=f"row {row}")
        with torch.no_grad():
            close(found[row][real][:n], model(ids[:, :n]).logits[0], layers=2, says="the prompt is dense")
    assert told.saw == told.later == [5, 5, 5, 5]
    assert (applied.scored, applied.cut) == (20, 20)
    assert 0 < applied.cached()["cache"] < 1 and applied.cached()["kv"] == applied.cached()["cache"] / 2


@pytest.mark.parametrize("kind", ["dynamic", "static"])
@pytest.mark.parametrize("parts", PARTS, ids=str)
def test_a_cache_filled_in_pieces_is_one_pass(llama, parts, kind):
    batch, lengths = batch_of(llama)
    real = batch["attention_mask"].bool()
    for methods in ([Odd()], [Half(), Odd(), Odd()]):
        with torch.no_grad(), attnbench.apply(llama, *methods), attnbench.prompts(llama, lengths):
            expected = llama(**batch, use_cache=False).logits
            new = DynamicCache() if kind == "dynamic" else StaticCache(config=llama.config, max_cache_len=16)
            close(in_parts(llama, batch, new, parts)[real], expected[real], layers=2)


@pytest.mark.parametrize("name", ["mistral", "gemma"])
def test_a_window_cuts_what_it_still_holds(name):
    model = tiny(name)
    batch, lengths = batch_of(model)
    real = batch["attention_mask"].bool()
    with torch.no_grad(), attnbench.apply(model, Odd()), attnbench.prompts(model, lengths):
        expected = model(**batch, use_cache=False).logits
        for make in (lambda: DynamicCache(config=model.config), DynamicCache):
            for parts in ([9, 5], [9, 1, 1, 1, 1, 1], [10, 4]):
                close(in_parts(model, batch, make(), parts)[real], expected[real], layers=2, says=str(parts))
        with pytest.raises(UserError, match="has a window: read a prompt"):
            in_parts(model, batch, DynamicCache(config=model.config), [7, 7])
    held = 4  # of a window of 5, for the first query after the prompt
    seen = []

    class Look(Method):
        name = "look"

        def cache(self, prompt, site):
            seen.append((prompt.start, prompt.tokens, prompt.probs().shape[-1]))
            return Kept()

    with torch.no_grad(), attnbench.apply(model, Look()), attnbench.prompts(model, lengths):
        model(**batch, use_cache=False)
    window = [(max(0, n - held), min(n, held), min(n, held)) for n in lengths]
    assert seen[:4] == window or seen[4:] == window


def test_in_plain_use_the_first_call_is_the_prompt(llama):
    batch, _ = batch_of(llama)
    parts = [9, 1, 4]
    whole = [3, 5, 7, 9]
    with torch.no_grad(), attnbench.apply(llama, Odd()) as applied:
        found = in_parts(llama, batch, None or DynamicCache(), parts)
        assert (applied.scored, applied.cut) == (20, 20)
        with attnbench.prompts(llama, whole):
            expected = llama(**batch, use_cache=False).logits
    close(found[:, 9:], expected[:, 9:], layers=2)


@pytest.mark.parametrize("options", [{}, {"num_beams": 3}, {"cache_implementation": "static"}], ids=str)
def test_generation_with_a_cache_is_generation_without(llama, options):
    batch, _ = batch_of(llama)
    prompts = {name: batch[name] for name in ("input_ids", "attention_mask")}
    settings = {
        "max_new_tokens": 6,
        "do_sample": False,
        "return_dict_in_generate": True,
        "output_logits": True,
    }
    plain = {key: value for key, value in options.items() if key != "cache_implementation"}
    with torch.no_grad(), attnbench.apply(llama, Odd()), attnbench.prompts(llama, [7, 9, 11, 13]):
        found = llama.generate(**prompts, **settings, **options)
        expected = llama.generate(**prompts, **settings, **plain, use_cache=False)
    assert torch.equal(found.sequences, expected.sequences)
    if not plain:
        close(torch.stack(found.logits), torch.stack(expected.logits), layers=2)


def filled(model, batch):
    cache = DynamicCache()
    model(batch["input_ids"][:, :9], attention_mask=batch["attention_mask"][:, :9],
          position_ids=batch["position_ids"][:, :9], past_key_values=cache)  # fmt: skip
    return cache


def rest(model, batch, cache, rows):
    return model(batch["input_ids"][rows, 9:], attention_mask=batch["attention_mask"][rows],
                 position_ids=batch["position_ids"][rows, 9:], past_key_values=cache).logits  # fmt: skip


def test_rows_of_a_cache_are_known_again(llama):
    batch, _ = batch_of(llama)
    with torch.no_grad(), attnbench.apply(llama, Odd()):
        expected = rest(llama, batch, filled(llama, batch), [0, 1, 2, 3])
        for rows in ([2], [3, 0], [1, 1, 0, 3, 2]):
            cache = filled(llama, batch)
            cache.batch_select_indices(torch.tensor(rows))
            close(rest(llama, batch, cache, rows), expected[rows], layers=2, says=str(rows))
        cache = filled(llama, batch)
        cache.batch_repeat_interleave(2)
        close(rest(llama, batch, cache, [0, 0, 1, 1, 2, 2, 3, 3]), expected.repeat_interleave(2, 0), layers=2)
        cache = filled(llama, batch)
        again = copy.deepcopy(cache)
        rest(llama, batch, cache, [0, 1, 2, 3])
        close(rest(llama, batch, again, [0, 1, 2, 3]), expected, layers=2, says="a copy")
        cache.crop(-5)  # the five tokens after the prompt
        close(rest(llama, batch, cache, [0, 1, 2, 3]), expected, layers=2, says="cropped")
        cache.crop(-6)
        with pytest.raises(UserError, match="cropped to 8 tokens, into a prompt"):
            rest(llama, batch, cache, [0, 1, 2, 3])
        cache = StaticCache(config=llama.config, max_cache_len=16)
        for _ in range(2):
            found = in_parts(llama, batch, cache, [9, 5])[:, 9:]
            close(found, expected, layers=2, says="reset")
            cache.reset()
        cache = filled(llama, batch)
        for layer in cache.layers:
            layer.keys = layer.keys + 1
        with pytest.raises(UserError, match="begins with none of the prompts"):
            rest(llama, batch, cache, [0, 1, 2, 3])


def test_what_cannot_be_cut_is_refused(llama):
    batch, lengths = batch_of(llama)
    with torch.no_grad():
        dense = filled(llama, batch)
        with attnbench.apply(llama, Odd()):
            before = filled(llama, batch)
            with pytest.raises(UserError, match="filled before the block"):
                rest(llama, batch, dense, [0, 1, 2, 3])
        with attnbench.apply(llama, Odd()), pytest.raises(UserError, match="filled before the block"):
            rest(llama, batch, before, [0, 1, 2, 3])
        with pytest.raises(UserError, match="3 lengths of prompts were told for a"):  # noqa: SIM117
            with attnbench.apply(llama, Odd()), attnbench.prompts(llama, lengths[:3]):
                llama(**batch)
    for name in ("bert", "t5"):
        with (
            pytest.raises(NotApplicable, match="a model with an encoder"),
            attnbench.apply(tiny(name), Odd()),
        ):
            pass
    linear = copy.deepcopy(llama)
    attnbench.discover(linear)
    linear.config.layer_types = ["linear_attention", "full_attention"]
    with pytest.raises(NotApplicable, match="layers of linear attention"), attnbench.apply(linear, Odd()):
        pass


def test_a_pass_without_a_prompt_is_dense_and_said_once(llama):
    batch, _ = batch_of(llama)
    real = batch["attention_mask"].bool()
    with torch.no_grad():
        dense = llama(**batch).logits
        with attnbench.apply(llama, Odd()) as applied:
            with pytest.warns(UserWarning, match="has no prompt"):
                found = llama(**batch, use_cache=False).logits
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                llama(**batch, use_cache=False)
                with attnbench.prompts(llama, None):
                    llama(**batch, use_cache=False)
                with attnbench.prompts(llama, [None, 1, 5, 0]) as told:
                    llama(**batch, use_cache=False)
        assert applied.cut == 7  # of the third text, of 12 tokens
        assert applied.scored > 7 and told.saw == [0, 0, 7, 0]
    close(found[real], dense[real], layers=2)


def test_scored_predictions_are_counted(llama):
    batch, lengths = batch_of(llama)
    told = attnbench.prompts(llama, [None, *lengths[1:]], scored=[3, 2, 2, 1])
    with torch.no_grad(), attnbench.apply(llama, Odd()) as applied, told:
        llama(**batch, use_cache=False)
    assert (applied.scored, applied.cut) == (8, 5)


def test_terms_get_what_the_ones_before_have_left(llama):
    batch, lengths = batch_of(llama)
    seen = []

    class Look(Method):
        name = "look"

        def cache(self, prompt, site):
            seen.append((prompt.values.clone(), prompt.kept.bits, prompt.kept.tokens is None))
            return Kept()

    with torch.no_grad(), attnbench.apply(llama, Look(), Odd(), Look()), attnbench.prompts(llama, lengths):
        llama(**batch, use_cache=False)
    first, second = seen[:2]
    assert torch.equal(second[0], first[0] / 2)
    assert first[1:] == (None, True) and second[1:] == (8, False)


def test_a_gradient_is_that_of_the_later_queries(llama):
    batch, lengths = batch_of(llama)
    model = copy.deepcopy(llama)
    with attnbench.apply(model, Odd()), attnbench.prompts(model, lengths):
        with torch.no_grad():
            expected = model(**batch, use_cache=False).logits
        found = model(**batch, use_cache=False).logits
        close(found, expected, layers=2)
        found.square().mean().backward()
    assert all(weight.grad.isfinite().all() for weight in model.parameters())


BROKEN = {
    "not Kept": lambda prompt: prompt.keys,
    "kept keys": lambda prompt: Kept(keys=prompt.keys[:, :1]),
    "kept values": lambda prompt: Kept(values=prompt.values.float()),
    "not booleans": lambda prompt: Kept(tokens=prompt.keys[..., 0]),
}


@pytest.mark.parametrize("said", BROKEN)
def test_what_cannot_stand_for_a_prompt_is_told(llama, said):
    class Broken(Method):
        name = "broken"

        def cache(self, prompt, site):
            return BROKEN[said](prompt)

    batch, lengths = batch_of(llama)
    with pytest.raises(StageError, match=f"broken.cache at model.layers.0.*{said}"):  # noqa: SIM117
        with torch.no_grad(), attnbench.apply(llama, Broken()), attnbench.prompts(llama, lengths):
            llama(**batch, use_cache=False)


def test_a_prompt_that_is_kept_is_found(llama):
    class Keeps(Method):
        name = "keeps"

        def cache(self, prompt, site):
            self.held = prompt.keys
            return Kept()

    batch, lengths = batch_of(llama)
    with pytest.raises(StageError, match=r"keeps\.cache's tensor is kept"):  # noqa: SIM117
        with torch.no_grad(), attnbench.apply(llama, Keeps()), attnbench.prompts(llama, lengths):
            llama(**batch, use_cache=False)


def test_a_field_may_have_the_name_of_a_stage():
    sink = attnbench.parse("sink4")[0]
    assert sink.keys == 4
    with pytest.raises(UserError, match="amount"):
        attnbench.parse("sink")


def test_a_helper_may_have_the_name_of_a_stage():
    from attnbench.methods.protocol import overridden

    assert overridden(attnbench.parse("quantile3")[0]) == ("probs",)  # it has `values(probs, visible)`
    assert overridden(Odd()) == ("cache",) and overridden(Half()) == ("keys",)
