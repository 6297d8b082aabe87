"""Heads cut out of the weights against heads masked: every architecture and kind, layers with none left."""

from __future__ import annotations

import copy

import pytest
import torch
import transformers
from closeness import clear_of_jumps, close, sharpness
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import PAIRS, ZOO, padded, tiny

import attnbench
from attnbench import parse
from attnbench.conformance.integrity import difference, snapshot
from attnbench.engine.places.sites import discover
from attnbench.engine.realised import removal, slicing
from attnbench.errors import NotApplicable, UserError
from attnbench.measures.measure import measure

# of layer 0 heads 1 and 3 go, of layer 1 all: whole groups of keys and values, where there are groups
SOME = "heads:fixed:off=0.2:off=0.3:off=1"
ONE_GROUP = ("llama", "mistral", "gemma", "qwen")


def _outputs(model, batch):
    with torch.no_grad():
        output = model(**batch)
    logits = output.logits
    if model.config.is_encoder_decoder or logits.dim() == 2:
        return logits
    return logits[batch["attention_mask"].bool()]


def _masked(model, spec, batch):
    with attnbench.apply(model, *_methods(spec)):
        return _outputs(model, batch)


def _unread(model, batch):
    """Return the outputs of a copy whose output projections do not read the heads that SOME names."""
    model = copy.deepcopy(model)
    for site in discover(model):
        closed = {0: (2, 3), 1: range(site.heads)}.get(site.layer, ())
        weight = slicing.find(model, site.path).output.weight.data
        for head in closed:  # columns of a Linear's weight, rows of a Conv1D's
            part = slice(head * site.head_dim, (head + 1) * site.head_dim)
            weight[(part, slice(None)) if model.config.model_type == "gpt2" else (slice(None), part)] = 0
    return _outputs(model, batch)


def _methods(spec):
    return parse(spec) if isinstance(spec, str) else spec


def _sizes(model):
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.numeric
@pytest.mark.parametrize("name", [name for name in ZOO if name != "albert"])
def test_removed_equals_masked(name):
    model = tiny(name)
    batch, before, size = padded(model), snapshot(model), _sizes(model)
    dense, expected = _outputs(model, batch), _masked(model, SOME, batch)
    with attnbench.realize(model, SOME) as smaller:
        assert smaller is model and _sizes(model) < size
        found = _outputs(model, batch)
    close(found, expected, layers=len(ZOO[name][2]))
    close(found, _unread(model, batch), layers=len(ZOO[name][2]))
    assert (found - dense).abs().max() > 1e-3
    assert difference(before, snapshot(model)) is None


@pytest.mark.parametrize("name", [name for name in ZOO if name not in (*ONE_GROUP, "albert")])
@settings(max_examples=4, deadline=None)
@given(draw=st.data())
def test_any_heads_may_go(name, draw):
    model = tiny(name)
    sites = discover(model)
    off = [
        f"heads:fixed:off={site.layer}.{head}:on={site.kind}"
        for site in sites
        for head in range(site.heads)
        if draw.draw(st.booleans())
    ]
    spec = "+".join(off) or f"heads:fixed:off=0.0:on={sites[0].kind}"
    batch = padded(model, examples=3)
    with attnbench.realize(model, spec):
        found = _outputs(model, batch)
        # one by one, the later ones cut from what the earlier ones left: still the numbers of the whole model
        kept = removal.kept_heads(model)
    close(found, _masked(model, spec, batch), layers=len(sites), gain=sharpness(model, batch))
    gone = {(s.kind, s.layer): s.heads - len(kept[s.kind, s.layer]) for s in sites}
    assert sum(gone.values()) == len(set(spec.split("+")))


@pytest.mark.numeric
@pytest.mark.parametrize("name", ["t5", "bart", "gpt2", "llama"])
def test_generation_with_a_cache_is_the_same(name):
    model = tiny(name)
    batch = {key: value for key, value in padded(model, "left", examples=3).items() if "decoder" not in key}
    options = {
        "max_new_tokens": 6,
        "do_sample": False,
        "output_logits": True,
        "return_dict_in_generate": True,
    }
    with torch.no_grad(), attnbench.apply(model, SOME):
        expected = model.generate(**batch, **options)
    with torch.no_grad(), attnbench.realize(model, SOME):
        found = model.generate(**batch, **options)
    assert torch.equal(found.sequences, expected.sequences)
    for a, b in zip(found.logits, expected.logits, strict=True):
        close(a, b, layers=len(ZOO[name][2]))


@pytest.mark.numeric
@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("kind", ["encoder", "decoder", "cross"])
def test_every_kind_can_lose_all_its_heads(name, kind):
    model = tiny(name)
    spec = f"heads100:random:on={kind}"
    (method,) = parse(spec)
    method.fit(model, [])
    batch = padded(model, examples=3)
    with attnbench.realize(model, method):
        found = _outputs(model, batch)
    close(found, _masked(model, [method], batch), layers=len(ZOO[name][2]))


UNEVEN = ("heads:fixed:off=0.0:off=1.1", "heads:fixed:off=0.3:off=1.0:off=1.1:off=1.2", "heads50:gradient")


