"""The attention engine: eager where nothing changes, exact in what does, gone when the block ends."""

from __future__ import annotations

import gc
import weakref

import pytest
import tiny_models
import torch
from closeness import EPS, LAYER, clear_of_jumps, close
from tiny_models import DECODERS, ENCODERS, PAIRS, ZOO, padded, tiny
from torch import nn

from attnbench import Method, apply, parse, transform, watch
from attnbench.engine.places.routing import implementation
from attnbench.engine.places.sites import discover
from attnbench.engine.serving.soundness import compare_with_eager
from attnbench.errors import NotApplicable, UserError

METHODS = (
    "prune80",
    "prune80:random",
    "threshold0.05",
    "threshold0.5:row",
    "logquant3",
    "linquant3:mid",
    "uniform",
)


class Identity(Method):
    name = "identity"

    def probs(self, probs, site):
        return probs


class Zero(Method):
    name = "zero"

    def probs(self, probs, site):
        return probs * 0 if probs.requires_grad else probs.zero_()


class Scaled(Method):
    name = "scaled"

    def context(self, context, site):
        return context * 0.5


def forward(model, batch):
    with torch.no_grad():
        return model(**batch).logits


def rows(logits, batch):
    """Keep the outputs of real tokens."""
    if logits.dim() == 3 and "decoder_input_ids" not in batch:
        return logits[batch["attention_mask"].bool()]
    return logits


PADDED = [
    (name, side) for name in ZOO for side in ("right", "left") if side == "right" or name not in ENCODERS
]


@pytest.mark.numeric
@pytest.mark.parametrize(("name", "side"), PADDED)
def test_identity_is_eager(name, side):
    model = tiny(name)
    batch = padded(model, side)
    with implementation(model, "eager"):
        expected = rows(forward(model, batch), batch)
    with apply(model, Identity()) as applied:
        found = rows(forward(model, batch), batch)
    layers = len(ZOO[name][2])
    close(found, expected, layers=layers)
    assert applied.hit == applied.expected == layers
    assert compare_with_eager(model) < layers * LAYER * EPS


@pytest.mark.parametrize("name", ZOO)
def test_sites(name):
    sites = discover(tiny(name))
    assert tuple(f"{site.kind} {site.layer}" for site in sites) == ZOO[name][2]
    assert {(site.heads, site.head_dim) for site in sites} == {(4, 8)}
    modules = dict(tiny(name).named_modules())
    assert all(isinstance(modules[site.path], nn.Module) for site in sites)


@pytest.mark.parametrize("name", [*DECODERS, *PAIRS])
def test_generation_with_cache_is_generation_without(name):
    model = tiny(name)
    batch = padded(model, "right" if name in PAIRS else "left", examples=3)
    batch.pop("decoder_input_ids", None)
    settings = {"max_new_tokens": 6, "min_new_tokens": 6, "do_sample": False}
    for beams in (1, 2):
        dense = model.generate(**batch, num_beams=beams, **settings)
        with apply(model, Identity()):
            assert torch.equal(model.generate(**batch, num_beams=beams, **settings), dense)
    windows = name in ("mistral", "gemma")  # their cache forgets keys, and with them positions
    for spec in ("prune50", "logquant3") + (() if windows else ("prune50:random",)):
        with apply(model, spec):
            cached = model.generate(**batch, **settings)
            assert torch.equal(model.generate(**batch, use_cache=False, **settings), cached), spec


@pytest.mark.numeric
@pytest.mark.parametrize("spec", METHODS)
@pytest.mark.parametrize("name", ["bert", "albert", "gpt2", "llama", "t5", "marian"])
def test_a_sample_alone_is_a_sample_in_a_batch(name, spec):
    model = tiny(name)
    for side in ("right", "left") if name in DECODERS else ("right",):
        batch = clear_of_jumps(model, spec, lambda seed, side=side: padded(model, side, seed=seed))
        with apply(model, spec):
            together = forward(model, batch)
            for example, mask in enumerate(batch["attention_mask"].bool()):
                alone = {key: value[example : example + 1] for key, value in batch.items()}
                for key in ("input_ids", "attention_mask"):
                    alone[key] = alone[key][:, mask]
                if name == "gpt2" and side == "left":
                    together_positions = (mask.cumsum(0) - 1).clamp(min=0)[None]
                    own = {key: value[example : example + 1] for key, value in batch.items()}
                    row = forward(model, own | {"position_ids": together_positions})[0, mask]
                else:
                    row = together[example, mask] if name in DECODERS else together[example]
                close(row, forward(model, alone)[0], layers=len(ZOO[name][2]))


