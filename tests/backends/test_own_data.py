"""The user's own files as tasks: what they may hold, and every mistake by its line."""

from __future__ import annotations

import csv
import io
import json

import numpy as np
import pytest
import tiny_tasks

import attnbench
from attnbench.backends import lm_eval, own_data
from attnbench.errors import NotApplicable, UserError
from attnbench.inputs import listing, models, tasks
from attnbench.inputs.settings import Settings
from attnbench.matrix import plan
from attnbench.matrix.request import Request
from attnbench.pocket.text import documents

HEAD = "text,label\n"


@pytest.fixture
def file(tmp_path):
    def write(content, name="mine.csv"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return str(path)

    return write


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    return tiny_tasks.checkpoint(tmp_path_factory.mktemp("tiny"))


def _csv(rows):
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("words,label\na,1\n", "line 1: no column 'text'. It has words, label."),
        ("text\na\n", "line 1: no column 'label'. It has text."),
        ("good,1\nbad,0\n", "It has good, 1. The first line names the columns, as in text,label."),
        (HEAD, "holds no row. Columns: text and label; text2 and split are optional."),
        (
            "text;label\na;1\n",
            "line 1: no column 'text'. It has text;label. It has to be separated",
        ),
        ("text,label,text\na,1,b\n", "line 1: column 'text' stands there twice"),
        (HEAD + "a,1\nb,c,1\n", "line 3: 3 fields, the header has 2: text, label. A text with a comma"),
        (
            HEAD + '"a\nb",1\nc\n',
            "line 4: 1 field, the header has 2: text, label. No label: a line break in a",
        ),
        (
            "text,text2,label\na\n",
            "line 2: 1 field, the header has 3: text, text2, label. No text2, no label:",
        ),
        ("Text,label\na,1\n", "line 1: no column 'text'. It has Text, label. Rename Text to text."),
        ("text,lable\na,1\n", "line 1: no column 'label'. It has text, lable. Rename lable to label."),
        ("text,text2\na,b\n", "line 1: no column 'label'. It has text, text2."),
        ("sentence,target\na,1\n", "no column 'text'. It has sentence, target. The first line names"),
        (
            HEAD + "a,yess\n",
            "line 2: label 'yess' is none of no, yes, nor a number below 2. Did you mean yes?",
        ),
        ("text,label,split\na,1,trian\n", "dev, test, evaluation. Did you mean train?"),
        (
            "text,label,split\na,1,train\nb,0,Train\n",
            "mine.csv: every row's split is one to learn from: no row",
        ),
        (HEAD + 'a,1\n"b,1\nc,0\n', "line 3: a quote is never closed"),
        (HEAD + "a,1\n ,0\n", "line 3: text is ' '"),
        (HEAD + ",0\n", "line 2: text is empty"),
        ("text,text2,label\na,b,1\nc,,1\n", "line 3: text2 is empty"),
        ("text,label,split\na,1,test\nb,0,tuning\n", "line 3: split is 'tuning'. Known: train, calibration"),
        (HEAD, "holds no row"),
        (HEAD + "a,1\nb,7\n", "line 3: label '7' is none of no, yes, nor a number below 2"),
        ("text,label,split\na,1,\n", "line 2: split is ''. Known: train, calibration"),
        (HEAD + "a,1.5\n", "line 2: label '1.5' is none of no, yes"),
        (HEAD + "a,True\n", "line 2: label 'True' is none of no, yes"),
        (HEAD + "a,Yes\nb,maybe\n", "line 3: label 'maybe' is none of no, yes"),
        (HEAD + "a,-1\n", "line 2: label '-1' is none of"),
        ((HEAD + "a,1\n").encode() + b"caf\xe9,1\n", "line 3: not UTF-8: byte 0xe9"),
    ],
)
def test_a_mistake_in_a_csv_file_is_named_with_its_line(content, message, file, classifier):
    with pytest.raises(UserError) as caught:
        lm_eval.prepare(file(content), classifier, Settings())
    assert message in str(caught.value) and str(caught.value).count("mine.csv") == 1


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"text": "a", "label": }', "line 3: not JSON: Expecting value"),
        ('{"text": "a", "label": "b", "label": "c"}', "line 3: 'label' stands there twice"),
        ('["a", 1]', "line 3: list instead of an object"),
        ('{"txt": "a", "label": 1}', "line 3: no 'text'. It has txt, label. Rename txt to text."),
        ('{"text": null, "label": 1}', "line 3: text is empty"),
        ('{"text": 5, "label": 1}', "line 3: text is 5"),
        ('{"text": "a \\ud83d", "label": 1}', "line 3: text has half a character"),
        ('{"text": "a", "label": true}', "line 3: label True is none of no, yes"),
        ('{"text": "a", "label": 2}', "line 3: label 2 is none of no, yes"),
        ('{"text": "a", "label": 1.5}', "line 3: label 1.5 is none of no, yes"),
        ('{"text": "a", "label": null}', "line 3: label None is none of no, yes"),
        ('{"text": "a", "label": 1, "split": ["test"]}', "line 3: split is ['test']. Known: train"),
    ],
)
def test_a_mistake_in_a_json_lines_file_is_named_with_its_line(line, message, file, classifier):
    with pytest.raises(UserError) as caught:
        lm_eval.prepare(
            file('{"text": "w1", "label": 1}\n\n' + line + "\n", "mine.jsonl"), classifier, Settings()
        )
    assert message in str(caught.value)


