"""Roles against plain numpy: words and arcs, cross attention, batches, half precision, what is missing."""

from __future__ import annotations

import random
from collections import Counter

import numpy as np
import pytest
import tapped_models
import torch
from closeness import close
from role_texts import BERT, encoder_reading, looked, numbered, reading, roles_of, treebank
from tiny_models import padded, tiny

import attnbench
from attnbench import UserError
from attnbench.methods import spec
from attnbench_plugins.studies.patterns import conllu, needles
from attnbench_plugins.studies.patterns.words import aligned
from attnbench_plugins.studies.roles import Roles


def test_relations_are_what_plain_attention_says(tmp_path):
    """Split words, two words in a token, against numpy on eager attention of one text alone."""
    model = tiny("bert")
    tokenizer = numbered(96, **BERT)
    draw, blocks = random.Random(1), []
    for _ in range(500):
        lines = []
        for k in range(1, 9):  # words of one token or of three, without a space, or two in one token
            word = f"w{draw.randrange(3, 90)}"
            word += f"+w{draw.randrange(3, 90)}" * (draw.random() < 0.3)
            head = draw.choice([h for h in range(9) if h != k])
            relation = draw.choice(["nsubj", "obj", "amod", "advmod", "case"])
            lines.append(f"{k}\t{word}\t_\t_\t_\t_\t{head}\t{relation}\t_\t_")
        lines.insert(2, "3-4\tw7\t_\t_\t_\t_\t_\t_\t_\t_")
        lines[3], lines[4] = (
            line.replace(line.split("\t")[1], part, 1)
            for line, part in zip(lines[3:5], ("w", "7"), strict=True)
        )
        blocks.append("\n".join(lines))
    path = tmp_path / "bank"
    path.write_text("\n\n".join(blocks), encoding="utf-8")
    data = reading(model, tokenizer, ["w5 w6"])
    found = looked(model, data, Roles(treebank=(str(path),)))["dense"].tables()
    table, half = found["relations"], 250
    hits, arcs = np.zeros((2, 3, 4)), [Counter(), Counter()]
    offsets, where = Counter(), ("amod", "dependent-head")
    model.set_attn_implementation("eager")
    for number, each in enumerate(conllu.read(path)):
        encoded = tokenizer(each.text, return_offsets_mapping=True)
        with torch.no_grad():
            output = model(torch.tensor([encoded["input_ids"]]), output_attentions=True)
        tokens = aligned(each.text, [word.span for word in each.words], encoded["offset_mapping"])
        assert tokens[2] == tokens[3] == () and all(tokens[:2])
        for k, word in enumerate(each.words):
            if word.relation != "amod" or not word.head or not tokens[k] or not tokens[word.head - 1]:
                continue
            part = int(number >= half)
            arcs[part][where] += 1
            offsets[word.head - 1 - k] += part == 0
            for layer, weights in enumerate(output.attentions):
                rows = weights[0].double().numpy()[:, list(tokens[k])].mean(1)  # (heads, keys)
                summed = np.stack([rows[:, list(mine)].sum(1) for mine in tokens], 1)
                hits[part, layer] += summed.argmax(1) == word.head - 1
    model.set_attn_implementation("sdpa")
    own = table.xs(where, level=("relation", "direction"))
    assert own["arcs"].unique() == arcs[1][where] >= 100
    shares = [hits[part] / arcs[part][where] for part in (0, 1)]
    np.testing.assert_allclose(own["chosen"].to_numpy().reshape(3, 4), shares[0], atol=1e-12)
    np.testing.assert_allclose(own["share"].to_numpy().reshape(3, 4), shares[1], atol=1e-12)
    assert offsets[own["offset"].iloc[0]] == max(offsets.values())
    assert found["left_out"].loc["relations", "words without a token of their own"]["number"] == 500 * 2


