"""A text's answer is its answer alone: every architecture in batches against plain transformers, and runs."""

from __future__ import annotations

import copy
import csv
import json
from pathlib import Path

import architectures
import numpy as np
import pytest
import torch
import transformers
from architectures import SERVED, TEXTS, asked, tiny, tokenizer

import attnbench
from attnbench import watch
from attnbench.backends import alone
from attnbench.backends.encoders import padding
from attnbench.backends.encoders.inputs import Inputs, Row, padded
from attnbench.backends.encoders.model import EncoderLM
from attnbench.backends.encoders.padding import shortened
from attnbench.inputs.settings import Settings
from attnbench.matrix.bench import Bench

FORCED = ("mobilebert", "bart-decoder")  # reads its neighbour; counts padding before a prompt
SIDES = {"xlnet": "left"}  # what the head needs, whatever the tokenizer says


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("name", SERVED)
def test_a_text_in_a_batch_is_the_text_alone(name, side):
    found = asked(name, tiny(name), side=side)
    assert found.difference <= 5e-5
    assert (found.alone is not None) == (name in FORCED)
    if architectures.kind(name) == "classifier" and name not in FORCED:
        assert found.side == SIDES.get(name, found.side)
        assert found.gap <= 1e-4


@pytest.mark.parametrize("name", ["mobilebert", "xlnet"])
def test_without_the_guard_padding_changes_the_answers(name):
    """What the guard finds is there: plain transformers itself answers otherwise on the wrong side."""
    words, model = tokenizer("<s> $A </s>"), tiny(name)
    with torch.no_grad():
        batch = words(TEXTS, return_tensors="pt", padding=True, return_token_type_ids=False)
        together = model(**batch).logits[1]
        single = model(**words(TEXTS[1], return_tensors="pt", return_token_type_ids=False)).logits[0]
    assert float((together - single).abs().max()) > 1e-2


@pytest.mark.parametrize("side", ["right", "left"])
def test_padding_is_on_the_side_that_is_asked_for(side):
    ids, mask = padded([[1, 2, 3], [4]], 9, side)
    assert ids.tolist() == [[1, 2, 3], [4, 9, 9] if side == "right" else [9, 9, 4]]
    assert mask.tolist() == [[1, 1, 1], [1, 0, 0] if side == "right" else [0, 0, 1]]
    inputs = Inputs(tokenizer("$A", padding_side=side))
    rows = [Row(np.array([3, 4, 5])), Row(np.array([6]))]
    assert inputs.starts(rows).tolist() == ([0, 0] if side == "right" else [0, 2])
    assert inputs.collate(rows)["input_ids"].tolist()[1][inputs.starts(rows)[1]] == 6


def test_a_gap_is_found_where_a_text_reads_its_neighbour():
    def answers(batch):
        longest = max(map(len, batch))
        return [torch.tensor([float(sum(row)), 0.1 * (longest - len(row))]) for row in batch]

    assert alone.gap(answers, [1.0, 2.0], [1.0] * 5) == pytest.approx(0.1)
    assert alone.gap(lambda batch: [torch.tensor([float(sum(row))]) for row in batch], [1.0], [2.0, 3.0]) == 0
    assert not alone.gap(lambda batch: [torch.tensor([float("nan")])] * 2, [1.0], [2.0, 3.0]) <= 1e-4


def test_the_shortest_and_the_longest_are_compared():
    assert alone.extremes("abcd", [3, 1, 9, 5]) == ("b", "c")
    assert alone.extremes("abcd", [3, 1, 9, 5], most=6) == ("b", "d")
    assert alone.extremes("abcd", [8, 7, 9, 7], most=6) == ("b", "b")
    assert shortened(Row(np.arange(7))).ids.tolist() == [0, 1, 2, 6]  # the last token may be what is read


# what a classifier's padding token is


def classifier(kind="Qwen3", **settings):
    factory = getattr(transformers, f"{kind}ForSequenceClassification")
    torch.manual_seed(0)
    base = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
    grouped = {"num_key_value_heads": 2, "head_dim": 8} if kind == "Qwen3" else {}
    model = factory(factory.config_class(vocab_size=97, **base, **grouped, **settings)).eval()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() == 2:
                weight.normal_(std=0.25)
    return model


@pytest.mark.parametrize("own", [None, -1, 0, 2, 50])
def test_the_heads_own_padding_token_is_used(own):
    model = classifier(pad_token_id=own)
    with torch.no_grad():
        found = architectures.classified(model, 6, "right")
    assert found.difference <= 5e-5 and found.alone is None


