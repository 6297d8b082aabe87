"""The studies of relevance: what their tables hold, rollout and its like against numpy, any batch alike."""

from __future__ import annotations

import copy

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import spearmanr
from studied import Words
from tiny_models import DECODERS, padded, tiny

from attnbench import parse, relevance
from attnbench.engine.learning.gates import head_sensitivity
from attnbench.engine.relevance.explained import top_logit
from attnbench.methods.spec import parse_study
from attnbench.statistics import rank_agreement
from attnbench.studies import reading as reading_module
from attnbench.studies.passes import conduct
from attnbench.studies.reading import Reading
from attnbench_plugins.studies import contributions as contributions_module

TEXTS = ([5, 9, 3, 17, 20], [7, 8, 11], [30, 31, 32, 33, 34, 35, 36], [4, 6, 5], [90, 80, 70, 60])


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(reading_module, "WRITTEN", 5)
    monkeypatch.setattr(contributions_module, "WRITTEN", 5)
    monkeypatch.setattr(rank_agreement, "RESAMPLES", 100)


def studied(name, spec, texts=TEXTS, methods=None, targets=None):
    model = copy.deepcopy(tiny(name)).double()
    reading = Reading(model, Words())
    reading.given = [reading.tokens(ids) for ids in texts]
    if targets:
        taken = [
            reading.taken({"input_ids": torch.tensor([ids]), "labels": torch.tensor([target])}, number)
            for number, (ids, target) in enumerate(zip(texts, targets, strict=True))
        ]
        reading.given = [batch.samples[0] for batch in taken]
    (seen,) = conduct(model, [parse_study(spec)], reading, methods)
    return model, seen


@pytest.mark.parametrize("name", ["bert", "llama", "marian"])
def test_heads_and_texts_are_means_of_each_text_alone(name):
    model, seen = studied(name, "relevance0")
    assert not seen.failed and not seen.absent
    tables = seen.tables()["dense"]
    assert list(tables) == ["heads", "texts", "agreement"]
    alone = []
    for number, ids in enumerate(TEXTS):
        batch = {"input_ids": torch.tensor([ids])}
        if name == "marian":
            batch["decoder_input_ids"] = torch.from_numpy(Reading(model, Words()).tokens(ids).target.ids)[
                None
            ]
        alone.append({rule: relevance(model, batch, rule) for rule in ("cp", "attn", "gradient")})
        row = tables["texts"].loc[number]
        np.testing.assert_allclose(row["logit"], alone[-1]["cp"].explained[0], atol=1e-5)
        arrived = sum(float(part.sum()) for part in alone[-1]["cp"].tokens.values())
        np.testing.assert_allclose(row["cp_kept"], arrived, atol=1e-5)
    heads = tables["heads"]
    for (kind, layer), _ in heads.groupby(level=["kind", "layer"]):
        mine = heads.loc[kind, layer]
        for rule in ("cp", "attn", "gradient"):
            each = np.stack([found[rule].heads[kind, layer][0] for found in alone])
            np.testing.assert_allclose(mine[rule], each.mean(0), atol=1e-5)
            if rule != "gradient":
                share = np.abs(each) / np.abs(each).sum(1, keepdims=True)
                np.testing.assert_allclose(mine[f"{rule}_share"], share.mean(0), atol=1e-5)
        sizes = np.mean([found["gradient"].sizes[kind, layer][0].numpy() for found in alone], 0)
        np.testing.assert_allclose(mine["sensitivity"], sizes / np.linalg.norm(sizes), atol=1e-5)
    row = tables["agreement"].loc["cp_share", "sensitivity"]
    assert row["spearman"] == pytest.approx(spearmanr(heads["cp_share"], heads["sensitivity"]).statistic)
    assert row["spearman_low"] <= row["spearman_high"] and row["texts"] == len(TEXTS)


def test_the_sensitivity_is_that_of_heads_gradient_where_the_loss_is_the_logit():
    model = copy.deepcopy(tiny("bert")).double()
    batch = padded(model)

    class Logit(torch.nn.Module):
        """A model whose loss is its mean top logit."""

    forward = model.forward

    def with_loss(**inputs):
        output = forward(**inputs)
        output.loss = top_logit(output, inputs, False).mean()
        return output

    model.forward = with_loss
    expected = head_sensitivity(model, [batch], lambda site: True)
    del model.forward
    found = relevance(model, batch, "gradient")
    for key, sizes in found.sizes.items():
        np.testing.assert_allclose(sizes.sum(0), expected[key], rtol=1e-4, atol=1e-6)


def attention(model, ids, zero=None):
    """Run plain transformers: attentions of each layer, hidden states, the model's output."""
    model.set_attn_implementation("eager")
    try:
        return model(input_ids=torch.tensor([ids]), output_attentions=True, output_hidden_states=True)
    finally:
        model.set_attn_implementation("sdpa")


