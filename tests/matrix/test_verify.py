"""`attnbench verify`: a record held against its cell measured again, and where its files are to be found."""

from __future__ import annotations

import csv
import json

import pytest
import tiny_tasks
from sample_records import record, right

import attnbench
from attnbench.cli.main import main
from attnbench.pocket.text import documents
from attnbench.records import record as records

DATA = """
def documents(split):
    first = 0 if split == "validation" else 40
    return [{"sentence": f"w{k} w{k % 7}", "label": k % 2} for k in range(first, first + 12)]
"""
MADE = {
    "class": "!function attnbench.backends.classification.Classify",
    "custom_dataset": "!function made_up.documents",
    "validation_split": "validation",
    "doc_to_text": "sentence",
    "doc_to_target": "label",
    "doc_to_choice": '["no", "yes"]',
    "metric_list": "[{metric: acc}]",
    "metadata": "{calibration: {split: train, samples: 8}}",
}


def _write(path, split, first, count=24):
    docs = documents("sentiment", split, first + count)[first:]
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("text", "label"), *((doc["text"], doc["label"]) for doc in docs)])
    return str(path)


def test_verify_measures_a_record_again(tmp_path, capsys):
    suite = tmp_path / "s.toml"
    suite.write_text(
        'models = ["pocket-bert"]\ntasks = ["pocket-sentiment"]\n'
        'methods = ["prune80:random", "heads10:random", "logquant3:on=cross"]\nrepeats = 1\nlimit = 24\n',
        encoding="utf-8",
    )
    assert main(["run", str(suite)]) == 0
    place = tmp_path / "records" / "s" / "pocket-bert" / "pocket-sentiment"
    capsys.readouterr()
    assert main(["verify", str(place / "prune80,random.json"), "--sample", "16"]) == 0
    assert "16 samples" in capsys.readouterr().out
    assert main(["verify", str(place / "logquant3,on=cross.json")]) == 0
    assert "recorded as not applicable, now not applicable" in capsys.readouterr().out
    item = records.read(place / "prune80,random.json")
    item.scores["acc"] = 1 - item.scores["acc"]
    item.metrics["acc"]["value"] = 1 - item.metrics["acc"]["value"]
    item.provenance["fingerprints"]["checkpoint"] = "0" * 64
    item.provenance["code"] = "0" * 64
    path = records.write(tmp_path / "forged", item)
    assert main(["verify", str(path)]) == 1
    out = capsys.readouterr().out
    assert "24 differ: DISAGREES" in out and "weights are others" in out and "code has changed" in out


