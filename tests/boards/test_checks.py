"""Checks of a folder of records, and of what is rendered from them: a fault is one line."""

from __future__ import annotations

import json
import re
import shutil

import numpy as np
import pytest
from sample_records import identify, missing, record, right

from attnbench.boards import checks
from attnbench.cli.main import main
from attnbench.records import record as records

SUITE = (
    'models = ["tiny"]\ntasks = ["sst2"]\nmethods = ["prune80", "prune80:random"]\nrepeats = 2\nlimit = 100\n'
)


def good():
    wrong = {"dense": 5, "uniform": 40, "prune80": 9, "prune80:random": 20, "prune80:random:seed=1": 22}
    items = [record(method, acc=right(100, count)) for method, count in wrong.items()]
    for item in items:
        dense = item.cell["method"] == "dense"
        item.settings |= {"limit": 100, "calibration": None}
        item.receipt = {
            "sites_expected": 0 if dense else 2, "sites_hit": 0 if dense else 2,
            "changed": 0.0 if dense else 0.5, "effect": "no effect" if dense else "applied",
        }  # fmt: skip
        item.provenance = {"fingerprints": {}, "code": "0" * 64, "command": "attnbench run boards/small.toml"}
        identify(item)
    return {item.cell["method"]: item for item in items}


@pytest.fixture
def folder(tmp_path):
    for item in good().values():
        records.write(tmp_path / "records" / "small", item)
    (tmp_path / "small.toml").write_text(SUITE, encoding="utf-8")
    return tmp_path / "records" / "small"


def test_nothing_is_wrong_with_good_records(folder, capsys):
    assert list(checks.problems(folder)) == []
    assert main(["leaderboard", "--check", "--records", str(folder)]) == 0
    assert capsys.readouterr().out == "nothing wrong\n"


def changed(key, value):
    def change(item):
        setattr(item, key, {**getattr(item, key), **value} if isinstance(value, dict) else value)

    return change


def metric(**values):
    def change(item):
        item.metrics["acc"].update(values)
        if values.get("higher_is_better", True) is None:
            del item.metrics["acc"]["higher_is_better"]

    return change


FAULTS = {
    "schema 2, this version reads 1": changed("schema", 2),
    "status": changed("status", "done"),
    "cell has the unknown extra": changed("cell", {"extra": "x"}),
    "another file name": changed("cell", {"model": "../../etc"}),
    "cell model is 3, not a text": changed("cell", {"model": 3}),
    "has no identity": changed("provenance", {"identity": None}),
    "has an error": changed("error", "but"),
    "then it has an error and no metric": changed("status", "failed"),
    "date 'today' is not one": changed("date", "today"),
    "acc is 0.5 in the record but 0.91 by its samples": changed("metrics", {"acc": {"value": 0.5}}),
    "NaN is no number of JSON": changed("measured", {"sparsity": float("nan")}),
    "metrics is ['acc'], not a table": changed("metrics", ["acc"]),
    "receipt: 1 of 2 sites": changed("receipt", {"sites_hit": 1}),
    "receipt: 0 of 0 sites": changed("receipt", {"sites_hit": 0, "sites_expected": 0}),
    "receipt changed is 1.5, not a number from 0 to 1": changed("receipt", {"changed": 1.5}),
    "acc: standard error 0.0001 in the record but 0.0287623 by its samples": metric(stderr=1e-4),
    "acc: standard error None in the record but 0.0287623": metric(stderr=None),
    "acc is 'mean', higher_is_better False; in 4 others of sst2 it is 'mean', higher_is_better True": metric(
        higher_is_better=False
    ),
    "acc: higher_is_better is None": metric(higher_is_better=None),
    "metrics acc aggregate is 'median', not one of mean": metric(aggregate="median"),
    "acc is of shape (100,), which is not what 'mcc' is computed from": metric(aggregate="mcc"),
    "receipt: says applied where 0%": changed("receipt", {"changed": 0.0}),
    "100 samples with a limit of 50": changed("settings", {"limit": 50}),
    "identity is of other settings": changed("settings", {"dtype": "bfloat16"}),
    "identity is of other": changed("provenance", {"fingerprints": {"checkpoint": "1" * 64}}),
    "or of older numerics": changed("provenance", {"identity": "1" * 64}),
}


def test_what_only_trains_the_weights_has_no_sites(folder):
    for spec, fault in {"finetune50": False, "finetune50+prune80": True}.items():
        item = good()["prune80"]
        item.cell["method"] = spec
        item.receipt |= {"sites_hit": 0, "sites_expected": 0}
        records.write(folder, item)
        found = [line for line in checks.problems(folder) if "receipt: 0 of 0 sites" in line]
        assert bool(found) == fault


