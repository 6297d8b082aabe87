"""The pocket tasks and models: texts, splits, the recipe, the shipped weights."""

from __future__ import annotations

import json
import re
from itertools import islice
from pathlib import Path

import pytest
import torch
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression

from attnbench.errors import UserError
from attnbench.pocket import batches, card, recipes, text, tokenizer, train
from attnbench.pocket.lexicon import PRAISE

TASKS = ("sentiment", "qa")
FIELD = {"sentiment": "text", "qa": "context"}
FOLDERS = sorted(path.parent for task in TASKS for path in train.WEIGHTS.glob(f"*-{task}/config.json"))


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("split", text.SIZES)
def test_documents_repeat_and_grow_by_appending(task, split):
    short, long = text.documents(task, split, 20), text.documents(task, split, 50)
    assert short == long[:20]
    assert len({document["id"] for document in long}) == 50
    assert not set(text.HIDDEN) & set(long[0])


@pytest.mark.parametrize("task", TASKS)
def test_no_text_is_in_two_splits(task):
    splits = [{d[FIELD[task]] for d in text.documents(task, split, 2000)} for split in text.SIZES]
    train_part = {d[FIELD[task]] for d in islice(text.annotated(task, "train", 1), 2000)}
    assert not splits[2] & (splits[0] | splits[1] | train_part)
    assert not splits[1] & (splits[0] | train_part)
    assert len(text.documents(task, "validation")) == 1000


@pytest.mark.parametrize(("task", "split"), [("sentimnt", "train"), ("qa", "test")])
def test_unknown_names_are_user_errors(task, split):
    with pytest.raises(UserError, match=r"unknown .*Known: "):
        text.documents(task, split)


@pytest.mark.parametrize("split", ["calibration", "validation"])
def test_sentiment_is_balanced_and_of_the_length_of_a_review(split):
    found = text.documents("sentiment", split, 1000)
    assert 0.45 < sum(document["label"] for document in found) / 1000 < 0.55
    lengths = [len(re.findall(r"\w+|[^\w\s]", document["text"])) for document in found]
    assert 110 < sum(lengths) / 1000 < 130
    assert sum(90 <= length <= 160 for length in lengths) > 900


def test_a_label_is_drawn_from_the_sum_of_what_decides():
    found = list(islice(text.annotated("sentiment", "validation"), 500))
    for document in found:
        marks = zip(document["spans"], document["worths"], strict=True)
        deciding = [worth for (*_, tag), (*_, worth) in marks if tag > 4]
        assert 14 <= len(deciding) <= 20
        assert document["total"] == pytest.approx(sum(deciding) / len(deciding) ** 0.5)
        words = [document["text"][start:end] for start, end, _ in document["spans"]]
        assert set(words) <= {word for strength in PRAISE.values() for word in strength}
    clear = [document for document in found if abs(document["total"]) > 0.5]
    assert len(clear) > 250
    assert all(document["label"] == (document["total"] > 0) for document in clear)


def test_sentiment_words_do_not_give_the_label_away():
    learnt, asked = (
        text.documents("sentiment", "train", 3000),
        text.documents("sentiment", "validation", 1000),
    )
    counter = CountVectorizer()
    model = LogisticRegression(max_iter=500).fit(
        counter.fit_transform([d["text"] for d in learnt]), [d["label"] for d in learnt]
    )
    assert model.score(counter.transform([d["text"] for d in asked]), [d["label"] for d in asked]) < 0.65


def test_answers_are_where_they_are_said_to_be():
    found = text.documents("qa", "validation")
    for document in found:
        (answer,), (start,) = document["answers"]["text"], document["answers"]["answer_start"]
        assert document["context"][start : start + len(answer)] == answer
        assert 1 <= len(answer.split()) <= 3
        assert re.search(rf"\b{answer}\b", document["context"])
    lengths = [len(re.findall(r"\w+|[^\w\s]", document["context"])) for document in found]
    assert 130 < sum(lengths) / len(lengths) < 170


def test_every_question_has_facts_of_its_kind_about_others():
    """The right type is not yet the right fact: others' facts of that kind are always there."""
    for document in islice(text.annotated("qa", "validation"), 200):
        assert len(document["owners"]) >= 4 * 5
        start = document["answers"]["answer_start"][0]
        (owner,) = (name for at, _, name in document["owners"] if at == start)
        assert re.match(r"\w+", document["context"][owner:])[0] in document["question"]


