"""What one types into a notebook: docs/notebook.ipynb runs, runs and tables are HTML, methods learn there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from sample_records import board
from transformers import AutoModelForSequenceClassification, AutoTokenizer

import attnbench
from attnbench.boards.result import Run

NOTEBOOK = Path(__file__).parents[2] / "docs" / "notebook.ipynb"


@pytest.fixture(scope="module")
def bert():
    folder = attnbench.checkpoint("bert", "pocket-sentiment")
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    texts = ["the soup was not good", "a lovely evening with kind people", "dull"]
    labels = torch.tensor([0, 1, 0])
    batch = AutoTokenizer.from_pretrained(folder)(texts, return_tensors="pt", padding=True)
    return model, {**batch, "labels": labels}


def test_the_notebook_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    space: dict[str, object] = {}
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    assert len(code) >= 5
    for each in code:
        exec(compile(each, str(NOTEBOOK), "exec"), space)
    assert isinstance(space["result"], Run) and "<table" in space["result"]._repr_html_()


def test_a_run_and_its_table_are_html_in_a_notebook():
    run = Run(board())
    table = run.table()
    assert isinstance(table, str) and table.startswith("Models")
    assert run._repr_html_() == table._repr_html_()
    assert table._repr_html_().count("<tr>") == 11 and "every head has the same l1 norm" in run._repr_html_()
    hostile = board()
    for item in hostile:
        item.cell["model"] = "<script>alert(1)</script>"
    assert "<script" not in Run(hostile)._repr_html_()


def test_a_prompt_shows_a_run_as_its_table():
    run = Run(board())
    assert repr(run) == repr(run.table()) == str(run) == run.table()
    assert "Δ dense" in repr(run) and "Record(" not in repr(run)
    assert repr(Run()) == Run().table()


def test_methods_learn_where_they_are_applied(bert):
    model, batch = bert
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    with torch.no_grad():
        dense = model(**inputs).logits
        with attnbench.apply(model, "prune50+heads50:gradient", fit_on=[batch]) as applied:
            assert applied.expected and not torch.equal(model(**inputs).logits, dense)
        by_hand = attnbench.parse("heads50:gradient")[0]
        by_hand.fit(model, [batch])
        with attnbench.apply(model, by_hand):
            expected = model(**inputs).logits
        with attnbench.apply(model, "heads50:gradient", fit_on=[batch]):
            assert torch.equal(model(**inputs).logits, expected)
        assert torch.equal(model(**inputs).logits, dense)
    with (
        pytest.raises(attnbench.UserError, match="give fit_on=batches"),
        attnbench.apply(model, "heads50:gradient"),
    ):
        pass


def test_a_watcher_sees_what_is_applied_around_it(bert):
    model, batch = bert
    inputs = {name: value for name, value in batch.items() if name != "labels"}

    def kept(*order):
        found = []
        blocks = {
            "prune": lambda: attnbench.apply(model, "prune80"),
            "watch": lambda: attnbench.watch(
                model, probs=lambda probs, _: found.append((probs > 0).sum().item())
            ),
        }
        with torch.no_grad(), blocks[order[0]](), blocks[order[1]]():
            model(**inputs)
        return sum(found)

    assert kept("prune", "watch") < 0.5 * kept("watch", "prune")


def test_a_stage_is_tried_on_a_row():
    shown = attnbench.transform("prune50", torch.tensor([0.1, 0.2, 0.3, 0.4]))
    assert shown.tolist() == pytest.approx([0, 0, 0.3, 0.4])


def test_a_model_in_memory_is_measured_as_it_is(bert, tmp_path):
    model, _ = bert
    records = str(tmp_path)

    def scores(*given, **more):
        run = attnbench.run(*given, "prune80", "pocket-sentiment", limit=16, records=records, **more)
        return {item.cell["method"]: (item.metrics["acc"]["value"], item.date) for item in run.records}

    folder = attnbench.checkpoint("bert", "pocket-sentiment")
    first = scores(model)
    assert {method: score for method, (score, _) in first.items()} == {
        method: score for method, (score, _) in scores("bert").items()
    }
    assert (
        scores(model, tokenizer=AutoTokenizer.from_pretrained(folder)) == first
    )  # nothing is measured again
    changed = AutoModelForSequenceClassification.from_pretrained(folder)
    with torch.no_grad():
        changed.classifier.weight.neg_()
    with pytest.raises(attnbench.UserError, match="recorded otherwise"):
        scores(changed)
    assert scores(changed, name="turned")["dense"][0] != first["dense"][0]
    with pytest.raises(attnbench.UserError, match="of a model in memory"):
        scores("bert", name="turned")


def _with_hook(model):
    model.classifier.register_forward_hook(lambda module, args, output: -output)


def _with_own_forward(model):
    before = model.forward

    def forward(**inputs):
        output = before(**inputs)
        output.logits = -output.logits
        return output

    model.forward = forward


def _wrapped(model):
    inner = model.bert.encoder.layer[0].output
    inner.dense = torch.nn.Sequential(inner.dense)


@pytest.mark.parametrize("change", [_with_hook, _with_own_forward, _wrapped])
def test_a_model_in_memory_that_no_file_holds_is_refused(change, tmp_path):
    model = AutoModelForSequenceClassification.from_pretrained(attnbench.checkpoint("bert")).eval()
    change(model)
    with pytest.raises(attnbench.UserError, match="answers otherwise, by"):
        attnbench.run(model, tasks="pocket-sentiment", limit=16, records=str(tmp_path))


def test_what_is_no_model_in_memory_is_refused_in_one_line(bert, tmp_path):
    model, _ = bert
    asked = {"tasks": "pocket-sentiment", "records": str(tmp_path)}
    for block, said in (
        (attnbench.apply(model, "prune80"), "methods are applied to this Bert"),
        (attnbench.realize(model, "heads:fixed:off=0.1"), "answers otherwise"),
    ):
        with block, pytest.raises(attnbench.UserError, match=said):
            attnbench.run(model, **asked)
    with pytest.raises(attnbench.UserError, match="Linear is not a transformers model"):
        attnbench.run(torch.nn.Linear(1, 1), **asked)
    with pytest.raises(attnbench.UserError, match=r"name='\.\.' holds no letter or digit"):
        attnbench.run(model, name="..", **asked)
