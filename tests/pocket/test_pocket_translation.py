"""The pocket translation: a made-up language that follows its rules, tokens, weights, cards."""

from __future__ import annotations

import json
import re
from itertools import islice, pairwise

import pytest
import torch

from attnbench.inputs import models
from attnbench.pocket import batches, decoders, exams, fluency, recipes, subwords, text, train, translation

FOLDER = train.WEIGHTS / "marian-translation"


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("split", text.SIZES)
def test_documents_repeat_and_grow_by_appending(split):
    short, long = text.documents("translation", split, 20), text.documents("translation", split, 50)
    assert short == long[:20]
    assert len({document["id"] for document in long}) == 50


def test_no_source_is_in_two_splits():
    splits = [{d["source"] for d in text.documents("translation", split, 2000)} for split in text.SIZES]
    trained = {d["source"] for d in islice(text.annotated("translation", "train", 1), 4000)}
    assert not splits[2] & (splits[0] | splits[1] | trained)
    assert not splits[1] & (splits[0] | trained)


def test_the_lexicon_is_one_to_one():
    assert len(set(translation.STEMS.values())) == len(translation.STEMS)
    assert not set(translation.STEMS.values()) & set(translation.STEMS)


def test_targets_end_with_the_verb_and_adjectives_agree_with_their_noun():
    stems = [translation.STEMS[trait] for trait in translation.TRAITS]
    traits = {stem + end for stem in stems for end in ("a", "o", "an", "on")}
    described = 0
    for document in text.documents("translation", "validation", 500):
        words = document["target"].strip(".").lower().split()
        assert re.search(r"(e|i)s?(no)?$", words[-1])
        source = re.findall(r"\w+", document["source"].lower())
        assert words[-1].endswith("no") == ("not" in source)
        for first, second in pairwise(words):
            if second in traits:
                assert re.search(r"[ao]n?$", first)[0] == re.search(r"[ao]n?$", second)[0]
                described += 1
    assert described > 100


def test_a_verb_is_chosen_by_its_object():
    deed = translation.BOTH[0]
    seen = set()
    for document in islice(text.annotated("translation", "validation"), 3000):
        words = document["target"].strip(".").lower().split()
        for mark, stem in (("mi", translation.STEMS[deed]), ("mo", translation.STEMS[f"{deed} it"])):
            place = next((n for n, w in enumerate(words) if re.fullmatch(rf"{stem}(ul)?[ei]s?(no)?", w)), 0)
            if place and words[place - 1] in ("mi", "mo"):
                assert words[place - 1] == mark
                seen.add(mark)
    assert seen == {"mi", "mo"}


def test_tokens_end_with_eos_and_come_back_as_text():
    tokenizer = subwords.build("translation")
    for document in text.documents("translation", "validation", 50):
        for side in ("source", "target"):
            ids = tokenizer(document[side])["input_ids"]
            assert ids[-1] == tokenizer.eos_token_id
            assert tokenizer.decode(ids, skip_special_tokens=True).strip() == document[side]
    batch = decoders.encode(tokenizer, "translation", text.documents("translation", "validation", 4))
    assert batch["labels"].shape[0] == batch["input_ids"].shape[0] == 4
    assert ((batch["labels"] == tokenizer.eos_token_id).sum(1) == 1).all()


def test_an_interrupted_run_ends_in_the_same_weights(tmp_path, monkeypatch):
    short = recipes.Recipe(steps=20, batch=4, warmup=5)
    monkeypatch.setitem(recipes.RECIPES, ("marian", "translation"), short)
    monkeypatch.setattr(batches, "POOL", 4)
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    train.train("marian", "translation", whole, every=7)
    write = train.write

    def killed(path, state):
        write(path, state)
        raise KeyboardInterrupt

    monkeypatch.setattr(train, "write", killed)
    with pytest.raises(KeyboardInterrupt):
        train.train("marian", "translation", halves, every=7)
    monkeypatch.setattr(train, "write", write)
    train.train("marian", "translation", halves, every=7)
    for name in ("model.safetensors", "config.json", "generation_config.json", "tokenizer.json"):
        assert (whole / name).read_bytes() == (halves / name).read_bytes()


def test_the_shipped_model_loads_whole_and_scores_as_its_card_says():
    import transformers

    card = json.loads((FOLDER / "card.json").read_text())
    assert models.tasks_of("marian") == card["tasks"] == ["pocket-translation"]
    assert models.checkpoint("marian") == FOLDER
    model, info = transformers.AutoModelForSeq2SeqLM.from_pretrained(FOLDER, output_loading_info=True)
    assert not any(info.values())
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}
    assert sum(weight.numel() for weight in model.parameters()) == card["parameters"]
    assert model.generation_config.num_beams == 1
    assert model.generation_config.decoder_start_token_id == model.config.pad_token_id
    _, tokenizer = exams.load("translation", FOLDER)
    assert tokenizer.get_vocab() == subwords.build("translation").get_vocab()
    found = exams.translation(model.eval(), tokenizer, text.documents("translation", "validation", 200))
    scores = card["scores"]["pocket-translation"]
    assert found.value == pytest.approx(scores["dense"], abs=0.04)
    assert 0.85 <= scores["dense"] <= 0.96
    for baseline in ("uniform", "word for word"):
        assert scores[baseline] <= scores["dense"] - 0.25
    assert (FOLDER / "README.md").read_text() == fluency.text(card)
