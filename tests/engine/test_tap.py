"""The softmax tap: architectures off the attention interface, for methods that only change probabilities."""

from __future__ import annotations

import pytest
import torch
import transformers
from closeness import EPS, LAYER, clear_of_jumps, close
from tapped_models import ENCODER, ZOO, padded, tiny

import attnbench
from attnbench import Method, apply, parse, watch
from attnbench.engine.applicable import require_sites
from attnbench.engine.places.sites import discover
from attnbench.engine.serving.soundness import compare_with_eager
from attnbench.errors import NotApplicable

METHODS = ("prune80", "prune80:random", "threshold0.05", "logquant3", "linquant3:mid", "quantile3")


def forward(model, batch):
    with torch.no_grad():
        return model(**batch).logits


def stage(name, function, kind="probs"):
    return type(name, (Method,), {"name": name, kind: lambda self, tensor, site: function(tensor)})()


@pytest.mark.numeric
@pytest.mark.parametrize("name", ZOO)
def test_identity_is_eager_and_zero_is_felt(name):
    model, batch = tiny(name), padded(name)
    real = batch["attention_mask"].bool() if ZOO[name][2] == "decoder" else slice(None)
    dense = forward(model, batch)[real]
    sites = discover(model)
    assert [(site.kind, site.layer, site.heads, site.head_dim) for site in sites] == [
        (ZOO[name][2], layer, 4, 8) for layer in range(2)
    ]
    with apply(model, stage("identity", lambda probs: probs)) as applied:
        found = forward(model, batch)[real]
    assert applied.hits == {site.path: 1 for site in sites} and applied.hit == applied.expected == 2
    close(found, dense, layers=2)
    with apply(model, stage("zero", torch.zeros_like)):
        assert not torch.allclose(forward(model, batch)[real], dense, atol=1e-3)
    assert torch.equal(forward(model, batch)[real], dense)
    assert compare_with_eager(model) < 2 * LAYER * EPS


def test_a_model_that_is_another_one_when_eager_is_found_out():
    model = tiny("falcon-alibi")
    model.config._attn_implementation = "sdpa"  # where transformers leaves the positions out
    try:
        assert compare_with_eager(model) > 1e-2
    finally:
        model.config._attn_implementation = "eager"


@pytest.mark.numeric
@pytest.mark.parametrize("spec", METHODS)
@pytest.mark.parametrize("name", ZOO)
def test_a_sample_alone_is_a_sample_in_a_batch(name, spec):
    model = tiny(name)
    batch = clear_of_jumps(model, spec, lambda seed: padded(name, seed=seed))
    with apply(model, spec):
        together = forward(model, batch)
        for example, mask in enumerate(batch["attention_mask"].bool()):
            alone = {key: value[example : example + 1, mask] for key, value in batch.items()}
            row = together[example, mask] if ZOO[name][2] == "decoder" else together[example]
            close(row, forward(model, alone)[0], layers=2)


