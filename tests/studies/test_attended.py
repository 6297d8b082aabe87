"""Attention as tensors against transformers' own, and a look at a batch from Python."""

from __future__ import annotations

import html
import re

import numpy as np
import pytest
import tapped_models
import torch
from closeness import close, sharpness
from studied import Words
from tiny_models import PAIRS, padded, tiny

import attnbench
from attnbench import UserError, apply, attention, look

CASES = [
    *((name, "right") for name in ("bert", "modernbert", "gpt2", "mistral", "t5", "marian")),
    ("llama", "left"),
]
KINDS = {"encoder": "input", "decoder": "decoder", "cross": "decoder"}


def real(batch, kind, side):
    """Tell which tokens are no padding: (batch, tokens)."""
    if kind == "encoder" or (kind == "cross" and side == "keys") or "decoder_input_ids" not in batch:
        return batch["attention_mask"].bool()
    return torch.ones_like(batch["decoder_input_ids"]).bool()


@pytest.mark.numeric
@pytest.mark.parametrize("name, side", CASES)
def test_a_padded_batch_has_what_eager_attention_has(name, side):
    model, batch = tiny(name), padded(tiny(name), side, examples=4)
    found = attention(model, batch)
    model.set_attn_implementation("eager")
    try:
        with torch.no_grad():
            output = model(**batch, output_attentions=True)
    finally:
        model.set_attn_implementation("sdpa")
    names = {kind: f"{kind}_attentions" for kind in KINDS} if name in PAIRS else {"": "attentions"}
    assert [*found] == [f"{kind}_attention" for kind in sorted(names)] if name in PAIRS else ["attention"]
    for kind, where in names.items():
        ours, theirs = found[f"{kind}_attention".strip("_")], getattr(output, where)
        assert len(ours) == len(theirs)
        shown = [real(batch, kind or "encoder", side) for side in ("queries", "keys")]
        seen = shown[0][:, None, :, None] & shown[1][:, None, None, :]
        for one, other in zip(ours, theirs, strict=True):
            close(one, other * seen, layers=3, gain=sharpness(model, batch), says=f"{name} {kind}")


def test_a_method_around_it_is_in_it():
    model, batch = tiny("bert"), padded(tiny("bert"), examples=1)
    dense = attention(model, batch)["attention"][0]
    with apply(model, "prune80"):
        pruned = attention(model, batch)["attention"][0]
    close(pruned, torch.where(pruned > 0, dense, 0), roundings=4)
    tokens = int(batch["attention_mask"].sum())
    kept = (pruned[0, :, :tokens] > 0).sum(-1)
    assert (kept < tokens).all() and (kept > 0).all()


def test_a_tapped_model_has_it_too():
    name = next(iter(tapped_models.ZOO))
    model = tapped_models.tiny(name)
    ids = torch.arange(3, 12)[None]
    for layer in attention(model, {"input_ids": ids})["attention"]:
        np.testing.assert_allclose(layer.sum(-1).numpy(), 1, rtol=1e-5)


@pytest.fixture(scope="module")
def looked():
    model = tiny("bert")
    return look(model, padded(model, examples=3), "prune80", "sparsity,divergence", tokenizer=Words())


def test_a_look_has_tables_with_methods_and_differences(looked):
    heads = looked.tables["sparsity"]["heads"]
    assert [*heads.index.get_level_values("method").unique()] == ["dense", "prune80"]
    assert len(heads) == 2 * 12 and (heads.loc["prune80"]["zeros_difference"] > 0).all()
    assert looked.left_out == {}


