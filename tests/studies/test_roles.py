"""Roles: planted heads are found, each by its own role and no other; words and arcs against plain numpy."""

from __future__ import annotations

import random
from collections import Counter

import numpy as np
import planted_heads as planted
import pytest
import tapped_models
import torch
from closeness import close
from tiny_models import padded, tiny
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from attnbench import UserError
from attnbench.methods import spec
from attnbench.studies.passes import conduct
from attnbench.studies.reading import Reading
from attnbench_plugins.studies.patterns import brought, conllu, needles
from attnbench_plugins.studies.patterns.words import aligned
from attnbench_plugins.studies.roles import Roles


def numbered(count, template, **special):
    """Make a tokenizer of the words w0, w1, ...; "w3+w4" is split at the plus. Special ones are <0>, <1>."""
    marks = {f"<{k}>": k for k in special.values()}
    names = {f"w{k}": k for k in range(count) if k not in special.values()}
    raw = Tokenizer(models.WordLevel({**marks, **names, "+": count}, unk_token="<0>"))
    raw.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Split("+", "isolated")]
    )
    raw.post_processor = processors.TemplateProcessing(
        single=template, special_tokens=[*marks.items()] if "<" in template else []
    )
    given = {f"{role}_token": f"<{k}>" for role, k in special.items()}
    return PreTrainedTokenizerFast(tokenizer_object=raw, model_max_length=512, **given)


BERT = {"template": "<1> $A <2>", "pad": 0, "cls": planted.CLS, "sep": planted.SEP}


def reading(model, tokenizer, texts=()):
    found = Reading(model, tokenizer)
    found.given = [found.sample(text) for text in texts]
    return found


def looked(model, data, study=None, methods=None, batches=()):
    (seen,) = conduct(model, [study or Roles()], data, methods, batches)
    assert not seen.failed and not seen.absent, seen
    return seen.twins


def roles_of(table):
    """Return the roles of each head that has any."""
    found = {}
    for (_, layer, head, role), row in table["roles"].iterrows():
        if row["has"]:
            found.setdefault((layer, head), set()).add(role)
    return found


# ------------------------------------------------------------------ planted


def sentence(draw, rare):
    """Write a subject, its verb and its object, fillers between, one perhaps rare; say where they stand."""
    fillers = [planted.FILLER + draw.randrange(400) for _ in range(draw.randint(4, 9))]
    if rare:
        fillers[draw.randrange(len(fillers))] = planted.RARE + draw.randrange(99)
    cuts = sorted(draw.randint(0, len(fillers)) for _ in range(3))
    words, marks = [], {}
    for k, name in enumerate(("subject", "verb", "object")):
        words += fillers[cuts[k - 1] if k else 0 : cuts[k]]
        marks[name] = len(words)
        words.append({"subject": planted.SUBJECT, "verb": planted.VERB, "object": planted.OBJECT}[name])
        words[-1] += draw.randrange(10)
    words += fillers[cuts[-1] :]
    return words, marks


def treebank(path, count, seed):
    draw = random.Random(seed)
    blocks = []
    for _ in range(count):
        words, marks = sentence(draw, rare=False)
        head = {marks["subject"]: ("nsubj:outer", "verb"), marks["object"]: ("obj", "verb")}
        lines = []
        for k, word in enumerate(words):
            relation, on = head.get(k, ("dep", "verb"))
            at = 0 if k == marks["verb"] else marks[on] + 1
            lines.append(f"{k + 1}\tw{word}\t_\t_\t_\t_\t{at}\t{relation if at else 'root'}\t_\t_")
        blocks.append("\n".join(lines))
    path.write_text("\n\n".join(blocks) + "\n", encoding="utf-8")
    return str(path)


def encoder_reading(count=40):
    tokenizer = numbered(planted.WORDS - 1, **BERT)
    draw = random.Random(5)
    texts = [" ".join(f"w{word}" for word in sentence(draw, rare=True)[0]) for _ in range(count)]
    return reading(planted.encoder(), tokenizer, texts)