@pytest.mark.parametrize("name", ZOO)
def test_what_a_method_sees(name):
    model, batch = tiny(name), padded(name)
    seen = []
    with apply(model, "prune50"), watch(model, probs=lambda probs, site: seen.append((probs.clone(), site))):
        forward(model, batch)
    lengths = batch["attention_mask"].sum(1).tolist()
    assert [probs.shape for probs, _ in seen] == [(1, 4, n, n) for n in lengths * 2]
    for probs, site in seen:
        assert probs.isfinite().all() and site.offset == 0
        if site.visible is not None:
            assert not (probs * ~site.visible).any()
        shown = torch.ones(probs.shape[2:]) if site.visible is None else site.visible[0, 0]
        n = shown.sum(-1)
        assert torch.equal((probs > 0).sum(-1)[0, 0], (n - torch.minimum(n // 2, n - 1)).long())


@pytest.mark.parametrize("name", [name for name in ZOO if ZOO[name][2] == "decoder"])
def test_generation_with_cache_is_generation_without(name):
    model, batch = tiny(name), padded(name, examples=3)
    batch.pop("position_ids", None)
    settings = {"max_new_tokens": 5, "min_new_tokens": 5, "do_sample": False}
    dense = model.generate(**batch, **settings)
    with apply(model, stage("identity", lambda probs: probs)):
        assert torch.equal(model.generate(**batch, **settings), dense)
    for spec in ("prune50", "logquant3"):
        with apply(model, spec):
            cached = model.generate(**batch, **settings)
            assert torch.equal(model.generate(**batch, use_cache=False, **settings), cached)


@pytest.mark.numeric
def test_gradients_pass_through_a_tap():
    model = tiny("mpnet")
    batch = clear_of_jumps(model, "prune50", lambda seed: padded("mpnet", seed=seed))
    with apply(model, "prune50"):
        expected = forward(model, batch)
        found = model(**batch).logits
        found.sum().backward()
    close(found, expected, layers=2)
    gradients = [weight.grad for name, weight in model.named_parameters() if ".q." in name]
    assert gradients and all(gradient.abs().max() > 0 for gradient in gradients)
    model.zero_grad()


@pytest.mark.numeric
def test_fits_learn_through_a_tap():
    model, batch = tiny("deberta"), padded("deberta")
    (method,) = parse("prune80:global")
    method.fit(model, [batch])
    dense = forward(model, batch)
    with apply(model, method) as applied:
        assert not torch.allclose(forward(model, batch), dense)
    assert applied.hit == 2 and 0 < method.threshold_ < 1


@pytest.mark.parametrize("spec", ["uniform", "window3", "heads50:random", "hidden-quant8", "entmax"])
def test_more_than_probabilities_is_refused_by_name(spec):
    model = tiny("bloom")
    with pytest.raises(NotApplicable, match=f"{spec[:5]}.*changes .*BloomForCausalLM.*probs only"):
        require_sites(model, parse(spec))
    watching = watch(model, scores=lambda scores, site: None)
    with pytest.raises(NotApplicable, match="changes scores"), watching:
        pass


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_the_model_is_whole_again_after_an_error(error):
    model, batch = tiny("gpt-neo"), padded("gpt-neo")
    dense, before = forward(model, batch), model.config._attn_implementation

    def fails(probs):
        raise error("on purpose")

    with pytest.raises(error), apply(model, "prune50"), apply(model, stage("fails", fails)):
        forward(model, batch)
    assert model.config._attn_implementation == before
    assert not any(m._forward_pre_hooks or m._forward_hooks for m in model.modules())
    assert torch.equal(forward(model, batch), dense)


def test_a_run_refuses_only_the_cells_beyond_a_tap(tiny_folder, tmp_path):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_folder)
    source = transformers.AutoConfig.from_pretrained(tiny_folder)
    config = transformers.DebertaV2Config(
        **ENCODER, vocab_size=source.vocab_size, pad_token_id=tokenizer.pad_token_id,
        id2label=source.id2label, label2id=source.label2id,
    )  # fmt: skip
    folder = tmp_path / "deberta"
    transformers.DebertaV2ForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    result = attnbench.run(
        str(folder), ["prune80", "logquant3", "heads50:entropy"], "pocket-sentiment", limit=12,
        records=str(tmp_path / "r"),
    )  # fmt: skip
    found = {item.cell["method"]: item for item in result.records}
    assert {name: item.status for name, item in found.items()} == {
        "dense": "measured",
        "uniform": "not applicable",
        "prune80": "measured",
        "logquant3": "measured",
        "heads50:entropy": "not applicable",
    }
    assert found["prune80"].receipt["sites_hit"] == 2
    assert found["prune80"].measured["sparsity"] > 0.6 and found["prune80"].measured["divergence"] > 0
    assert "prune80" in result.table()