@pytest.mark.parametrize("spec", METHODS)
@pytest.mark.parametrize("name", ["gpt2", "llama", "bart"])
def test_the_future_stays_hidden(name, spec):
    model = tiny(name)
    batch = padded(model, examples=2)
    key = "decoder_input_ids" if name == "bart" else "input_ids"
    batch["attention_mask"] = torch.ones_like(batch["attention_mask"])
    cut = batch[key].shape[1] - 2
    changed = batch | {key: batch[key].clone()}
    changed[key][:, cut:] = 5
    with apply(model, spec):
        assert torch.equal(forward(model, batch)[:, :cut], forward(model, changed)[:, :cut])


class Reveal(Method):
    """Tries to see everything."""

    name = "reveal"

    def scores(self, scores, site):
        return scores.new_zeros(scores.shape)

    def probs(self, probs, site):
        return probs.new_full(probs.shape, 0.1)


class Hide(Method):
    """Leave the first query nothing."""

    name = "hide"

    def scores(self, scores, site):
        scores = scores.clone()
        if site.offset == 0:
            scores[:, :, 0] = -torch.inf
        return scores


class HideUniform(Hide):
    name = "hide:uniform"
    empty = "uniform"


def test_methods_may_hide_but_not_reveal():
    model = tiny("gpt2")
    batch = padded(model, "right", examples=2)
    seen = {}
    for method in (Reveal(), Hide(), HideUniform()):
        with (
            apply(model, method),
            watch(model, probs=lambda probs, site: seen.update({site.layer: (probs.clone(), site.visible)})),
        ):
            logits = forward(model, batch)
        probs, visible = seen[1]
        assert logits.isfinite().all() and (probs.masked_select(~visible) == 0).all()
        first = {"reveal": 0.1, "hide": 0.0, "hide:uniform": 1.0}[method.name]
        assert probs[0, 0, 0].tolist() == pytest.approx([first] + [0.0] * (probs.shape[-1] - 1))


def test_hidden_keys_give_finite_gradients():
    model = tiny("gpt2")
    with apply(model, HideUniform()), watch(model, probs=lambda probs, site: None):
        model(**padded(model, examples=2), labels=padded(model, examples=2)["input_ids"]).loss.backward()
    assert all(weight.grad.isfinite().all() for weight in model.parameters() if weight.grad is not None)
    model.zero_grad()


def test_tiles_hold_no_padding_and_all_heads():
    model = tiny("bert")
    batch = padded(model)
    shapes = []
    with watch(model, probs=lambda probs, site: shapes.append((tuple(probs.shape), site.visible))):
        forward(model, batch)
    lengths = batch["attention_mask"].sum(1).tolist()
    assert sorted(shape for (_, *shape), _ in shapes) == sorted([4, n, n] for n in lengths * 3)
    assert all(visible is None for _, visible in shapes)


@pytest.mark.numeric
@pytest.mark.parametrize("spec", ["prune80", "logquant3", "uniform"])
@pytest.mark.parametrize("name", ["bert", "gpt2", "t5"])
def test_small_tiles_change_nothing(name, spec, monkeypatch):
    from attnbench.engine.serving import tiles

    model = tiny(name)
    batch = clear_of_jumps(model, spec, lambda seed: padded(model, seed=seed))
    with apply(model, spec):
        expected = forward(model, batch)
        for size in (1, 1000, 10**9):
            monkeypatch.setitem(tiles.TILE_BYTES, "cpu", size)
            close(forward(model, batch), expected, layers=len(ZOO[name][2]))


class WholeRows(Method):
    name = "whole"
    rows = "all"
    seen = None

    def probs(self, probs, site):
        WholeRows.seen = probs.shape
        return probs


