"""Planted heads are found, each by its own role and by no other."""

from __future__ import annotations

import random

import planted_heads as planted
import pytest
from role_texts import corpus, encoder_reading, looked, numbered, reading, roles_of, treebank

from attnbench_plugins.studies.patterns import brought
from attnbench_plugins.studies.roles import Roles


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
