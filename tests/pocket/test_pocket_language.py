"""The pocket models of language: pairs that differ in one word, documents, tokens, weights, cards."""

from __future__ import annotations

import json
import math
import re
from itertools import islice

import pytest
import torch

from attnbench.inputs import models
from attnbench.pocket import batches, decoders, exams, fluency, grams, recipes, subwords, text, train

FAMILIES = ("gpt", "llama")
FOLDERS = [train.WEIGHTS / f"{family}-language" for family in FAMILIES]
BY_NAME = {"ids": lambda folder: folder.name}


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("task", ["agreement", "perplexity"])
@pytest.mark.parametrize("split", text.SIZES)
def test_documents_repeat_and_grow_by_appending(task, split):
    short, long = text.documents(task, split, 20), text.documents(task, split, 50)
    assert short == long[:20]
    assert len({document["id"] for document in long}) == 50


def test_no_sentence_of_a_pair_is_trained_on():
    pairs = {d["sentence_good"] for d in text.documents("agreement", "validation")}
    assert len(pairs) > 990
    read = islice(text.annotated("perplexity", "train", 1), 3000)
    sentences = {sentence for d in read for sentence in re.findall(r"[^.]+\.", d["text"])}
    assert not pairs & {sentence.strip() for sentence in sentences}
    assert not pairs & {d["sentence_good"] for d in text.documents("agreement", "calibration")}


def test_pairs_differ_in_one_word_and_its_number_or_sex():
    found = text.documents("agreement", "validation")
    kinds = {"pronoun": 0, "verb": 0}
    for pair in found:
        good, bad = (re.findall(r"\w+", pair[f"sentence_{side}"]) for side in ("good", "bad"))
        ((right, wrong),) = [both for both in zip(good, bad, strict=True) if both[0] != both[1]]
        kinds[pair["kind"]] += 1
        if pair["kind"] == "pronoun":
            assert {right, wrong} in ({"he", "she"}, {"himself", "herself"})
        else:
            assert right.endswith("s") != wrong.endswith("s")
    assert kinds["verb"] > 700
    assert kinds["pronoun"] > 150


def test_neither_number_is_right_more_often_and_the_nearest_noun_misleads():
    found = [pair for pair in text.documents("agreement", "validation") if pair["kind"] == "verb"]
    singular, nearest = 0, 0
    for pair, label in zip(found, grams.prefixes(found), strict=True):
        nouns = [word for word in re.findall(r"\w+", label["text"]) if word.rstrip("s") in NOUNS]
        singular += label["label"]
        nearest += (not nouns[-1].endswith("s")) == label["label"]
        assert pair["sentence_good"].endswith(".")
    assert 0.4 < singular / len(found) < 0.6
    assert nearest / len(found) < 0.55


NOUNS = {"baker", "judge", "teacher", "doctor", "farmer", "pilot", "singer", "painter", "nurse", "guard"} | {
    "sailor", "poet", "lamp", "chair", "boat", "clock", "basket", "mirror", "drum", "ladder", "kettle",
    "bottle", "ring", "carpet",
}  # fmt: skip


def test_documents_are_40_to_120_words_long():
    lengths = [len(re.findall(r"\w+|[^\w\s]", d["text"])) for d in text.documents("perplexity", "validation")]
    assert min(lengths) >= 40
    assert max(lengths) <= 120


def test_trigrams_are_a_distribution():
    model = grams.Trigrams(["a b c", "a b d", "c d"])
    before = "a b"
    known = [math.exp(model.log_likelihood(f"{before} {w}") - model.log_likelihood(before)) for w in "abcd"]
    # the end of the text and words never seen have the rest
    assert 0.5 < sum(known) < 1
    assert known[2] == pytest.approx(known[3], rel=0.5)
    assert min(known) > 0


def test_tokens_mark_no_ends_but_the_models_know_them():
    tokenizer = subwords.build("language")
    sample = "The lamps near the judge aren't “far” from Oslo."
    assert tokenizer.decode(tokenizer(sample)["input_ids"]).strip() == sample
    assert tokenizer(sample)["input_ids"] == tokenizer(f" {sample}")["input_ids"]
    assert {tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id} == {0, 1, 2}
    batch = decoders.encode(tokenizer, "perplexity", text.documents("perplexity", "validation", 3))
    assert (batch["input_ids"][:, 0] == tokenizer.bos_token_id).all()
    kept = batch["labels"] != -100
    assert (batch["labels"][kept] == batch["input_ids"][kept]).all()
    assert (kept == batch["attention_mask"].bool()).all()
    assert ((batch["labels"] == tokenizer.eos_token_id).sum(1) == 1).all()