def test_labels_are_names_or_numbers_and_texts_are_kept(file, classifier):
    texts = ['w1, "w2"', "w3\nw4", "naïve 😀 ‮w5 \u0000 e\u0301", "  w6  "]
    rows = [
        {"note": k, "text": text, "label": label, "split": ""}
        for k, (text, label) in enumerate(zip(texts, ["yes", "NO", 1, " 0 "], strict=True))
    ]
    for row in rows:
        del row["split"]
    for name, content in (
        ("mine.csv", "\ufeff" + _csv(rows)),
        ("mine.jsonl", "\n".join(map(json.dumps, rows))),
    ):
        prepared = lm_eval.prepare(file(content, name), classifier, Settings())
        docs = [instance.doc for instance in prepared.task.instances]
        assert docs == [{"text": t, "label": k} for t, k in zip(texts, [1, 0, 1, 0], strict=True)]
        assert np.isfinite(prepared.evaluate(classifier.load("classification")).outputs).all()
        assert prepared.task.task_name == "mine" and prepared.file.dataset == f"file {name}"


@pytest.mark.parametrize(
    ("labels", "given", "expected"),
    [
        (("1", "2"), "1", 0),  # a name wins over a number
        (("1", "2"), "2.0", 1),
        (("no", "yes"), "1.0", 1),
        (("no", "yes"), "0", 0),
        (("Yes", "YES", "no"), '"Yes"', 0),
        (("Yes", "YES", "no"), '"YES"', 1),
        (("Yes", "YES", "no"), '"No"', 2),
        (("false", "true"), "true", 1),
        (("0.0", "1.0"), "1.0", 1),
    ],
)
def test_a_label_is_the_same_class_in_both_kinds_of_file(labels, given, expected, file, tmp_path):
    model = tiny_tasks.checkpoint(tmp_path / "model", labels=labels)
    rows = {"mine.csv": HEAD + "w1," + given.strip('"'), "mine.jsonl": f'{{"text": "w1", "label": {given}}}'}
    for name, content in rows.items():
        prepared = lm_eval.prepare(file(content + "\n", name), model, Settings())
        assert [prepared.task.doc_to_target(item.doc) for item in prepared.task.instances] == [expected]


def test_labels_that_differ_by_case_alone_are_not_guessed(file, tmp_path):
    model = tiny_tasks.checkpoint(tmp_path / "model", labels=("Yes", "YES", "no"))
    with pytest.raises(UserError, match="line 2: label 'yes' is none of Yes, YES, no"):
        lm_eval.prepare(file(HEAD + "w1,yes\n"), model, Settings())


def test_splits_and_endings_may_be_in_capitals(file, classifier):
    rows = "text,label,split\nw1,1,Test\nw2,0,TRAIN\nw3,0,Dev\n"
    prepared = lm_eval.prepare(file(rows, "MINE.CSV"), classifier, Settings())
    assert [item.doc["text"] for item in prepared.task.instances] == ["w1", "w3"]
    assert prepared.file.dataset == "file MINE.CSV"


def test_the_first_text_that_is_too_long_is_named_with_its_line(file, classifier):
    rows = "text,label,split\nw1,1,train\nw2,0,test\n" + "w3 " * 99 + ",0,test\n" + "w4 " * 90 + ",0,test\n"
    prepared = lm_eval.prepare(file(rows), classifier, Settings())
    with pytest.raises(
        UserError, match=r"mine\.csv, line 4: 2 of 3 inputs of task 'mine' have over 80 tokens"
    ):
        prepared.check(classifier.load("classification"))


def test_a_pair_stays_a_pair(file, classifier):
    prepared = lm_eval.prepare(file("label,text,text2\n1,w1 w2,w3\n"), classifier, Settings())
    (batch,) = prepared.batches(1)
    assert batch["token_type_ids"].tolist() == [[0, 0, 0, 0, 1, 1]]