def test_a_padding_token_that_a_text_holds_is_not_taken_for_a_head_without_one():
    model = classifier(pad_token_id=None)
    words = tokenizer("<s> $A </s>")
    words.pad_token = "</s>"  # as is usual for decoders, and every text ends in it
    lm, rows = EncoderLM(words), [Row(np.array([1, 5, 6, 2])), Row(np.array([1, 7, 2]))]
    with torch.no_grad():
        plain = [model(torch.from_numpy(row.ids)[None]).logits[0] for row in rows]
        padding.prepare(lm, model, rows)
        assert lm.fill not in (1, 2, 5, 6, 7) and model.config.pad_token_id == lm.fill
        with lm.serving(model):
            torch.testing.assert_close(torch.stack(lm.answers(rows)), torch.stack(plain), atol=1e-5, rtol=0)


def test_no_padding_token_at_all_is_one_line():
    model, words = classifier(pad_token_id=None), tokenizer("<s> $A </s>")
    words.pad_token = None
    with pytest.raises(attnbench.errors.UserError, match=r"neither .* pad token \(pad_token_id\): batches"):
        padding.prepare(EncoderLM(words), model, [Row(np.array([1, 2]))])


# a decoder's padding


@pytest.mark.parametrize("name", ["bart-classifier", "t5-classifier"])
def test_a_decoders_padding_is_in_no_statistic(name):
    """Rows of attention that a watcher sees of a batch are those of each text alone."""
    model, words = tiny(name), tokenizer("<s> $A </s>")
    lm = EncoderLM(words)
    rows = [Row(np.array(words(text)["input_ids"])) for text in TEXTS]

    def seen(batches):
        count = dict.fromkeys(("encoder", "decoder", "cross"), 0)
        mass = dict(count)

        def look(probs, site):
            count[site.kind] += probs[..., 0].numel()
            mass[site.kind] += float(probs.square().sum())

        with torch.no_grad(), watch(model, probs=look):
            for batch in batches:
                model(**batch)
        return count, mass

    padding.prepare(lm, model, rows)
    together, apart = seen([lm.collate(rows)]), seen([lm.collate([row]) for row in rows])
    assert together[0] == apart[0]
    assert together[1] == pytest.approx(apart[1], rel=1e-5)
    heads = 4 * sum(len(row.ids) for row in rows)
    assert apart[0] == {"encoder": 3 * heads, "decoder": 2 * heads, "cross": 2 * heads}


# whole runs


def saved(folder: Path, model, words) -> list[int]:
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    model = type(model).from_pretrained(folder).eval()
    with torch.no_grad():
        return [
            int(model(**words(text, return_tensors="pt", return_token_type_ids=False)).logits[0].argmax())
            for text in TEXTS
        ]


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run a model on the texts, labelled with what it says of each alone; return its records."""
    monkeypatch.chdir(tmp_path)

    def runs(model, methods="prune50:global", **settings):
        labels = saved(tmp_path / "tiny", copy.deepcopy(model), tokenizer("<s> $A </s>"))
        with open("own.csv", "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["text", "label", "split"])
            for k, (text, label) in enumerate(zip(TEXTS, labels, strict=True)):
                writer.writerow([text, label, "test" if k % 2 else "train"])
                writer.writerow([f"{text} w{k}", label, "train" if k % 2 else "test"])
        attnbench.run("./tiny", methods, "own.csv", records="records", **settings)
        return {p.stem: json.loads(p.read_text()) for p in Path("records").rglob("*.json")}

    return runs


def test_a_model_that_padding_changes_is_run_one_text_at_a_time(run, capsys):
    records = run(tiny("mobilebert"))
    dense = records["dense"]
    assert dense["settings"]["batch_size"] == 1
    (note,) = dense["settings"]["notes"]
    assert "answers change with the padding of a batch" in note and "one text at a time" in note
    learnt = Bench("./tiny", "own.csv", Settings())
    _ = learnt.model
    assert learnt.alone == note
    assert {len(batch["input_ids"]) for batch in learnt.calibration()} == {1}
    assert {len(batch["input_ids"]) for batch in learnt.batches(6)} == {1}


def test_a_model_that_padding_does_not_change_is_run_as_before(run):
    records = run(tiny("xlnet"), "prune50")
    assert records["dense"]["settings"]["batch_size"] == 32
    assert "notes" not in records["dense"]["settings"]
    bench = Bench("./tiny", "own.csv", Settings())
    with torch.no_grad():
        plain = [
            bench.model(torch.from_numpy(np.int64(row.ids))[None]).logits[0].numpy()
            for rows in bench.prepared._lm.rows(bench.prepared.task.instances)
            for row in rows
        ]
    found = np.load(next(Path("records").rglob("dense.npz")))["outputs"]
    assert np.abs(found - np.stack(plain)).max() < 1e-5