@pytest.mark.parametrize(("family", "task"), [("gpt", "language"), ("llama", "language")])
def test_an_interrupted_run_ends_in_the_same_weights(family, task, tmp_path, monkeypatch):
    monkeypatch.setitem(recipes.RECIPES, (family, task), recipes.Recipe(steps=20, batch=4, warmup=5))
    monkeypatch.setattr(batches, "POOL", 4)
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    train.train(family, task, whole, every=7)
    write = train.write

    def killed(path, state):
        write(path, state)
        raise KeyboardInterrupt

    monkeypatch.setattr(train, "write", killed)
    with pytest.raises(KeyboardInterrupt):
        train.train(family, task, halves, every=7)
    monkeypatch.setattr(train, "write", write)
    train.train(family, task, halves, every=7)
    for name in ("model.safetensors", "config.json", "tokenizer.json"):
        assert (whole / name).read_bytes() == (halves / name).read_bytes()


def test_all_that_writes_is_small():
    folders = [*FOLDERS, train.WEIGHTS / "marian-translation"]
    assert sum(path.stat().st_size for folder in folders for path in folder.iterdir()) < 4.6e6


def test_a_folder_serves_both_tasks():
    for family, folder in zip(FAMILIES, FOLDERS, strict=True):
        assert models.tasks_of(family) == ["pocket-agreement", "pocket-perplexity"]
        assert models.checkpoint(family) == models.checkpoint(family, "pocket-perplexity") == folder


@pytest.mark.parametrize("folder", FOLDERS, **BY_NAME)
def test_shipped_models_load_whole_and_score_as_their_card_says(folder):
    import transformers

    card = json.loads((folder / "card.json").read_text())
    model, info = transformers.AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not any(info.values())
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}
    assert sum(weight.numel() for weight in model.parameters()) == card["parameters"]
    if folder.name.startswith("llama"):
        assert model.config.num_key_value_heads < model.config.num_attention_heads
    _, tokenizer = exams.load("language", folder)
    built = subwords.build("language")
    assert tokenizer.get_vocab() == built.get_vocab()
    assert tokenizer("Zoe isn't “far”.").data == built("Zoe isn't “far”.").data
    for task, exam in exams.EXAMS["language"].items():
        scores = card["scores"][task]
        documents = text.documents(task.removeprefix("pocket-"), "validation", 250)
        found = exam(model.eval(), tokenizer, documents).value
        assert found == pytest.approx(scores["dense"], rel=0.08)
    agreement, perplexity = (card["scores"][task] for task in card["tasks"])
    assert 0.85 <= agreement["dense"] <= 0.96
    for baseline in ("uniform", "bag-of-words", "trigrams"):
        assert agreement[baseline] <= agreement["dense"] - 0.25
    assert perplexity["dense"] < 0.75 * min(perplexity["uniform"], perplexity["trigrams"])
    for order in card["orders"]:
        first, second = order["scores"]
        better = first < second if order["task"] == "pocket-perplexity" else first > second
        assert order["holds"] == "undecided" or (order["holds"] == "yes") == better
    assert (folder / "README.md").read_text() == fluency.text(card)


@pytest.mark.parametrize("folder", FOLDERS, **BY_NAME)
def test_log_likelihoods_are_those_of_one_text_at_a_time(folder):
    model, tokenizer = exams.load("language", folder)
    texts = [d["text"] for d in text.documents("perplexity", "validation", 5)] + ["The lamp is old."]
    found = exams.log_likelihoods(model, tokenizer, texts)
    for one, value in zip(texts, found, strict=True):
        ids = torch.tensor([[tokenizer.bos_token_id, *tokenizer(one)["input_ids"]]])
        with torch.inference_mode():
            chances = torch.log_softmax(model(ids).logits[0].double(), -1)
        alone = sum(chances[at, token] for at, token in enumerate(ids[0, 1:]))
        assert float(value) == pytest.approx(float(alone), abs=1e-3)


@pytest.mark.parametrize("folder", FOLDERS, **BY_NAME)
def test_log_likelihoods_are_those_of_lm_evals_own_model(folder):
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    model, tokenizer = exams.load("language", folder)
    stock = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=4, device="cpu")
    pairs = [d["sentence_bad"] for d in text.documents("agreement", "validation", 6)]
    rows = [Instance("loglikelihood", {}, ("", f" {pair}"), 0) for pair in pairs]
    found = [chance for chance, _ in stock.loglikelihood(rows, disable_tqdm=True)]
    assert exams.log_likelihoods(model, tokenizer, pairs).tolist() == pytest.approx(found, abs=1e-3)
    texts = [d["text"] for d in text.documents("perplexity", "validation", 6)]
    rows = [Instance("loglikelihood_rolling", {}, (each,), 0) for each in texts]
    found = stock.loglikelihood_rolling(rows, disable_tqdm=True)
    assert exams.log_likelihoods(model, tokenizer, texts).tolist() == pytest.approx(found, abs=1e-3)


def test_lm_eval_gets_splits_with_features_and_the_harness_documents():
    documents = text.dataset("agreement", split="validation", version=1)
    assert documents == text.documents("agreement", "validation")
    splits = text.dataset("agreement", version=1, licence="Apache-2.0", calibration={"split": "calibration"})
    assert set(splits) == {"calibration", "validation"}
    assert splits["validation"].to_list() == documents
    assert set(splits["validation"].features) == {"id", "sentence_good", "sentence_bad", "kind"}