@pytest.mark.parametrize("name", ["bert", "gpt2", "t5", "marian"])
def test_batches_and_padding_do_not_count(name):
    model = tiny(name)
    data = reading(model, numbered(96, "$A", pad=0, bos=1, eos=2))
    whole = padded(model)
    together = data.taken(whole)
    alone = []
    for k in range(8):
        shown = whole["attention_mask"][k].bool()
        alone.append(
            data.taken(
                {
                    key: value[k : k + 1] if key.startswith("decoder") else value[k : k + 1, shown]
                    for key, value in whole.items()
                }
            )
        )
    one = looked(model, data, batches=[together])["dense"].tables()
    many = looked(model, data, batches=alone)["dense"].tables()
    assert set(one) == set(many)
    for table in one:
        np.testing.assert_allclose(one[table].to_numpy(), many[table].to_numpy(), atol=1e-5, err_msg=table)


@pytest.mark.parametrize("name", ["t5", "marian"])
def test_cross_attention_has_no_offsets(name):
    """The decoder asks, the source is looked at: against numpy on eager attention."""
    model = tiny(name)
    data = reading(model, numbered(96, "$A", pad=0, bos=1, eos=2))
    batch = {key: value[-1:] for key, value in padded(model).items()}
    table = looked(model, data, batches=[data.taken(batch)])["dense"].tables()["heads"].xs("cross")
    model.set_attn_implementation("eager")
    with torch.no_grad():
        output = model(**batch, output_attentions=True)
    model.set_attn_implementation("sdpa")
    asks = batch["decoder_input_ids"][0] > 2
    for layer, weights in enumerate(output.cross_attentions):
        rows = weights[0].double().numpy()
        own = table.xs(layer)
        close(own["confidence_all"], rows.max(-1).mean(1), layers=layer + 4)
        close(own["first_weight"], rows[:, asks, 0].mean(1), layers=layer + 4)
        close(own["first"], (rows[:, asks].argmax(-1) == 0).mean(1), layers=layer + 4)
        assert own[["offset", "positional", "self", "self_weight"]].isna().all().all()


@pytest.mark.parametrize("name", tapped_models.ZOO)
def test_architectures_with_a_tapped_softmax_have_roles(name):
    model = tapped_models.tiny(name)
    data = reading(model, numbered(96, "$A", pad=0, bos=1, eos=2))
    table = looked(model, data, batches=[data.taken(tapped_models.padded(name))])["dense"].tables()
    assert table["heads"][["confidence", "first_weight", "positional"]].notna().all().all()


POCKET = dict.fromkeys(("bert", "roberta", "electra"), "SequenceClassification")
POCKET |= {"gpt": "CausalLM", "llama": "CausalLM", "marian": "Seq2SeqLM"}


@pytest.mark.parametrize("name", POCKET)
def test_every_pocket_family_has_roles(name, tmp_path):
    import transformers

    folder = attnbench.checkpoint(name)
    model = getattr(transformers, f"AutoModelFor{POCKET[name]}").from_pretrained(folder).eval()
    words = ["the", "old", "baker", "admires", "the", "quiet", "singer", "near", "the", "lamp"]
    relations = {2: "amod", 3: "nsubj", 6: "amod", 7: "obj"}  # word -> relation
    heads = {2: 3, 3: 4, 6: 7, 7: 4}
    lines = [
        f"{k}\t{word}\t_\t_\t_\t_\t{heads.get(k, 0)}\t{relations.get(k, 'dep')}\t_\t_"
        for k, word in enumerate(words, 1)
    ]
    bank, causal = tmp_path / "bank", name in ("gpt", "llama")
    bank.write_text("\n\n".join(["\n".join(lines)] * 200) + "\n", encoding="utf-8")
    banks = () if name == "marian" else (str(bank),)  # it writes a translation of every sentence
    data = reading(model, transformers.AutoTokenizer.from_pretrained(folder), [" ".join(words)])
    table = looked(model, data, Roles(treebank=banks))["dense"].tables()
    assert table["heads"]["confidence"].between(0, 1).all()
    if banks:  # a language model sees no head that is still to come
        known = {(relation, direction) for *_, relation, direction in table["relations"].index}
        assert (("nsubj", "dependent-head") in known) != causal and ("nsubj", "head-dependent") in known
    assert ("induction" in table["heads"]) == causal
    kinds = {"marian": {"encoder", "decoder", "cross"}}.get(name, {"decoder" if causal else "encoder"})
    assert set(table["heads"].index.get_level_values("kind")) == kinds


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_summed_in_double(dtype):
    data = encoder_reading(12)
    whole = looked(data.model, data)["dense"].tables()["heads"]
    data.model.to(dtype)
    half = looked(data.model, data)["dense"].tables()["heads"]
    columns = ["confidence_all", "positional", "offset", "first_weight", "separator_weight", "self_weight"]
    planted_rows = whole[columns].to_numpy() >= 0.99
    assert (half[columns].to_numpy()[planted_rows] == whole[columns].to_numpy()[planted_rows]).all()
    assert planted_rows.sum() >= 12