def test_a_model_with_one_output_is_compared_by_correlation(file, tmp_path):
    number = tiny_tasks.checkpoint(tmp_path / "number", labels=("similarity",))
    rows = [{"text": f"w{k} w{k + 1}", "label": k / 7} for k in range(20)]
    prepared = lm_eval.prepare(file(_csv(rows)), number, Settings())
    found = prepared.evaluate(number.load("classification"))
    assert list(found.metrics) == ["spearman", "pearson"]
    for label in ("high", "nan", "inf", "-Infinity", "1_5", ""):
        with pytest.raises(UserError, match=f"line 3: label '{label}' is no number"):
            lm_eval.prepare(file(HEAD + f"b,1e3\na,{label}\n"), number, Settings())
    with pytest.raises(UserError, match="line 1: label True is no number"):
        lm_eval.prepare(file('{"text": "a", "label": true}\n', "mine.jsonl"), number, Settings())


def test_a_checkpoint_with_another_head_is_refused(file, tmp_path):
    spans = tiny_tasks.checkpoint(tmp_path / "spans", head="QuestionAnswering")
    with pytest.raises(UserError, match="does not fit task 'mine': it is a BertForQuestionAnswering"):
        lm_eval.prepare(file(HEAD + "w1,1\n"), spans, Settings())


# calibration


def test_a_split_column_names_what_is_fitted_on(file, classifier):
    rows = [{"text": f"w{k}", "label": k % 2, "split": "train" if k % 3 else "test"} for k in range(30)]
    prepared = lm_eval.prepare(file(_csv(rows)), classifier, Settings())
    assert [instance.doc["text"] for instance in prepared.task.instances] == [
        f"w{k}" for k in range(0, 30, 3)
    ]
    fitted = {doc["text"] for doc in prepared.calibration_documents()}
    assert fitted == {f"w{k}" for k in range(30) if k % 3}
    assert prepared.fingerprints["calibration"] == "file mine.csv:calibration[512] seed 0"


def test_another_file_may_be_fitted_on_by_any_classifier(file, classifier, tmp_path):
    mine = file(HEAD + "".join(f"w{k},{k % 2}\n" for k in range(10)))
    with pytest.raises(NotApplicable, match=r"give its file rows whose split is train, or .* FILE\.csv"):
        lm_eval.prepare(mine, classifier, Settings()).calibration()
    other = file(
        "".join(json.dumps({"text": f"w{k}", "label": "yes"}) + "\n" for k in range(20, 30)), "o.jsonl"
    )
    prepared = lm_eval.prepare(mine, classifier, Settings(calibration=other))
    assert {doc["text"] for doc in prepared.calibration_documents()} == {f"w{k}" for k in range(20, 30)}
    assert prepared.fingerprints["calibration"] == "o.jsonl[512] seed 0"
    with pytest.raises(UserError, match=r"10 of 10 calibration samples of task 'mine' are evaluated too"):
        lm_eval.prepare(mine, classifier, Settings(calibration=mine)).calibration()
    pair = file("text,text2,label\nw1,w2,0\n", "pair.csv")
    with pytest.raises(UserError, match="line 2: 2 texts, task 'mine' has 1"):
        lm_eval.prepare(mine, classifier, Settings(calibration=pair)).calibration()


@pytest.mark.parametrize("name", ["train", "Calibration"])
def test_one_split_of_a_file_may_be_fitted_on(name, file, classifier):
    other = file("text,label,split\nw1,1,train\nw2,0,train\nw3,0,test\n", "other.csv")
    prepared = lm_eval.prepare(file(HEAD + "w9,1\n"), classifier, Settings(calibration=f"{other}:{name}"))
    assert {doc["text"] for doc in prepared.calibration_documents()} == {"w1", "w2"}


@pytest.mark.parametrize(
    ("content", "split", "message"),
    [
        (
            HEAD + "w1,1\n",
            ":train",
            r"calibration of task 'mine': '.*other\.csv:calibration' holds no document",
        ),
        ("text,label,split\nw1,1,train\n", ":test", "other.csv:evaluation' holds no document"),
        (HEAD + "w1,1\n", ":tuning", "unknown split 'tuning'. .*train, calibration"),
        (HEAD + "w1,7\n", "", "other.csv, line 2: label '7' is none of no, yes"),
        (None, "", "other.csv: cannot be read: No such file"),
    ],
)
def test_a_mistake_in_what_is_fitted_on_comes_before_anything_is_measured(
    content, split, message, file, classifier, tmp_path
):
    if content is not None:
        file(content, "other.csv")
    with pytest.raises(UserError, match=message):
        lm_eval.prepare(
            file(HEAD + "w9,1\n"), classifier, Settings(calibration=f"{tmp_path / 'other.csv'}{split}")
        )