@pytest.mark.parametrize("words", FAULTS)
def test_a_fault_is_named(folder, words):
    item = good()["prune80"]
    FAULTS[words](item)
    if "identity" not in words and "numerics" not in words:
        identify(item)
    path = folder / "tiny" / "sst2" / "prune80.json"
    body = json.loads(path.read_text(encoding="utf-8"))
    arrays = body["provenance"]["arrays"]
    body |= {key: getattr(item, key) for key in body}
    body["provenance"]["arrays"] = arrays
    path.write_text(json.dumps(body), encoding="utf-8")
    found = list(checks.problems(folder))
    assert len(found) == 1 and words in found[0] and "\n" not in found[0]
    assert found[0].startswith("tiny/sst2/prune80.json: ")


def test_arrays_are_checked(folder):
    place = folder / "tiny" / "sst2"
    for name, scores in {
        "prune80": {"doc_id": np.zeros(100, int), "acc": right(100, 9)},
        "prune80:random": {"doc_id": np.arange(100)},
        "uniform": {"doc_id": np.arange(99), "acc": right(99, 40)},
    }.items():
        item = good()[name]
        item.scores = scores
        if name == "uniform":
            item.metrics["acc"]["value"] = 59 / 99
        records.write(folder, item)
    (place / "prune50.npz").write_bytes(b"")
    (place / "dense.npz").write_bytes(b"damaged")
    (place / ".dense-1.json.part").touch()
    (place / "dense.json.damaged").touch()
    (place / "prune80,random,seed=1.json").write_bytes(b" " * (1 << 21))
    found = "\n".join(checks.problems(folder))
    for line in ("prune80.json: doc_id: every sample once", "random.json: acc: not one finite score a sample",
                 "prune50.npz: arrays without a record", ".part: no record, left over",
                 "dense.json.damaged: a damaged record that a run has set aside: delete it", "dense.json: ",
                 "seed=1.json: 2,097,152 bytes, at most"):  # fmt: skip
        assert line in found, line


def test_a_record_in_two_places_and_of_other_samples_is_named(folder):
    (folder / "tiny" / "sst2" / "deeper").mkdir()
    item = good()["prune80"]
    records.write(folder, item)
    for suffix in (".json", ".npz"):
        file = folder / "tiny" / "sst2" / f"prune80{suffix}"
        (folder / "tiny" / "sst2" / f"copy{suffix}").write_bytes(file.read_bytes())
    item = good()["uniform"]
    item.scores["doc_id"] = np.arange(1, 101)
    records.write(folder, item)
    found = list(checks.problems(folder))
    assert any("copy.json: holds the cell 'tiny sst2 prune80'" in line for line in found)
    assert any("not measured on the same samples" in line for line in found)


def test_records_are_held_against_their_suite(folder):
    from attnbench.boards import suite

    records.write(folder, record("prune50", acc=right(100, 5)))
    item = good()["prune80"]
    item.settings["limit"] = None
    item.provenance["command"] = "attnbench run small.toml --models /home/me/tiny"
    records.write(folder, item)
    found = "\n".join(checks.problems(folder, suite.load(folder.parent.parent / "small.toml")))
    assert "prune50.json: is no cell of small.toml" in found
    assert "prune80.json: measured with limit None, small.toml says 100" in found
    assert "prune80.json: its command names a path of one machine" in found


def test_a_suite_is_expanded_once_however_many_records_there_are(folder, monkeypatch):
    from attnbench.boards import suite

    found, calls, specs = suite.load(folder.parent.parent / "small.toml"), [], suite.Suite.specs
    monkeypatch.setattr(suite.Suite, "specs", lambda *given: calls.append(given) or specs(*given))
    counts = []
    for _ in range(2):
        assert not list(checks.problems(folder, found))
        counts.append(len(calls))
        calls.clear()
        for left_out in folder.glob("*/*/prune*"):
            left_out.unlink()
    assert counts[0] == counts[1] > 0


def test_check_says_what_is_stale(folder, capsys):
    home = folder.parent.parent
    path = str(home / "small.toml")
    assert main(["leaderboard", path, "--check"]) == 1
    assert "small.md: not rendered. attnbench leaderboard" in capsys.readouterr().out
    assert main(["leaderboard", path, "--output", str(home)]) == 0
    assert "small.md" in capsys.readouterr().err
    assert main(["leaderboard", path, "--output", str(home), "--format", "latex"]) == 0
    assert capsys.readouterr() == ("", f"written to {home}: small.tex\n")
    assert {"small.md", "small.csv", "small.tex"} <= {file.name for file in home.iterdir()}
    assert main(["leaderboard", path, "--check"]) == 0
    item = good()["prune80"]
    other = record("prune80", acc=right(100, 12))
    item.scores, item.metrics = other.scores, other.metrics
    records.write(folder, item)
    capsys.readouterr()
    assert main(["leaderboard", path, "--check"]) == 1
    found = capsys.readouterr().out.splitlines()
    assert [re.search(r"small\.\w+", line.partition(":")[0]).group() for line in found] == [
        "small.md", "small.csv", "small.tex"
    ]  # fmt: skip
    assert found[2].endswith("--format latex")