def test_a_notebook_shows_the_page_in_a_frame_of_its_own(looked, tmp_path):
    shown = looked._repr_html_()
    (page,) = re.findall(r'srcdoc="([^"]*)"', shown)
    assert html.unescape(page) == looked.html and 'sandbox="allow-scripts"' in shown
    looked.save(tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert text == looked.html and "BertForSequenceClassification" in text and '"w' in text
    assert text.count('id="maps-') == 2 * 3


def test_the_framed_page_draws(looked, browser):
    browser.open(f"<!doctype html><body>{looked._repr_html_()}</body>")
    browser.driver.switch_to.frame(browser.one("iframe"))
    try:
        browser.until("document.body.dataset.ready")
        assert browser.one("#title").text.startswith("encoder layer ")
        assert len(browser.all("[role=gridcell]")) == 12
    finally:
        browser.driver.switch_to.default_content()
    assert browser.complaints() == []


def test_without_a_tokenizer_tokens_are_ids():
    model, batch = tiny("gpt2"), {"input_ids": torch.tensor([[5, 6, 7, 5]])}
    found = look(model, batch, studies="sparsity")
    assert '"names":["5","6","7","5"]' in found.html


@pytest.mark.parametrize("methods, studies, told", [
    ("mask80", (), "fit"), ("prun80", (), "prune"), ((), "sparcity", "sparsity")
])  # fmt: skip
def test_what_cannot_be_looked_at_is_said(methods, studies, told):
    with pytest.raises(UserError, match=told):
        look(tiny("bert"), padded(tiny("bert"), examples=1), methods, studies)


def test_methods_may_be_objects():
    (method,) = attnbench.parse("prune80")
    found = look(tiny("bert"), padded(tiny("bert"), examples=1), [method], "sparsity")
    assert found.look.methods == ("dense", "prune80")


@pytest.mark.numeric
@pytest.mark.parametrize("name, side", CASES)
def test_a_model_that_is_asked_returns_the_probabilities_that_were_used(name, side):
    """Of the first layer by hand: eager attention of each example alone, its smallest share dropped."""
    model, batch = tiny(name), padded(tiny(name), side, examples=4)
    before = model.config._attn_implementation
    with torch.no_grad(), apply(model, "prune60"):
        output = model(**batch, output_attentions=True)
        seen = attention(model, batch)
        assert not getattr(model(**batch), "attentions", None)  # unasked for nothing is kept
    names = {kind: f"{kind}_attentions" for kind in KINDS} if name in PAIRS else {"": "attentions"}
    for kind, where in names.items():
        ours = seen[f"{kind}_attention".strip("_")]
        for one, other in zip(ours, getattr(output, where), strict=True):
            close(one, other, layers=3, gain=sharpness(model, batch), says=f"{name} {kind}")
    model.set_attn_implementation("eager")
    try:
        with torch.no_grad():
            dense = model(**batch, output_attentions=True)
    finally:
        model.set_attn_implementation(before)
    first, kind = next(iter(names.values())), next(iter(names))
    queries, keys = (real(batch, kind or "encoder", each).numpy() for each in ("queries", "keys"))
    whole, used = (getattr(each, first)[0].double().numpy() for each in (dense, output))
    for k in range(len(whole)):
        for row in np.flatnonzero(queries[k]):
            for head in range(whole.shape[1]):
                dense_row = np.where(keys[k], whole[k, head, row], 0)
                n = (dense_row > 0).sum()
                kept = np.sort(dense_row)[-max(1, n - int(n * 0.6)) :]
                used_row = np.sort(used[k, head, row])
                np.testing.assert_allclose(used_row[-len(kept) :], kept, atol=2e-5)
                assert not used_row[: -len(kept)].any()


@pytest.mark.parametrize("name", tapped_models.ZOO)
def test_a_tapped_model_returns_the_probabilities_that_were_used(name):
    model, batch = tapped_models.tiny(name), tapped_models.padded(name)
    with torch.no_grad(), apply(model, "prune60"):
        found = model(**batch, output_attentions=True).attentions
        used = attention(model, batch)["attention"]
    for one, other in zip(used, found, strict=True):
        np.testing.assert_allclose(other[one > 0].numpy(), one[one > 0].numpy(), atol=1e-5)
        assert (other == 0).double().mean() > 0.5


def test_where_caches_are_cut_no_attentions_are_shown():
    model = tiny("llama")
    ids = torch.arange(3, 23)[None]
    with (
        torch.no_grad(),
        apply(model, "evict50:knorm"),
        pytest.raises(UserError, match="output_attentions has no probabilities while a method cuts caches"),
    ):
        model.generate(
            ids, max_new_tokens=2, do_sample=False, output_attentions=True, return_dict_in_generate=True
        )
