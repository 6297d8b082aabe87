"""Files of contexts, questions and answers: what is asked, how many tokens are written, what is right."""

from __future__ import annotations

import csv
import json

import pyarrow
import pyarrow.parquet
import pytest
import tiny_causal
from transformers import AutoModelForCausalLM, AutoTokenizer

from attnbench.backends import lm_eval
from attnbench.backends.causal import columns
from attnbench.cli.main import main
from attnbench.errors import UserError
from attnbench.inputs.models import Checkpoint
from attnbench.inputs.settings import Settings

ROWS = [
    {
        "context": " ".join(f"w{(3 * k + first) % 40}" for k in range(12)), "question": f" w{first}",
        "answer_prefix": "w1 w2", "answer": [f"w{k}" for k in range(first, first + 9)],
        "max_new_tokens": first + 1, "task": "passed over",
    }
    for first in range(4)
]  # fmt: skip


def _written(folder, ending, rows=ROWS):
    path = folder / f"asked.{ending}"
    if ending == "jsonl":
        path.write_text("\n".join(map(json.dumps, rows)))
    elif ending == "parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    else:
        with path.open("w", newline="") as handle:
            writer = csv.DictWriter(handle, rows[0])
            writer.writeheader()
            writer.writerows(rows)
    return str(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("five") / "tiny"
    tiny_causal.build(place, "llama", positions=64)
    return place


@pytest.mark.parametrize("ending", ["jsonl", "csv", "parquet"])
def test_what_is_written_is_that_of_the_plain_model(ending, folder, tmp_path):
    prepared = lm_eval.prepare(
        _written(tmp_path, ending), Checkpoint("tiny", str(folder), "folder"), Settings()
    )
    assert prepared.file.name == "asked" and prepared.file.head == "causal-lm"
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    found = prepared.evaluate(model)
    assert list(found.metrics) == ["string_match_all", "string_match_part"]
    for number, (row, request) in enumerate(zip(ROWS, prepared.task.instances, strict=True)):
        prompt = f"{row['context']}{row['question']}\n{row['answer_prefix']}"
        assert request.args[0] == prompt
        ids = tokenizer(prompt, return_tensors="pt")["input_ids"]
        made = model.generate(ids, max_new_tokens=row["max_new_tokens"], do_sample=False)
        said = tokenizer.decode(made[0, ids.shape[1] :], skip_special_tokens=True)
        assert request.resps[0] == said
        there = [answer in said for answer in row["answer"]]
        assert found.scores["string_match_all"][number] == pytest.approx(sum(there) / len(there))
        assert found.scores["string_match_part"][number] == any(there)
    assert len({request.args[1]["max_gen_toks"] for request in prepared.task.instances}) == 4
    assert prepared.task.settings["context"] == "context" and prepared.task.settings["question"] == "question"


@pytest.mark.parametrize(
    ("answers", "said", "whole", "part"),
    [
        (["Oslo", "Rome"], "in oslo.", 0.5, 1),
        (["Oslo", "Rome"], "ROME\x07and OSLO", 1, 1),
        (["Oslo"], "os lo", 0, 0),
        (["a b"], "a\x00b", 0, 0),  # what cannot be printed ends a line
        (["1", "2", "3"], "12", 2 / 3, 1),
    ],
)
def test_answers_are_found_in_any_case(answers, said, whole, part):
    found = columns.scores({"answer": answers}, [said])
    assert found == pytest.approx({"string_match_all": whole, "string_match_part": part})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"question": None}, "line 1: no column 'question'. It has context, answer_prefix, answer"),
        ({"context": None, "contexts": "w1"}, "line 1: no column 'context'. .*Did you mean contexts"),
        ({"question": "  "}, "line 1: question is ' '"),
        ({"question": ""}, "line 1: question is empty"),
        ({"context": 3}, "line 1: context is 3"),
        ({"answer": []}, "line 1: answer is empty"),
        ({"answer": ["w1", " "]}, "line 1: answer is empty"),
        ({"answer": "[w1"}, "line 1: answer is '.w1', no list"),
        ({"max_new_tokens": 0}, "line 1: max_new_tokens is 0, no whole number of at least 1"),
        ({"max_new_tokens": "ten"}, "line 1: max_new_tokens is 'ten', no whole"),
    ],
)
def test_a_mistake_is_named_with_its_place(changes, message, tmp_path):
    row = {key: value for key, value in {**ROWS[0], **changes}.items() if value is not None}
    with pytest.raises(UserError, match=f"asked.jsonl, {message}"):
        columns.read(_written(tmp_path, "jsonl", [row]))


@pytest.mark.parametrize("answer", ["w1", ["w1"], "['w1']", '["w1"]'])
def test_one_answer_is_a_list_of_one(answer, tmp_path):
    (found,) = columns.read(_written(tmp_path, "csv", [{**ROWS[0], "answer": answer, "answer_prefix": ""}]))
    assert found["answer"] == ["w1"] and found["answer_prefix"] == ""


def test_a_long_context_is_read(tmp_path):
    long = "w1 " * 100_000
    (found,) = columns.read(_written(tmp_path, "csv", [{**ROWS[0], "context": long}]))
    assert found["context"] == long


@pytest.mark.parametrize("ending", ["jsonl", "csv", "parquet"])
def test_what_is_no_such_file_is_one_line(ending, tmp_path):
    path = tmp_path / f"asked.{ending}"
    path.write_bytes(b"\xff\xfe{")
    with pytest.raises(UserError, match=rf"asked\.{ending}.*(not UTF-8|cannot be read)"):
        columns.read(str(path))
    with pytest.raises(UserError, match="cannot be read"):
        columns.read(str(tmp_path / f"nowhere.{ending}"))


def test_a_run_takes_the_file(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = _written(tmp_path, "jsonl")
    asked = ["--models", str(folder), "--tasks", path, "--methods", "evict50:h2o", "--records", "r"]
    assert main(["run", *asked]) == 0
    said = capsys.readouterr().out
    assert "string_match_all" in said and "evict50:h2o" in said and "failed" not in said


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("{head}\na text, and more,why,is,w1,3\n", "line 2: 6 fields, the header has 5"),  # would be shifted
        ("{head}\na text,why,is\n", "line 2: 3 fields, the header has 5"),
        ('{head}\n"a text,why,is,w1,3\n', "line 2: a quote is never closed"),
        ("{head},context\na text,why,is,w1,3,another\n", "line 1: column 'context' stands there twice"),
    ],
)
def test_a_csv_whose_columns_are_not_sure_is_refused(content, told, tmp_path):
    path = tmp_path / "asked.csv"
    path.write_text(content.format(head=",".join(columns.COLUMNS)))
    with pytest.raises(UserError, match=told):
        columns.read(str(path))