@pytest.mark.numeric
@pytest.mark.parametrize("name", ONE_GROUP)  # 4 query heads in 2 groups
@pytest.mark.parametrize("spec", UNEVEN)
def test_a_group_may_lose_some_of_its_heads(name, spec):
    model = tiny(name)
    methods, batch, before = parse(spec), padded(model, "left", examples=4), snapshot(model)
    for method in methods:
        method.fit(
            model, [{**batch, "labels": batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)}]
        )
    options = {
        "max_new_tokens": 6,
        "do_sample": False,
        "output_logits": True,
        "return_dict_in_generate": True,
    }
    with torch.no_grad(), attnbench.apply(model, *methods):
        expected, written = _outputs(model, batch), model.generate(**batch, **options)
    with torch.no_grad(), attnbench.realize(model, *methods):
        found, again = _outputs(model, batch), model.generate(**batch, **options)
    close(found, expected, layers=2)
    assert torch.equal(again.sequences, written.sequences)
    for a, b in zip(again.logits, written.logits, strict=True):
        close(a, b, layers=2)
    assert difference(before, snapshot(model)) is None


COPIES = {"off=0.1": (3, 1), "off=0.0:off=0.1": (1, 2), "off=0.0:off=0.3": (2, 1)}


@pytest.mark.numeric
@pytest.mark.parametrize(("off", "expected"), COPIES.items())
def test_keys_and_values_are_copied_no_more_than_heads_need(off, expected):
    model = tiny("llama")
    batch, attention = padded(model), model.model.layers[0].self_attn
    both = f"heads:fixed:{off}+heads:fixed:off=0.2:off=1.0"
    with attnbench.realize(model, f"heads:fixed:{off}"):
        rows = {attention.k_proj.weight.shape[0], attention.v_proj.weight.shape[0]}
        assert (rows, attention.num_key_value_groups) == ({expected[0] * 8}, expected[1])
    with attnbench.realize(model, both):  # cut twice
        found = _outputs(model, batch)
    close(found, _masked(model, both, batch), layers=2)


def test_groups_that_a_module_cannot_change_are_refused(monkeypatch):
    model = tiny("llama")
    with monkeypatch.context() as patch:
        for layer in model.model.layers:
            count = layer.self_attn.num_key_value_groups
            patch.delattr(layer.self_attn, "num_key_value_groups")
            patch.setattr(type(layer.self_attn), "num_key_value_groups", count, raising=False)
        before = snapshot(model)
        with pytest.raises(NotApplicable, match="shares keys and values"):
            attnbench.realize(model, "heads:fixed:off=0.0").__enter__()
        assert difference(before, snapshot(model)) is None


@pytest.mark.parametrize("name", ["bert", "gpt2", "llama", "t5"])
def test_a_layer_without_heads_is_no_site(name):
    model = copy.deepcopy(tiny(name))
    batch = padded(model)
    if name == "t5":
        batch["labels"] = batch["decoder_input_ids"]
    else:
        batch["labels"] = batch["input_ids"] if name != "bert" else torch.zeros(8, dtype=torch.long)
    kinds = {site.kind for site in discover(model)}
    with attnbench.realize(model, "heads:fixed:off=0"):
        sites = discover(model)
        assert {site.layer for site in sites} >= {1} and all(site.layer and site.heads == 4 for site in sites)
        whole = discover(model, headless=True)
        assert [(site.layer, site.heads) for site in whole if not site.heads] == [(0, 0)] * len(kinds)
        for criterion in ("gradient", "output", "random", "confidence"):
            (method,) = parse(f"heads50:{criterion}")
            method.fit(model, [batch])
            assert set(method.scores_) == {(site.kind, site.layer) for site in sites}
        (gates,) = parse("gates:l0:steps=2")
        gates.fit(model, [batch])
        assert set(gates.alive_) == set(method.scores_)
        plain = {key: value for key, value in batch.items() if key != "labels"}
        assert measure(model, [plain], parse("prune80"))["heads"] == 1
        with torch.no_grad(), attnbench.apply(model, "prune80") as applied:
            model(**plain)
        assert applied.hit == applied.expected == len(sites)


@pytest.mark.numeric
@pytest.mark.parametrize("name", ["bert", "gpt2", "bart"])
def test_hidden_states_before_a_layer_without_heads_are_changed_all_the_same(name):
    model = tiny(name)
    spec, fixed = "hidden-threshold0.2+prune50", "heads:fixed:off=1"
    batch = clear_of_jumps(model, spec, lambda seed: padded(model, seed=seed), fixed)
    expected = _masked(model, f"{fixed}+{spec}", batch)
    with attnbench.realize(model, fixed):
        found = _masked(model, spec, batch)
    close(found, expected, layers=len(ZOO[name][2]))


NOWHERE = ("heads:fixed:off=0.1:on=cross", "heads:fixed:off=0.1:layers=9")
UNFITTED = ("heads50:entropy", "heads50:gradient", "heads50:random", "gates:l0")