def corpus(path):
    """Write every token as often as makes those from RARE on ever rarer, and the others common."""
    lines = [
        " ".join([f"w{k}"] * (900 - k if k >= planted.RARE else 1000)) for k in range(3, planted.WORDS - 1)
    ]
    path.write_text("\n".join(lines), encoding="utf-8")
    return str(path)


def test_every_planted_head_of_an_encoder_has_its_role_and_no_other(tmp_path):
    data = encoder_reading()
    banks = (treebank(tmp_path / "dev", 150, 1), treebank(tmp_path / "test", 150, 2))
    study = Roles(treebank=banks, counts=corpus(tmp_path / "counts"))
    table = looked(data.model, data, study)["dense"].tables()
    own = dict(zip(planted.ENCODER, range(8), strict=True))
    names = {"previous": "positional", "next": "positional", "nsubj": "nsubj dependent-head"}
    names |= {"obj": "obj head-dependent"}
    assert roles_of(table) == {(0, head): {names.get(name, name)} for name, head in own.items()}
    heads = table["heads"].xs(("encoder", 0))
    assert heads["offset"][own["previous"]] == -1 and heads["offset"][own["next"]] == 1
    assert heads["positional"][[own["previous"], own["next"], own["self"]]].tolist() == [1, 1, 1]
    assert heads["first_weight"][own["first"]] == heads["separator_weight"][own["separator"]] == 1
    # one key of what is not special gets all, or, where a special one does, nothing
    assert heads["confidence"][own["rare"]] == 1 and heads["confidence"][own["first"]] == 0
    assert heads["confidence_all"][own["first"]] == 1
    chosen = table["relations"].query("is_chosen == 1")
    assert chosen.loc["encoder", 0, own["nsubj"], "nsubj", "dependent-head"]["share"] == 1
    assert chosen.loc["encoder", 0, own["obj"], "obj", "head-dependent"]["share"] == 1
    assert set(table["relations"].index.get_level_values("relation")) == {"nsubj", "obj"}
    assert table["rare"]["texts"].max() > 20 and table["left_out"].empty


def planted_needle(number, of, sentences, seed):
    draw = random.Random(number)
    noise = [planted.PLAIN + draw.randrange(60) for _ in range(30)]
    value = planted.VALUE + draw.randrange(5)
    words = [*noise[: 3 * number], value, *noise[3 * number :], planted.ASKED, value]
    text = " ".join(f"w{word}" for word in words)
    start = len(" ".join(f"w{word}" for word in words[: 3 * number])) + (number > 0)
    return text, (start, start + 2), (len(text) - 2, len(text))


def test_every_planted_head_of_a_language_model_has_its_role_and_no_other(monkeypatch):
    monkeypatch.setattr(brought, "haystack", planted_needle)
    monkeypatch.setattr(brought, "LENGTH", 40)
    monkeypatch.setattr("attnbench_plugins.studies.roles.LENGTH", 40)
    tokenizer = numbered(planted.TOKENS - 1, "<0> $A", bos=planted.BEGIN)
    draw = random.Random(3)
    texts = [" ".join(f"w{draw.randrange(10, 70)}" for _ in range(20)) for _ in range(10)]
    data = reading(planted.decoder(), tokenizer, texts)
    table = looked(data.model, data)["dense"].tables()
    expected = {at: {name} for at, name in planted.DECODER.items()}
    expected[0, 0] = {"previous", "positional"}  # the same, on texts and on random sequences
    assert roles_of(table) == expected
    heads = table["heads"].xs("decoder")
    for (layer, head), name in planted.DECODER.items():
        if name != "first":
            assert heads[name][layer, head] == pytest.approx(1, abs=0.03), name
    assert heads["sink"][0, 2] == 1 and heads["offset"][0, 0] == -1
    left = table["left_out"]["number"].to_dict()
    assert [why for part, why in left if part == "relations"] == ["no treebank: give roles:treebank=FILE"]


# ------------------------------------------------------------------ words and arcs


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


# ------------------------------------------------------------------ batches, methods, what is missing


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