@pytest.mark.parametrize("name", ["bert", "llama"])
def test_tokens_by_rollout_gradients_and_zeroed_values_are_those_of_the_papers(name):
    model, seen = studied(name, "relevance2")
    assert not seen.failed and not seen.absent
    table = seen.tables()["dense"]["tokens"]
    assert set(table.index.get_level_values("text")) == {0, 1}
    ids = TEXTS[0]
    mine = table.loc[0].droplevel(["side", "token"]).sort_index()
    output = attention(model, ids)
    causal = name in DECODERS
    logit = top_logit(output, {"input_ids": torch.tensor([ids])}, causal)
    slopes = torch.autograd.grad(logit, output.attentions)
    probs = [each[0].detach().numpy() for each in output.attentions]
    read = np.full(len(ids), 1 / len(ids)) if causal else np.eye(len(ids))[0]

    flow = chain = np.eye(len(ids))
    for layer, slope in zip(probs, slopes, strict=True):
        mixed = layer.mean(0) / 2 + np.eye(len(ids)) / 2  # Abnar and Zuidema, section 3
        flow = mixed @ flow
        chain = chain + np.maximum(layer * slope[0].numpy(), 0).mean(0) @ chain  # Chefer et al., eq. 5 and 6
    np.testing.assert_allclose(mine["rollout"], read @ flow, atol=1e-5)
    np.testing.assert_allclose(mine["gradient_attention"], read @ chain, atol=1e-5)
    np.testing.assert_allclose(mine[["rollout", "value_zeroing"]].sum(), 1)


def test_a_zeroed_value_is_a_row_of_zeros_in_the_value_projection():
    model, seen = studied("bert", "relevance1")
    mine = seen.tables()["dense"]["tokens"].loc[0].droplevel(["side", "token"]).sort_index()
    ids = TEXTS[0]
    plain = [state[0].detach() for state in attention(model, ids).hidden_states]
    flow = np.eye(len(ids))
    for place, layer in enumerate(model.bert.encoder.layer):
        moved = np.zeros((len(ids), len(ids)))
        for token in range(len(ids)):

            def silence(_, args, output, token=token):
                output = output.clone()
                output[:, token] = 0
                return output

            handle = layer.attention.self.value.register_forward_hook(silence)
            state = attention(model, ids).hidden_states[place + 1][0].detach()
            handle.remove()
            a, b = state.numpy(), plain[place + 1].numpy()
            moved[:, token] = 1 - (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
        flow = moved / moved.sum(1, keepdims=True) @ flow
    np.testing.assert_allclose(mine["value_zeroing"], flow[0], atol=1e-4)


def test_a_method_gives_another_table_of_the_same_rows_and_an_order_of_texts_none():
    _, seen = studied("bert", "relevance2", methods={"prune80": parse("prune80")})
    assert not seen.failed and not seen.absent
    dense, pruned = (seen.tables()[method] for method in ("dense", "prune80"))
    for name, table in dense.items():
        assert table.index.equals(pruned[name].index) and table.notna().all(axis=None)
    assert not np.allclose(dense["heads"]["cp"], pruned["heads"]["cp"])
    _, turned = studied("bert", "relevance2", texts=TEXTS[::-1])
    np.testing.assert_allclose(turned.tables()["dense"]["heads"], dense["heads"], atol=1e-5)


def test_an_encoder_decoder_has_tokens_of_both_sides_and_no_rollout():
    _, seen = studied("marian", "relevance1")
    table = seen.tables()["dense"]["tokens"]
    assert set(table.index.get_level_values("side")) == {"source", "target"}
    assert list(table) == ["cp", "attn", "gradient"]


def test_contributions_of_what_the_model_writes_and_of_the_reference():
    targets = [[7, 11, 2], [8, 2, 2], [9, 10, 2]]
    _, seen = studied("marian", "contributions", TEXTS[:3], {"prune80": parse("prune80")}, targets)
    assert not seen.failed and not seen.absent
    tables = seen.tables()["dense"]
    positions = tables["positions"]
    np.testing.assert_allclose(positions["source_share"] + positions["prefix_share"], 1)
    reference = positions.xs("reference", level="prefix")
    assert reference.loc[0].index.get_level_values("token").tolist() == ["w0", "w7", "w11"]
    sources = tables["sources"].groupby(level=["text", "prefix"])["influence"]
    np.testing.assert_allclose(sources.mean(), 1)
    assert sources.size().tolist() == [5, 5, 3, 3, 7, 7]
    pruned = seen.tables()["prune80"]["positions"]
    assert pruned.index.equals(positions.index) and not np.allclose(pruned, positions)
    _, seen = studied("marian", "contributions", TEXTS[:3])  # without targets there are no references
    own = seen.tables()["dense"]["positions"]
    assert set(own.index.get_level_values("prefix")) == {"own"}
    np.testing.assert_allclose(own, positions.xs("own", level="prefix", drop_level=False), atol=1e-6)
    means = tables["means"].loc["reference"]
    expected = pd.concat([reference.loc[text].reset_index(drop=True) for text in range(3)])
    np.testing.assert_allclose(means["source_share"], expected.groupby(level=0)["source_share"].mean())
    assert means["texts"].tolist() == [3, 3, 3]
    assert (positions["start_share"] <= positions["prefix_share"] + 1e-12).all()


@pytest.mark.parametrize("name", ["bert", "gpt2"])
def test_contributions_of_a_model_without_a_source_are_not_applicable(name):
    _, seen = studied(name, "contributions", texts=TEXTS[:1])
    assert "is no encoder-decoder" in seen.absent and "\n" not in seen.absent


def test_a_model_that_no_rule_covers_has_no_relevance_and_says_why():
    model = copy.deepcopy(tiny("bert"))
    model.bert.encoder.layer[0].intermediate.intermediate_act_fn = torch.nn.Sigmoid()
    reading = Reading(model, Words())
    reading.given = [reading.tokens([5, 6, 7])]
    (seen,) = conduct(model, [parse_study("relevance")], reading)
    assert "no rule of relevance covers sigmoid" in seen.absent
    assert "encoder.layer.0.intermediate.intermediate_act_fn" in seen.absent
