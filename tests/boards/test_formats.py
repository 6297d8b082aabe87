"""Boards for other programs: each format as its own reader, schema or library takes it."""

from __future__ import annotations

import json
from pathlib import Path

import datasets
import jsonschema
import numpy as np
import pytest
import yaml
from sample_records import board as sample
from sample_records import missing, record, right

from attnbench.boards import board
from attnbench.boards.formats import eee, lm_eval, parquet
from attnbench.cli.main import main
from attnbench.records.record import write

SCHEMA = json.loads((Path(__file__).parent / "eee" / "eval.schema.json").read_text("utf-8"))
HOSTILE = ["a|b", "x\ny", "<script>", "../../etc", "..", "con:", "n" * 300, "é\u202e\x00x", "data"]


def made():
    """Return a board with every kind of row, and a model of the Hub by several metrics."""
    items = sample()
    rng = np.random.default_rng(0)
    pairs = np.stack([-rng.uniform(1, 30, 200), np.full(200, 9.0)], 1)
    for method in ("dense", "prune80:random"):
        items.append(record(method, "bert-base", "wikitext", "perplexity", word_perplexity=pairs))
        items.append(record(method, "bert-base", "stsb", "pearson", pearson=rng.normal(size=(60, 2))))
        for item in items[-2:]:
            item.provenance = {
                "source": "hub", "model": "google-bert/bert-base-uncased", "identity": "f" * 64,
                "fingerprints": {"checkpoint": "a" * 64, "task": "b" * 64},
            }  # fmt: skip
    return board.build(items)


def logs(found):
    return {path: json.loads(text) for path, text in eee.files(found, "x").items()}


def test_every_eval_ever_takes_every_number_by_its_schema():
    found = logs(made())
    validator = jsonschema.Draft7Validator(SCHEMA)
    for path, log in found.items():
        assert not list(validator.iter_errors(log)), path
        assert log["schema_version"] == SCHEMA["version"] == eee.SCHEMA
    numbers = {
        (log["model_info"]["id"], each["evaluation_name"], each["metric_config"]["metric_name"]): each
        for log in found.values() for each in log["evaluation_results"]
    }  # fmt: skip
    assert len(numbers) == 9 + 4  # nine of the sample board have a number
    dense = numbers["google-bert/bert-base-uncased", "wikitext", "word_perplexity"]["metric_config"]
    assert dense["lower_is_better"] and dense["max_score"] == "Infinity"
    assert numbers["google-bert/bert-base-uncased", "stsb", "pearson"]["metric_config"]["min_score"] == -1
    worse = numbers["local/tiny+prune95", "sst2", "acc"]["score_details"]
    assert worse["score"] == 0.88 and worse["uncertainty"]["num_samples"] == 1000
    assert worse["details"]["verdict"] == "worse" and float(worse["details"]["to_dense_difference"]) == -0.04


def test_a_score_with_a_method_is_no_model_s_own():
    for log in logs(made()).values():
        told = log["model_info"]
        assert (told["id"] == told["additional_details"]["base_model"]) == (
            told["additional_details"]["method"] == "dense"
        )


def test_a_cell_keeps_its_file_and_no_two_share_one():
    first, again = logs(made()), logs(made())
    assert list(first) == list(again)
    assert len({Path(path).name for path in first}) == len(first)


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("format", [eee, lm_eval, parquet], ids=lambda each: each.__name__.split(".")[-1])
def test_hostile_names_stay_within_the_folder(format, name, tmp_path):
    items = [record(method, name, name, **{name: right(50, 9)}) for method in ("dense", "prune80")]
    found = format.files(board.build([*items, missing(name, "failed", name, name, name)]), "x")
    assert found
    for path, content in found.items():
        assert (tmp_path / path).resolve().is_relative_to(tmp_path.resolve())
        assert path.isascii() and path.isprintable() and not set(path) & set('<>:"|?*\\')
        if format is eee:
            jsonschema.validate(json.loads(content), SCHEMA)
        elif format is lm_eval:
            assert json.loads(content)["results"]


def test_load_dataset_reads_the_table(tmp_path):
    found = made()
    for path, content in parquet.files(found, "x").items():
        (tmp_path / Path(path).name).write_bytes(content)
    table = datasets.load_dataset(
        "parquet",
        data_files=str(tmp_path / "results.parquet"),
        cache_dir=str(tmp_path / "cache"),
        split="train",
    )
    assert table.column_names == list(parquet.COLUMNS)
    lines = {(line["model"], line["task"], line["method"], line["metric"]): line for line in table}
    assert len(lines) == len(table) == len(found.records)
    worse = lines["tiny", "sst2", "prune95", "acc"]
    assert (worse["score"], worse["verdict"], worse["samples"]) == (0.88, "worse", 1000)
    assert worse["difference"] == pytest.approx(-0.04)
    assert worse["low"] < worse["difference"] < worse["high"] < 0
    failed = lines["tiny", "sst2", "heads50:l1", None]
    assert failed["status"] == "failed" and "same l1 norm" in failed["error"] and failed["score"] is None
    draws = [lines["tiny", "sst2", f"prune80:random{seed}", "acc"] for seed in ("", ":seed=1", ":seed=2")]
    assert {line["seeds"] for line in draws} == {3} and len({line["difference"] for line in draws}) == 1
    assert [line["score"] for line in draws] == [0.86, 0.84, 0.82]


def test_the_card_is_one_that_the_hub_reads():
    text = parquet.files(made(), "x")["x-parquet/README.md"].decode()
    _, head, body = text.split("---\n", 2)
    told = yaml.safe_load(head)
    assert told["license"] == "cc0-1.0" and told["configs"][0]["data_files"][0]["path"] == "results.parquet"
    assert all(f"| `{name}` |" in body for name in parquet.COLUMNS)


def test_a_record_that_contradicts_its_samples_has_no_number_anywhere():
    items = sample()
    items[2].metrics["acc"]["value"] = 0.99
    found = board.build(items)
    assert not any("prune95" in path for path in [*eee.files(found, "x"), *lm_eval.files(found, "x")])


def test_lm_eval_tabulates_what_is_written_as_its_own():
    from lm_eval.utils import make_table

    found = lm_eval.files(made(), "x")
    (path,) = (path for path in found if "bert-base-uncased/" in path)
    read = json.loads(found[path])
    assert read["config"]["model_args"] == "pretrained=google-bert/bert-base-uncased,method=dense"
    assert read["n-samples"]["stsb"] == {"original": 60, "effective": 60} and read["n-shot"] == {}
    read["n-shot"] = dict.fromkeys(read["results"], 0)
    table = make_table(read)
    value = read["results"]["wikitext"]["word_perplexity,none"]
    assert "|word_perplexity|↓  |" in table.replace(" ", "").replace("↓", "↓  ") and f"{value:.4f}" in table
    assert f"{read['results']['stsb']['pearson_stderr,none']:.4f}" in table


def test_the_command_writes_each_format_into_its_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for item in sample():
        write("records", item)
    command = ["leaderboard", "--records", "records", "--format", "eee,lm-eval,parquet"]
    assert main(command) == 2 and "need --output DIR" in capsys.readouterr().err
    assert main([*command, "--output", "out"]) == 0
    files = {path.relative_to("out").parts[0] for path in Path("out").rglob("*") if path.is_file()}
    assert files == {"leaderboard-eee", "leaderboard-lm-eval", "leaderboard-parquet"}