@pytest.mark.parametrize("family", tokenizer.SPECIAL)
def test_tokens_carry_the_answer(family):
    vocabulary = tokenizer.build(family)
    documents = list(islice(text.annotated("qa", "validation"), 40))
    batch = batches.encode(vocabulary, "qa", documents)
    for row, document in enumerate(documents):
        span = batch["input_ids"][row, batch["start_positions"][row] : batch["end_positions"][row] + 1]
        answer = document["answers"]["text"][0]
        assert vocabulary.decode(span).strip() == (answer if family == "roberta" else answer.lower())


@pytest.mark.parametrize(("family", "task"), [("bert", "sentiment"), ("roberta", "qa")])
def test_an_interrupted_run_ends_in_the_same_weights(family, task, tmp_path, monkeypatch):
    shipped = train.RECIPES[family, task]
    short = recipes.Recipe(steps=20, batch=4, options=shipped.options, warmup=5)
    monkeypatch.setitem(train.RECIPES, (family, task), short)
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
    assert (halves / train.CHECKPOINT).exists()
    monkeypatch.setattr(train, "write", write)
    train.train(family, task, halves, every=7)
    for name in ("model.safetensors", "config.json", "tokenizer.json"):
        assert (whole / name).read_bytes() == (halves / name).read_bytes()
    assert not (halves / train.CHECKPOINT).exists()


def test_folders_are_named_by_family_and_task_and_small():
    names = {path.name for path in FOLDERS}
    assert names == {f"{family}-{task}" for family, task in recipes.RECIPES if task in TASKS}
    sizes = [path.stat().st_size for path in train.WEIGHTS.rglob("*") if path.is_file()]
    assert sum(sizes) < 15e6


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_shipped_models_load_whole_and_score_as_their_card_says(folder: Path):
    import transformers

    found = json.loads((folder / "card.json").read_text())
    task = folder.name.split("-")[1]
    assert found["tasks"] == [f"pocket-{task}"]
    assert found["text"] == "generated"
    head = {"sentiment": "SequenceClassification", "qa": "QuestionAnswering"}[task]
    model, info = getattr(transformers, f"AutoModelFor{head}").from_pretrained(
        folder, output_loading_info=True
    )
    assert not any(info.values())
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}
    assert sum(weight.numel() for weight in model.parameters()) == found["parameters"]
    vocabulary = transformers.AutoTokenizer.from_pretrained(folder)
    built = tokenizer.build(folder.name.split("-")[0])
    assert vocabulary.get_vocab() == built.get_vocab()
    question = "Whom does Zoe teach?", "Oslo isn't “far” from Bergen."
    assert vocabulary(*question).data == built(*question).data
    prepared = card.inputs(vocabulary, task, "validation", 250)
    dense = float(card.hits(model.eval(), prepared).mean())
    assert abs(dense - found["scores"]["dense"]) < 0.08
    scores = found["scores"]
    assert 0.85 <= scores["dense"] <= 0.96
    assert scores["uniform"] <= scores["dense"] - 0.25
    assert scores["bag-of-words"] <= scores["dense"] - 0.25
    for order in found["orders"]:
        first, second = order["scores"]
        assert order["holds"] == "undecided" or (order["holds"] == "yes") == (first > second)
    if task == "sentiment":
        held = {(order["above"], order["below"]) for order in found["orders"] if order["holds"] == "yes"}
        assert {("logquant2", "linquant2"), ("logquant3", "linquant3"), ("prune80", "prune95")} <= held


def test_a_tasks_own_loss_comes_in_between_its_shares():
    recipe = recipes.Recipe(steps=1, batch=1, onset=(0.1, 0.3))
    assert [recipe.share(done) for done in (0, 0.1, 0.2, 0.3, 1)] == pytest.approx([0, 0, 0.5, 1, 1])
    assert recipes.RECIPES["bert", "qa"].share(0) == 1


def test_an_order_holds_only_where_the_samples_tell():
    some = torch.tensor([1.0, 0.0] * 50)
    better = torch.ones(100)
    assert (card.order(better, some), card.order(some, better)) == ("yes", "no")
    assert card.order(some, some.flip(0)) == card.order(some, some) == "undecided"