def test_a_method_has_tables_of_its_own():
    data = encoder_reading(12)
    found = looked(data.model, data, methods={"uniform": spec.parse("uniform")})
    dense, uniform = (found[name].tables()["heads"] for name in ("dense", "uniform"))
    assert dense["first"].max() == 1 and (uniform[["first", "positional", "self"]] == 0).all().all()
    assert uniform["confidence_all"].nunique() == 1
    assert roles_of(found["uniform"].tables()) == {}


def test_a_batch_without_a_tokenizer_has_what_texts_alone_tell():
    model = tiny("gpt2")
    data = reading(model, numbered(96, "$A", pad=0, bos=1, eos=2))
    batch = data.taken(padded(model))
    data.tokenizer = None
    table = looked(model, data, batches=[batch])["dense"].tables()
    assert "confidence" in table["heads"] and "induction" not in table["heads"]
    assert table["left_out"]["number"]["texts of its own", "there is no tokenizer"] == 1


def test_what_is_missing_is_said(tmp_path):
    data = encoder_reading(3)
    bad = tmp_path / "bad.conllu"
    bad.write_text("1\tI\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"bad.conllu:1: the line has 2 columns"):
        looked(data.model, data, Roles(treebank=(str(bad),)))
    with pytest.raises(UserError, match=r"counts=.*none: .*Give a file of texts, one a line"):
        looked(data.model, data, Roles(counts=str(tmp_path / "none")))
    for text in ("roles:treebank=a:treebank=b:treebank=c", "roles:sentences=-1"):
        with pytest.raises(UserError):
            spec.parse_study(text)
    good = treebank(tmp_path / "good", 8, 1)
    table = looked(data.model, data, Roles(treebank=(good,), sentences=4))["dense"].tables()
    assert "relations" not in table  # fewer than 100 arcs
    long = tmp_path / "long"
    long.write_text("\n".join(f"{k}\tw9\t_\t_\t_\t_\t0\troot\t_\t_" for k in range(1, 60)), encoding="utf-8")
    left = looked(data.model, data, Roles(treebank=(str(long), good)))["dense"].tables()["left_out"]["number"]
    assert left["relations", "sentences longer than the model reads"] == 1
    assert left["rare", "no text's rarest token is beyond the 500 most frequent: give counts=FILE"] == 1


def test_a_needle_is_where_it_is_said_to_be():
    texts = [needles.haystack(number, 5, 12, seed=0) for number in range(5)]
    for text, needle, answer in texts:
        assert text[slice(*needle)].startswith("Hidden in ") and text[slice(*answer)] in text[slice(*needle)]
        assert answer[1] == len(text)
    depths = [needle[0] / len(text) for text, needle, _ in texts]
    assert depths == sorted(depths) and depths[0] == 0 and depths[-1] > 0.7
    assert texts == [needles.haystack(number, 5, 12, seed=0) for number in range(5)]
    assert texts[0] != needles.haystack(0, 5, 12, seed=1)