def test_verify_names_mistakes(tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("ATTNBENCH_MODELS", raising=False)
    assert main(["verify", str(tmp_path / "none.json")]) == 2
    item = record("prune80", acc=right(10, 1))
    item.provenance = {"source": "folder"}
    path = records.write(tmp_path, item)
    assert main(["verify", str(path)]) == 2
    assert "--model PATH/tiny" in capsys.readouterr().err
    path.write_text(json.dumps({"schema": 3}), encoding="utf-8")
    assert main(["verify", str(path)]) == 2
    assert "schema 3" in capsys.readouterr().err


def _verify(capsys, *arguments):
    status = main(["verify", *map(str, arguments)])
    told = capsys.readouterr()
    return status, told.out + told.err


def test_own_data_are_found_where_the_user_says(tmp_path, tiny_folder, capsys):
    folder = tmp_path / "records"
    mine = _write(tmp_path / "mine.csv", "validation", 0)
    learned = _write(tmp_path / "learn.csv", "train", 0)
    attnbench.run(
        tiny_folder, ["heads50:entropy"], mine, records=str(folder), calibration=learned, repeats=1, limit=20
    )
    path = folder / "tiny" / "mine" / "heads50,entropy.json"
    model = ("--model", tiny_folder, "--sample", 8)
    status, told = _verify(capsys, path, *model)
    assert status == 2 and f"attnbench verify {path} --calibration PATH/learn.csv" in told
    learned = ("--calibration", learned)
    status, told = _verify(capsys, path, *model, *learned)
    assert status == 2 and f"attnbench verify {path} --task PATH/mine.csv" in told
    assert told.count("\n") == 1
    status, told = _verify(capsys, path, *model, *learned, "--task", mine)
    assert status == 0 and "on the same 8 samples" in told and "agrees" in told
    (tmp_path / "moved").mkdir()
    status, told = _verify(
        capsys, path, *model, *learned, "--task", _write(tmp_path / "moved/m.csv", "validation", 0)
    )
    assert status == 0, told
    other = _write(tmp_path / "moved" / "mine.csv", "validation", 30)
    status, told = _verify(capsys, path, *model, *learned, "--task", other)
    assert status == 2 and f"'{other}' is not what was measured" in told
    learned = ("--calibration", _write(tmp_path / "moved" / "learn.csv", "train", 40))
    status, told = _verify(capsys, path, *model, *learned, "--task", mine)
    assert status == 1 and "the method has learned from others" in told


@pytest.fixture
def made(tmp_path):
    """A task of the user's own in a folder, and a model that fits it."""
    (tmp_path / "tasks").mkdir()
    tiny_tasks.checkpoint(tmp_path / "tiny")
    return tiny_tasks.write(tmp_path / "tasks", DATA, MADE), str(tmp_path / "tiny")


def test_tasks_of_a_users_folder(made, tmp_path, capsys):
    folder, model = made
    place = tmp_path / "records"
    attnbench.run(model, ["prune50"], "made", include_path=folder, records=str(place))
    path = place / "tiny" / "made" / "prune50.json"
    status, told = _verify(capsys, path, "--model", model)
    assert status == 2 and f"attnbench verify {path} --task PATH/made.csv (or .jsonl, .yaml)" in told
    for found in (("--include-path", folder), ("--task", f"{folder}/made.yaml")):
        status, told = _verify(capsys, path, "--model", model, *found)
        assert status == 0 and "agrees" in told
    status, told = _verify(capsys, path, "--model", model, "--include-path", tmp_path / "none")
    assert status == 2 and "is not a folder" in told
    tiny_tasks.write(tmp_path / "tasks", DATA, {**MADE, "validation_split": "other"})
    status, told = _verify(capsys, path, "--model", model, "--include-path", folder)
    assert status == 2 and "'made' is not what was measured" in told


def test_heads_and_export_take_a_users_folder(made, tmp_path, capsys):
    folder, model = made
    scored = [
        "heads",
        "--models",
        model,
        "--tasks",
        "made",
        "--by",
        "entropy",
        "--output",
        str(tmp_path / "h"),
        "--records",
        str(tmp_path / "looks"),
    ]
    assert main(scored) == 2
    assert "unknown task 'made'" in capsys.readouterr().err
    assert main([*scored, "--include-path", folder]) == 0
    assert "tiny on made: heads by importance" in capsys.readouterr().out
    smaller = ["export", "--model", model, "--task", "made", "--method", "heads50:entropy"]
    assert main([*smaller, str(tmp_path / "small"), "--include-path", folder]) == 0
    assert f"--task made --include-path {folder}" in capsys.readouterr().err
    assert json.loads((tmp_path / "small" / "attnbench.json").read_text())["task"] == "made"


def test_a_file_that_is_not_there_is_said(tmp_path, capsys):
    path = str(tmp_path / "nosuch.json")
    assert main(["verify", path]) == 2
    assert capsys.readouterr().err.startswith(f"attnbench: {path}: no such file. Give the file of a record")
    assert main(["verify", str(tmp_path)]) == 2
    assert "cannot be read: Is a directory" in capsys.readouterr().err


def test_a_record_of_a_plugin_names_its_file(tmp_path, capsys):
    item = record("top-k4", acc=right(20, 3))
    for plugins, says in (
        (
            ["topk.py (TopK)"],
            "'top-k4' is a method of topk.py (TopK), not loaded here: add --plugin PATH/topk.py",
        ),
        (["attnbench 0.1.0 (attnbench_plugins.gone)"], "unknown method 'top-k'."),
    ):
        item.provenance["plugins"] = plugins
        path = records.write(tmp_path, item)
        assert main(["verify", str(path)]) == 2
        assert says in capsys.readouterr().err


@pytest.fixture
def opened(monkeypatch):
    """List the files that are opened from here on."""
    import sys

    found, listening = [], [True]

    def hear(event, arguments):
        if listening[0] and event == "open":
            found.append(str(arguments[0]))

    sys.addaudithook(hear)
    yield found
    listening[0] = False


TRAP = 'import pathlib\npathlib.Path(__file__).with_suffix(".ran").touch()\n'


@pytest.mark.parametrize(
    ("method", "task", "calibration", "model", "told"),
    [
        ("scaled:file={trap}/secret", "pocket-sentiment", None, "pocket-bert", "--file {trap}/secret"),
        ("scaled:file=secret", "pocket-sentiment", None, "pocket-bert", "--file secret"),
        ("prune80", "{trap}/evil.yaml", None, "pocket-bert", "--task PATH/"),
        ("prune80", "secret.csv", None, "pocket-bert", "--task PATH/"),
        (
            "heads50:entropy",
            "pocket-sentiment",
            "{trap}/secret.csv",
            "pocket-bert",
            "--calibration PATH/secret.csv",
        ),
        ("heads50:entropy", "pocket-sentiment", "secret.csv", "pocket-bert", "--calibration PATH/secret.csv"),
        ("heads50:entropy", "pocket-sentiment", "trap:train", "pocket-bert", "--calibration PATH/"),
        ("prune80", "pocket-sentiment", None, "{trap}/model", "--model PATH/"),
        ("prune80", "pocket-sentiment", None, "./trap", "--model PATH/"),
    ],
)
def test_nothing_that_only_a_record_names_is_opened(
    method, task, calibration, model, told, tmp_path, capsys, monkeypatch, scaled, opened
):
    monkeypatch.chdir(tmp_path)
    trap = tmp_path / "trap"
    (trap / "model").mkdir(parents=True)
    for place in (trap, tmp_path):
        for name, text in (
            ("secret", "0.5"), ("secret.csv", "text,label\na,1\n"), ("evil.py", TRAP), ("config.json", "{}"),
            ("evil.yaml", "task: evil\nclass: !function evil.Task\n"), ("model/config.json", "{}"),
        ):  # fmt: skip
            (place / name).parent.mkdir(exist_ok=True)
            (place / name).write_text(text, encoding="utf-8")
    item = record(
        method.format(trap=trap), model=model.format(trap=trap), task=task.format(trap=trap), acc=right(10, 1)
    )
    item.provenance = {"source": "folder" if "/" in model else "pocket"}
    item.settings["calibration"] = calibration and calibration.format(trap=trap)
    path = records.write(tmp_path / "r", item)
    opened.clear()
    assert main(["verify", str(path)]) == 2
    err = capsys.readouterr().err
    assert told.format(trap=trap) in err and err.count("\n") == 1
    touched = [each for each in opened if each.startswith(str(tmp_path)) and "/r/" not in each]
    assert touched == [] and not list(tmp_path.rglob("*.ran"))


def test_a_file_of_a_method_is_read_where_this_command_names_it(tmp_path, tiny_folder, scaled, capsys):
    file = tmp_path / "factor"
    file.write_text("0.5", encoding="utf-8")
    attnbench.run(
        tiny_folder, f"scaled:file={file}", "pocket-sentiment", records=str(tmp_path / "r"), limit=8
    )
    (path,) = (each for each in (tmp_path / "r").rglob("*.json") if "scaled" in each.name)
    status, told = _verify(capsys, path, "--model", tiny_folder)
    assert status == 2 and f"--file {file}" in told
    status, told = _verify(capsys, path, "--model", tiny_folder, "--file", file)
    assert status == 0 and "agrees" in told