def test_a_method_over_all_rows_gets_all_rows(monkeypatch):
    from attnbench.engine.serving import tiles

    monkeypatch.setitem(tiles.TILE_BYTES, "cpu", 1)
    with apply(tiny("bert"), WholeRows()):
        forward(tiny("bert"), padded(tiny("bert"), examples=1, tokens=3))
    assert WholeRows.seen == (1, 4, 3, 3)


@pytest.mark.numeric
@pytest.mark.parametrize("spec", ["prune80", "threshold0.05", "logquant3", "uniform", "context"])
@pytest.mark.parametrize("name", ["bert", "llama", "t5"])
def test_gradients_are_those_of_the_plain_path(name, spec):
    model = tiny(name)
    jumping = "uniform" if spec == "context" else spec
    batch = clear_of_jumps(model, jumping, lambda seed: padded(model, seed=seed))
    with apply(model, Scaled() if spec == "context" else spec):
        without = forward(model, batch)
        found = model(**batch).logits
    close(found, without, layers=len(ZOO[name][2]))


@pytest.mark.numeric
@pytest.mark.parametrize("name", ["bert", "llama", "t5", "marian"])
def test_gradients_of_the_identity_are_eager(name):
    model = tiny(name)
    batch = padded(model)

    def gradients():
        model.zero_grad()
        rows(model(**batch).logits, batch).square().mean().backward()
        found = [weight.grad.clone() for weight in model.parameters() if weight.grad is not None]
        model.zero_grad()
        return found

    with implementation(model, "eager"):
        expected = gradients()
    for method in (Identity(), parse("threshold0")[0]):
        with apply(model, method):
            # forward and back; one bound for all, for a key's bias has no gradient but rounding
            flat = [torch.cat([each.flatten() for each in every]) for every in (gradients(), expected)]
            close(*flat, roundings=2 * LAYER * len(ZOO[name][2]))


def test_gates_get_gradients_from_a_frozen_model():
    gate = torch.ones(4, 1, 1, requires_grad=True)

    class Gate(Method):
        name = "gate"

        def probs(self, probs, site):
            return probs * gate

    model = tiny("bert")
    weights = [weight for weight in model.parameters()]
    for weight in weights:
        weight.requires_grad_(False)
    try:
        with apply(model, Gate()):
            model(**padded(model)).logits.sum().backward()
    finally:
        for weight in weights:
            weight.requires_grad_(True)
    assert gate.grad.abs().min() > 0


def test_nested_blocks_act_in_order():
    order = []

    def tracer(label, result=None):
        def probs(self, probs, site):
            order.append(label)
            return probs

        return type(label, (Method,), {"name": label, "probs": probs})()

    model = tiny("bert")
    batch = padded(model, examples=1)
    with (
        apply(model, tracer("a"), tracer("b")),
        watch(model, probs=lambda probs, site: order.append("watch")),
    ):
        with apply(model, tracer("c")) as inner:
            forward(model, batch)
        assert order[:4] == ["a", "b", "watch", "c"] and inner.hit == 3
        order.clear()
        forward(model, batch)
    assert order[:3] == ["a", "b", "watch"]
    with apply(model, "threshold0.2+uniform"):
        together = forward(model, batch)
    with apply(model, "threshold0.2"), apply(model, "uniform"):
        assert torch.equal(forward(model, batch), together)


@pytest.mark.numeric
def test_watching_every_stage_changes_nothing():
    model = tiny("t5")
    batch = padded(model)
    dense = forward(model, batch)
    seen = {stage: set() for stage in ("hidden", "scores", "probs", "context")}

    def watcher(stage):
        return lambda tensor, site: seen[stage].add((site.kind, tensor.dim()))

    with watch(model, **{stage: watcher(stage) for stage in seen}):
        close(forward(model, batch), dense, layers=len(ZOO["t5"][2]))
    assert seen["hidden"] == {("encoder", 3), ("decoder", 3)}
    assert (
        seen["scores"] == seen["probs"] == seen["context"] == {("encoder", 4), ("decoder", 4), ("cross", 4)}
    )


class Halve(Method):
    name = "halve"

    def hidden(self, hidden, site):
        return hidden * 0.5