def _rendered(folder, home):
    for method, sparsity in (("prune80", 0.8), ("prune80:random", 0.7), ("prune80:random:seed=1", 0.7)):
        item = good()[method]
        item.measured = {"sparsity": sparsity}
        records.write(folder, item)
    assert main(["leaderboard", str(home / "small.toml"), "--output", str(home)]) == 0
    assert main(["leaderboard", str(home / "small.toml"), "--check"]) == 0


def test_what_was_rendered_and_removed_is_missed(folder, capsys):
    home = folder.parent.parent
    _rendered(folder, home)
    (picture,) = (home / "small").glob("kept-sparsity.png")
    picture.unlink()
    capsys.readouterr()
    assert main(["leaderboard", str(home / "small.toml"), "--check"]) == 1
    assert "kept-sparsity.png: not rendered. attnbench leaderboard" in capsys.readouterr().out
    drawn = len(list((home / "small").iterdir())) + 1
    shutil.rmtree(home / "small")
    (home / "small.csv").unlink()
    assert main(["leaderboard", str(home / "small.toml"), "--check"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == drawn + 1 and all("not rendered. attnbench leaderboard" in line for line in lines)
    assert lines[0].startswith(str(home / "small.csv"))


def test_a_perplexity_is_lower_where_it_is_better(tmp_path):
    scores = np.stack([-np.arange(1.0, 9), np.full(8, 3.0)], 1)
    items = [record(method, kind="perplexity", ppl=scores) for method in ("dense", "prune80")]
    for item in items:
        item.metrics["ppl"]["higher_is_better"] = True
        identify(item)
        records.write(tmp_path, item)
    found = [line for line in checks.problems(tmp_path) if "higher_is_better" in line]
    assert len(found) == 2 and "is True of a metric computed as 'perplexity'" in found[0]


def test_a_cell_that_is_not_applicable_needs_no_identity(folder):
    item = missing("prune50", "not applicable", "no cross attention")
    item.date = "2026-11-20T10:00:00+00:00"
    records.write(folder, item)
    assert list(checks.problems(folder)) == []


@pytest.mark.parametrize(
    "name, begins",
    [
        ("x.csv", "model,task"),
        ("x.HTML", "<!doctype"),
        ("x.tex", "% needs"),
        ("x.txt", "Models"),
        ("x.md", "#"),
    ],
)
def test_a_file_is_of_the_format_that_its_name_ends_with(folder, tmp_path, capsys, name, begins):
    path = tmp_path / "out" / name
    assert main(["leaderboard", "--records", str(folder), "--output", str(path)]) == 0
    assert path.read_text(encoding="utf-8").startswith(begins)
    assert capsys.readouterr() == ("", f"written to {path}\n")


@pytest.mark.parametrize(
    "arguments, words",
    [
        (
            ["--output", "x.csv", "--format", "html"],
            "--output x.csv is for csv, --format says html. Leave one",
        ),
        (["--output", "x.pdf"], "--output x.pdf: its ending tells no format: .md, .html, .csv, .tex, .txt."),
        (["--output", "x.csv", "--format", "csv,plots"], "several files and plots, eee, parquet"),
        (["--output", "x.svg", "--format", "plots"], "several files and plots, eee, parquet"),
    ],
)
def test_a_file_that_cannot_be_of_its_format_is_refused(
    folder, tmp_path, monkeypatch, capsys, arguments, words
):
    monkeypatch.chdir(tmp_path)
    assert main(["leaderboard", "--records", str(folder), *arguments]) == 2
    assert words in capsys.readouterr().err
    assert not list(tmp_path.glob("x.*"))
    assert main(["leaderboard", "--records", str(folder), "--output", "x.dat", "--format", "csv"]) == 0
    assert (tmp_path / "x.dat").read_text(encoding="utf-8").startswith("model,task")


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--check"], "no such folder"),
        (["--format", "xls"], "unknown format 'xls'"),
        (["none.toml"], "none.toml"),
        (["a.toml", "b.toml", "--records", "x"], "each suite has its own folder"),
    ],
)
def test_mistakes_are_one_line(arguments, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["leaderboard", *arguments]) == 2
    assert words in capsys.readouterr().err