def test_no_place_to_remove_heads_from_is_not_applicable():
    model = tiny("bert")
    batch = {**padded(model), "labels": torch.zeros(8, dtype=torch.long)}
    for spec in NOWHERE:
        for change in (attnbench.apply, attnbench.realize):
            with pytest.raises(NotApplicable, match=r"at (on=cross|layers=9)"), change(model, spec):
                pass
    for spec in UNFITTED:
        with pytest.raises(NotApplicable, match="no heads at on=cross"):
            parse(f"{spec}:on=cross")[0].fit(model, [batch])


@pytest.mark.numeric
def test_kinds_may_have_different_numbers_of_heads():
    torch.manual_seed(0)
    config = transformers.BartConfig(
        vocab_size=97, d_model=32, encoder_layers=2, decoder_layers=3, encoder_attention_heads=4,
        decoder_attention_heads=2, encoder_ffn_dim=48, decoder_ffn_dim=48, bos_token_id=1, eos_token_id=2,
        pad_token_id=0, decoder_start_token_id=2, forced_eos_token_id=None,
    )  # fmt: skip
    model = transformers.BartForConditionalGeneration(config).eval()
    batch, spec = padded(model), "heads:fixed:off=0.3"  # only the encoder has it
    expected = _masked(model, f"{spec}:on=encoder", batch)
    close(_masked(model, spec, batch), expected, layers=8)
    with attnbench.realize(model, spec):
        close(_outputs(model, batch), expected, layers=8)
    for wrong in (f"{spec}:on=decoder", "heads:fixed:off=0.7"):
        with pytest.raises(ValueError, match="layer 0 has heads 0 to"), attnbench.apply(model, wrong):
            pass


@pytest.mark.numeric
def test_layers_that_share_weights_lose_the_same_heads_or_none():
    model = tiny("albert")
    batch = padded(model)
    spec = "heads:fixed:off=0.1:off=1.1:off=2.1"
    with attnbench.realize(model, spec):
        found = _outputs(model, batch)
    close(found, _masked(model, spec, batch), layers=3)
    with pytest.raises(NotApplicable, match="weights are shared"), attnbench.realize(model, SOME):
        pass


@pytest.mark.numeric
def test_inside_the_block_the_model_is_a_smaller_one():
    model = tiny("bert")
    first = "heads:fixed:off=0.0"
    batch = clear_of_jumps(model, "logquant3", lambda seed: padded(model, seed=seed), first)
    both = "heads:fixed:off=0.0:off=0.3"
    with attnbench.realize(model, first):
        assert [site.heads for site in discover(model)] == [3, 4, 4]
        with attnbench.realize(model, "heads:fixed:off=0.2"):  # counted anew: head 3 of the whole
            assert removal.kept_heads(model)["encoder", 0] == [1, 2]
            found = _outputs(model, batch)
        quantised = _masked(model, "logquant3", batch)
        assert [site.heads for site in discover(model)] == [3, 4, 4]
    close(found, _masked(model, both, batch), layers=3)
    close(quantised, _masked(model, f"{first}+logquant3", batch), layers=3)
    assert [site.heads for site in discover(model)] == [4, 4, 4]
    assert removal.kept_heads(model)["encoder", 0] == [0, 1, 2, 3]


def test_the_model_is_whole_after_an_error():
    model = tiny("t5")
    before = snapshot(model)
    with pytest.raises(KeyboardInterrupt), attnbench.realize(model, SOME):
        raise KeyboardInterrupt
    assert difference(before, snapshot(model)) is None


def test_a_smaller_model_can_be_trained():
    model = tiny("bert")
    with attnbench.realize(model, SOME):
        model(**padded(model)).logits.sum().backward()
        weight = model.bert.encoder.layer[0].attention.self.query.weight
        assert weight.shape == (16, 32) and weight.grad is not None and weight.grad.abs().sum() > 0
    model.zero_grad()


REFUSED = {
    "prune80": (NotApplicable, "prune is only simulated"),
    "heads50:entropy": (UserError, "call its fit"),
    "heads:fixed:off=0.1+logquant3": (NotApplicable, "logquant is only simulated"),
    "heads:fixed:off=9": (ValueError, "no layer 9"),
}


@pytest.mark.parametrize(("spec", "error"), REFUSED.items())
def test_what_cannot_be_realised_says_so(spec, error):
    with pytest.raises(error[0], match=error[1]), attnbench.realize(tiny("bert"), spec):
        pass


def test_realised_within_applied_is_refused():
    model = tiny("bert")
    with (
        attnbench.apply(model, "logquant3"),
        pytest.raises(UserError, match="realize first"),
        attnbench.realize(model, SOME),
    ):
        pass


def test_an_architecture_that_cannot_be_cut_is_refused(monkeypatch):
    model = tiny("bert")
    monkeypatch.setattr("attnbench.engine.realised.slicing.OUTPUT", ("other",))
    with pytest.raises(NotApplicable, match="no projections"), attnbench.realize(model, SOME):
        pass
    monkeypatch.undo()
    monkeypatch.setattr(
        "attnbench.engine.realised.slicing._rows", lambda heads, dim: list(range(len(heads) * dim))
    )
    with pytest.raises(NotApplicable, match="differs by"), attnbench.realize(model, "heads:fixed:off=0.0"):
        pass