@pytest.mark.numeric
@pytest.mark.parametrize("name, expected", [("bert", 3), ("albert", 3), ("gpt2", 2), ("bart", 5), ("t5", 5)])
def test_hidden_states_change_at_every_layer(name, expected):
    model = tiny(name)
    batch = padded(model)
    with apply(model, Halve()) as applied:
        changed = forward(model, batch)
    assert applied.hit == applied.expected == expected
    assert not torch.allclose(changed, forward(model, batch))


def test_selection_by_kind_and_layer():
    model = tiny("bart")
    batch = padded(model)
    for spec, expected in (
        ("prune50:on=cross", 2),
        ("prune50:layers=1-2", 4),
        ("prune50:on=encoder:layers=0", 1),
    ):
        with apply(model, spec) as applied:
            forward(model, batch)
        assert applied.hit == applied.expected == expected
    for spec, at in (
        ("prune50:on=cross", "on=cross"),
        ("prune50:layers=3", "layers=3"),
        ("logquant3+prune50:layers=9", "layers=9"),
    ):
        nothing = pytest.raises(
            NotApplicable, match=f"prune: no attention at {at}. It attends at encoder 0-2"
        )
        with nothing, apply(tiny("bert"), spec):
            pass


def test_shared_layers_are_counted_by_calls():
    model = tiny("albert")
    seen = []

    class Last(Method):
        name = "last"

        def probs(self, probs, site):
            seen.append(site.layer)
            if len(seen) == 2:
                raise RuntimeError("on purpose")
            return probs

    batch = padded(model, examples=1)
    with apply(model, Last()):
        with pytest.raises(RuntimeError, match="on purpose"):
            forward(model, batch)
        forward(model, batch)
    assert seen == [0, 1, 0, 1, 2]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_the_model_is_whole_again_after_an_error(error):
    model = tiny("bart")
    batch = padded(model)
    dense = forward(model, batch)
    configs = [model.config._attn_implementation, model.model.encoder.config._attn_implementation]

    class Fails(Method):
        name = "fails"

        def probs(self, probs, site):
            raise error("on purpose")

    with pytest.raises(error), apply(model, Halve(), Fails()):
        forward(model, batch)
    assert [model.config._attn_implementation, model.model.encoder.config._attn_implementation] == configs
    assert not any(module._forward_pre_hooks for module in model.modules())
    assert torch.equal(forward(model, batch), dense)


def test_nothing_keeps_a_model_alive():
    model = tiny_models.tiny.__wrapped__("bert")
    with apply(model, "prune80"):
        forward(model, padded(model))
    compare_with_eager(model)
    alive = weakref.ref(model)
    del model
    gc.collect()
    assert alive() is None


def test_masks_are_not_kept_nor_mistaken():
    from attnbench.engine.places import blocks

    model = tiny("bert")
    with apply(model, "prune50"):
        for examples in (2, 3):
            batch = padded(model, examples=examples)
            first = forward(model, batch)
            batch["attention_mask"][:, -4:] = 0
            assert not torch.equal(first, forward(model, batch))
    gc.collect()
    assert len(blocks._blocks) == 0


@pytest.mark.numeric
def test_two_models_do_not_meet():
    one, other = tiny("bert"), tiny("roberta")
    batch = padded(other)
    dense, plain = forward(other, batch), forward(one, batch)
    with apply(one, Zero()), apply(other, Identity()):
        close(forward(other, batch), dense, layers=3)
        assert not torch.allclose(forward(one, batch), plain)
    with apply(one, "prune50"), pytest.raises(UserError, match="part"), apply(one.bert, "prune50"):
        pass


def test_dropout_is_kept_while_training():
    model = tiny_models.tiny.__wrapped__("bert").train()
    batch = padded(model)
    torch.manual_seed(0)
    with apply(model, Identity()), torch.no_grad():
        assert not torch.equal(model(**batch).logits, model(**batch).logits)
    assert model.training and all(module.training for module in model.modules())


def test_unsupported_models_are_refused():
    from transformers import RwkvConfig, RwkvModel

    settings = {"hidden_size": 16, "num_hidden_layers": 2, "attention_hidden_size": 16}
    model = RwkvModel(RwkvConfig(vocab_size=30, **settings))
    before = model.config._attn_implementation
    with pytest.raises(UserError, match=r"RwkvModel.*not supported"), apply(model, "prune80"):
        pass
    assert model.config._attn_implementation == before
    with pytest.raises(UserError, match="PreTrainedModel"), apply(nn.Linear(2, 2), "prune80"):
        pass