def test_no_method_is_fitted_on_nothing(file, tmp_path):
    task = tmp_path / "made"
    task.mkdir()
    (task / "made.yaml").write_text(
        "task: made\nclass: !function attnbench.backends.classification.Classify\n"
        "custom_dataset: !function made_up.documents\nvalidation_split: validation\ndoc_to_text: text\n"
        "doc_to_target: label\ndoc_to_choice: ['no', 'yes']\nmetric_list: [{metric: acc}]\n"
        "metadata: {calibration: {split: train, samples: 8}}\n"
    )
    (task / "made_up.py").write_text(
        "def documents(split):\n    return [{'text': 'w1', 'label': 1}] * (split == 'validation')\n"
    )
    folder = tiny_tasks.checkpoint(tmp_path / "tiny").path
    found = attnbench.run(folder, "mask50", "made", include_path=str(task), records=str(tmp_path / "records"))
    assert found.records[-1].status == "failed" and not found.records[-1].metrics
    assert "calibration of task 'made': 'train' holds no document" in found.records[-1].error


def test_calibration_on_a_file_is_for_classifiers(file):
    from attnbench.inputs import models

    prepared = lm_eval.prepare(
        "pocket-qa", models.find("bert", "pocket-qa"), Settings(limit=2, calibration=file(HEAD))
    )
    with pytest.raises(UserError, match="holds labels, task 'pocket-qa' does not"):
        prepared.calibration()


# names, and a whole run


@pytest.mark.parametrize("model", ["gpt", "gpt2"])
def test_a_reason_names_a_file_without_its_folder(file, model):
    with pytest.raises(NotApplicable, match=r"not for mine\.csv$"):
        models.find(model, file(HEAD))


def test_names_of_files_are_told_apart(file, tmp_path):
    for name in ("nowhere.csv", "nowhere.JSONL", "nowhere.yaml"):
        with pytest.raises(UserError, match=f"no file '{name}'"):
            plan.plan(Request.of("bert", "prune80", name))
    with pytest.raises(UserError, match="would share the name of task 'sst2' in records"):
        tasks.find(file(HEAD, "sst2.csv"))
    twins = [file(HEAD, "mine.csv"), file("", "mine.jsonl")]
    with pytest.raises(
        UserError, match=r"mine.csv' and '.*mine.jsonl' would share the name 'mine' in records"
    ):
        plan.plan(Request.of("bert", "prune80", twins))
    with pytest.raises(UserError, match=r"models 'some/model' and './some-model' would share the name"):
        plan.plan(Request.of(["some/model", "./some-model"], "prune80", "sst2"))


def test_a_file_scores_as_the_task_that_it_was_taken_from(file, tmp_path):
    docs = documents("sentiment", "validation", 40)
    rows = [{"text": doc["text"], "label": doc["label"]} for doc in docs]
    records = str(tmp_path / "records")
    ours = attnbench.run("bert", "prune80", file(_csv(rows)), records=records)
    theirs = attnbench.run("bert", "prune80", "pocket-sentiment", limit=40, records=records)
    for mine, other in zip(ours.records, theirs.records, strict=True):
        assert mine.cell == {**other.cell, "task": "mine"}
        assert mine.metrics == other.metrics and np.array_equal(mine.scores["acc"], other.scores["acc"])
        assert str(tmp_path) not in json.dumps(mine.provenance) + json.dumps(mine.settings)
    again = attnbench.run("bert", "prune80", file(_csv(rows)), records=records)
    assert [item.date for item in again.records] == [item.date for item in ours.records]
    file(_csv(rows[:-1]))
    fewer = attnbench.run("bert", "", file(_csv(rows[:-1])), records=records)
    assert len(fewer.records[0].scores["acc"]) == 39


def test_a_folder_of_tasks_is_run_and_listed(tmp_path, tiny_folder):
    folder = tmp_path / "tasks"
    folder.mkdir()
    (folder / "mine.yaml").write_text(
        "task: mine\nclass: !function attnbench.backends.classification.Classify\n"
        "custom_dataset: !function attnbench.pocket.text.documents\ndataset_kwargs: {task: sentiment}\n"
        "validation_split: validation\ndoc_to_text: text\ndoc_to_target: label\n"
        "doc_to_choice: [negative, positive]\nmetric_list: [{metric: mcc}]\n"
        "metadata: {description: my words}\n"
    )
    found = attnbench.run(
        tiny_folder, "", "mine", limit=30, include_path=str(folder), records=str(tmp_path / "records")
    )
    assert {item.status for item in found.records} == {"measured"}
    assert found.records[0].metrics["mcc"]["aggregate"] == "mcc"
    assert "mcc" in found.table()
    assert any("my words" in line for line in listing.task_lines(str(folder)))
    with pytest.raises(UserError, match="tasks folder 'nowhere' is not a folder"):
        attnbench.run(tiny_folder, "", "mine", include_path="nowhere", records=str(tmp_path / "records"))


def test_the_columns_that_the_help_names_are_those_there_are():
    assert all(name in " ".join(listing.task_lines()) for name in own_data.COLUMNS)