def test_an_unfitted_method_is_refused():
    with pytest.raises(UserError, match="fit"), apply(tiny("bert"), "prune80:global"):
        pass


@pytest.mark.numeric
@pytest.mark.parametrize("percent", [0, 10, 50, 80, 97, 100])
@pytest.mark.parametrize("name", ["bert", "gpt2", "t5"])
def test_the_global_threshold_is_a_percentile_of_what_is_visible(name, percent):
    model = tiny(name)
    batches = [padded(model), padded(model, examples=3)]
    (method,) = parse(f"prune{percent}:global")
    method.fit(model, batches)
    values = []  # of every example alone: nothing is padding, the future lies above the diagonal
    for batch in batches:
        for example, mask in enumerate(batch["attention_mask"].bool()):
            alone = {key: value[example : example + 1] for key, value in batch.items()}
            alone |= {key: alone[key][:, mask] for key in ("input_ids", "attention_mask")}
            with watch(model, probs=lambda p, site: values.append((site.kind, p[0].double()))):
                forward(model, alone)
    seen = [p[..., torch.ones(p.shape[1:]).tril().bool()] if kind == "decoder" else p for kind, p in values]
    every = torch.cat([p.flatten() for p in seen]).sort().values
    wanted = every[max(0, -(-len(every) * percent // 100) - 1)].item()
    assert method.threshold_ == pytest.approx(wanted if percent else 0.0, rel=2 / 8192)
    assert ((every <= method.threshold_).sum() >= len(every) * percent / 100 - 3) or not percent
    zeroed = []
    shown = watch(model, probs=lambda p, site: zeroed.append(p[(p > 0) & (p <= method.threshold_)]))
    with apply(model, method), shown:
        forward(model, batches[0])
    assert zeroed and not torch.cat(zeroed).numel()


def test_transform_leaves_its_input_alone():
    probs = torch.softmax(torch.randn(2, 4, 6, 10), -1)
    before = probs.clone()
    for spec in ("prune80", "logquant3", "threshold0.1", "uniform", "prune80+logquant3"):
        for tensor in (probs, probs[0, 0], probs[0, 0, 0]):
            assert transform(spec, tensor).shape == tensor.shape
    assert torch.equal(probs, before)
    visible = torch.ones(6, 10, dtype=torch.bool).tril(3)
    kept = transform("prune50", probs * visible, visible) > 0
    assert (kept.sum(-1) == visible.sum(-1) - visible.sum(-1) // 2).all()
    with pytest.raises(UserError, match="fit"):
        transform("prune80:global", probs)
    with pytest.raises(UserError, match=r"'window2\+prune50' changes scores and probs: a tensor is of one"):
        transform("window2+prune50", probs)


def test_transform_attends_to_visible_keys_only():
    scores = torch.tensor([[5.0, 0.0, 0.0, 0.0], [1.0, 2.0, 3.0, 4.0]])
    visible = torch.tensor([[False, True, True, True], [False, False, False, False]])
    for spec in ("entmax", "uniform"):
        found = transform(spec, scores, visible)
        assert found[0].tolist() == pytest.approx([0, 1 / 3, 1 / 3, 1 / 3]), spec
        assert not found[1].any()
    hidden = transform("window2", scores, visible).isneginf()
    assert hidden[:, 0].all() and not hidden[0, 1] and hidden[1].all()


def test_attention_holds_one_tile():
    from torch.profiler import ProfilerActivity, profile

    model = tiny("bert")
    module, hidden = model.bert.encoder.layer[0].attention.self, torch.randn(8, 512, 32)

    def peak(context):
        with (
            context,
            torch.inference_mode(),
            profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled,
        ):
            module(hidden)
        level = highest = 0
        for event in profiled.profiler.kineto_results.events():
            if event.name() == "[memory]":
                level += event.nbytes()
                highest = max(highest, level)
        return highest

    assert peak(apply(model, "prune80+logquant3")) < peak(implementation(model, "eager")) / 5
