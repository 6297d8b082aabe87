"""`attnbench look`: what it prints and writes, that it goes on where it stopped, what each mistake says."""

from __future__ import annotations

import csv
import json
import math
import shutil

import numpy as np
import pytest

from attnbench.cli.main import main
from attnbench.inputs.settings import Settings
from attnbench.methods import spec
from attnbench.records import record
from attnbench.studies import looks
from attnbench.studies.compared import compared, page_of
from attnbench.studies.looking import look_at
from attnbench.studies.opening import Opened, head_of

TEXT = "the soup was not good"


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """One look with a method, in a folder of its own."""
    folder = tmp_path_factory.mktemp("look")
    asked = ["look", "--models", "bert", "--text", TEXT, "--methods", "prune80"]
    asked += ["--studies", "sparsity,maps1"]
    asked += ["--records", str(folder / "records"), "--output", str(folder / "out"), "--save-arrays", "1"]
    assert main(asked) == 0
    (place,) = (folder / "out" / "pocket-bert").iterdir()
    return folder, asked, place


def test_the_terminal_shows_three_numbers_a_head(written, capsys, monkeypatch):
    _, asked, _ = written
    monkeypatch.setenv("COLUMNS", "160")
    assert main(asked[:-4]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("pocket-bert · text-") and lines[0].endswith(": dense, prune80")
    (head,) = [line.split() for line in lines if line.split()[:3] == ["encoder", "0", "0"]]
    assert len(head) == 3 + 3 + 2 * 3  # dense, and each number with the method and its change
    assert head[3] == "0.000" and head[6:8] == ["0.714", "(+0.714)"]  # prune80 of 7 tokens drops 5


def test_more_heads_than_a_screen_shows_are_told_by_layer(written, capsys, monkeypatch):
    _, asked, place = written
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setattr("attnbench.cli.looking.terminal.MOST_ROWS", 15)
    with (place / "sparsity.heads.csv").open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["layer"] == "1"]
    dense, pruned = (
        [float(row["half"]) for row in rows if row["method"] == name] for name in ("dense", "prune80")
    )
    mean, after = np.mean(dense), np.mean(pruned)
    alone = asked[: asked.index("--methods")] + asked[asked.index("--studies") : -4]
    for command, told in (
        (asked[:-4], f"{after:.3f} ({after - mean:+.3f})"),
        (alone, f"{mean:.3f} ({min(dense):.3f} to {max(dense):.3f})"),
    ):
        assert main(command) == 0
        lines = capsys.readouterr().out.splitlines()
        (layer,) = [line for line in lines if line.split()[:2] == ["encoder", "1"]]
        assert layer.endswith(told)
        assert "  Means over each layer's heads; --output and --json have all 16." in lines


def test_tables_have_dense_method_and_difference(written):
    _, _, place = written
    with (place / "sparsity.heads.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {row["method"] for row in rows} == {"dense", "prune80"} and len(rows) == 2 * 16
    dense, pruned = ([row for row in rows if row["method"] == name] for name in ("dense", "prune80"))
    for one, two in zip(dense, pruned, strict=True):
        assert (one["kind"], one["layer"], one["head"]) == (two["kind"], two["layer"], two["head"])
        assert one["zeros_difference"] == ""
        assert float(two["half_difference"]) == pytest.approx(
            float(two["half"]) - float(one["half"]), abs=1e-8
        )


def test_pictures_are_there_in_both_forms(written):
    _, _, place = written
    names = {path.name for path in place.iterdir()}
    for name in ("sparsity.zeros.dense", "sparsity.half.prune80.difference", "maps1.text0.encoder.3.dense"):
        assert {f"{name}.svg", f"{name}.png"} <= names
    assert (place / "sparsity.zeros.dense.png").read_bytes().startswith(b"\x89PNG")
    assert b"<dc:date>" not in (place / "sparsity.zeros.dense.svg").read_bytes()


def test_the_page_holds_the_maps_of_both_and_says_how_right_they_are(written):
    _, _, place = written
    text = (place / "index.html").read_text(encoding="utf-8")
    assert len(text) < 10_000_000 and "pocket-bert" in text
    assert [text.count(f'id="maps-0-{method}"') for method in (0, 1, 2)] == [1, 1, 0]
    assert "in steps of 7.6 %: each is right to 3.7 %" in text


def test_heads_json_says_whose_heads_and_their_scores(written):
    _, _, place = written
    body = json.loads((place / "heads.json").read_text(encoding="utf-8"))
    assert (body["format"], body["version"], body["model"]) == ("attnbench heads", 1, "pocket-bert")
    assert len(body["fingerprint"]) == 64
    criteria = {score["criterion"] for score in body["scores"]}
    assert {"sparsity.zeros", "sparsity.diversity"} <= criteria
    one = [s for s in body["scores"] if (s["criterion"], s["method"]) == ("sparsity.zeros", "prune80")]
    assert len(one) == 16 and {s["score"] for s in one} == {5 / 7}
    assert set(one[0]) == {"criterion", "method", "kind", "layer", "head", "score"}


def test_arrays_are_what_attention_computed(written):
    _, _, place = written
    held = dict(np.load(place / "arrays" / "sample0.dense.npz"))
    pruned = dict(np.load(place / "arrays" / "sample0.prune80.npz"))
    stages = {name.partition(".")[0] for name in held} - {"tokens"}
    assert stages == {"queries", "keys", "values", "scores", "probs", "context", "hidden"}
    for layer in range(4):
        q, k, v, scores, probs, context = (
            held[f"{stage}.encoder.{layer}"].astype(float)
            for stage in ("queries", "keys", "values", "scores", "probs", "context")
        )
        np.testing.assert_allclose(scores, q @ k.transpose(0, 2, 1) / math.sqrt(q.shape[-1]), atol=1e-5)
        exps = np.exp(scores - scores.max(-1, keepdims=True))
        np.testing.assert_allclose(probs, exps / exps.sum(-1, keepdims=True), atol=1e-6)
        np.testing.assert_allclose(context, probs @ v, atol=1e-5)
        assert ((pruned[f"probs.encoder.{layer}"] == 0).sum(-1) == 5).all()
    np.testing.assert_array_equal(held["hidden.encoder.0"], pruned["hidden.encoder.0"])
    assert len(held["tokens"]) == held["probs.encoder.0"].shape[-1] == 7


def test_what_is_recorded_is_not_looked_at_again_and_readers_of_records_pass_it_by(written, monkeypatch):
    folder, asked, place = written
    records = folder / "records"
    assert [path.name for path in records.iterdir()] == [looks.FOLDER]
    assert list(record.read_all(records)) == []
    assert record.file_name(looks.FOLDER) != looks.FOLDER  # of no model
    before = (place / "sparsity.heads.csv").read_bytes()
    monkeypatch.setattr("attnbench.studies.looking.conduct", None)  # a second look would fail
    monkeypatch.setattr("attnbench.boards.pictures.looks.pictures", lambda look: [])  # seconds each
    assert main(asked[:-2]) == 0
    assert (place / "sparsity.heads.csv").read_bytes() == before
    with pytest.raises(TypeError):
        main([*asked[:-4], "--force"])
    other = [*asked[:-4]]
    other[4] = "another text"
    with pytest.raises(TypeError):
        main(other)


def test_a_record_of_a_look_is_whole_and_a_damaged_one_is_made_again(written):
    folder, _, _ = written
    paths = sorted((folder / "records" / looks.FOLDER).glob("*/*/*/*.json"))
    assert {path.parent.name for path in paths} == {"dense", "prune80"}
    for path in paths:
        kept = looks.read(path)
        assert kept.status == "measured" and kept.tables
        assert {"identity", "code", "fingerprints", "command"} <= set(kept.provenance)
        for table in kept.tables.values():
            again = looks.unpacked_table(json.loads(json.dumps(looks.packed_table(table))))
            np.testing.assert_array_equal(again.to_numpy(), table.to_numpy())
            assert again.index.equals(table.index)
    (broken,) = [path for path in paths if path.parent.name == "dense" and path.stem == "sparsity"]
    text = broken.read_text(encoding="utf-8")
    for content in ("{", "[]", text.replace('"columns"', '"column"')):
        broken.write_text(content, encoding="utf-8")
        with pytest.raises(ValueError):
            looks.read(broken)
    broken.write_text(text, encoding="utf-8")


def test_json_has_every_table(written, capsys):
    _, asked, _ = written
    assert main([*asked[:-4], "--json"]) == 0
    bodies = json.loads(capsys.readouterr().out)
    assert {(body["study"], body["method"]) for body in bodies} == {
        (study, method) for study in ("sparsity", "maps1") for method in ("dense", "prune80")
    }
    heads = next(body for body in bodies if body["study"] == "sparsity")["tables"]["heads"]
    assert heads["index"] == ["kind", "layer", "head"] and len(heads["rows"]) == 16


def test_a_page_gets_tokens_maps_and_scores(written):
    folder, _, _ = written
    opened = Opened("bert", None, [TEXT], Settings())
    look = look_at(
        opened, [spec.parse_study("sparsity")], {"prune80": spec.parse("prune80")}, folder / "records"
    )
    page = page_of(look)
    assert page["places"] == {("encoder", layer): 4 for layer in range(4)}
    (text,) = page["texts"]
    names = text["tokens"]["encoder"]["keys"]["names"]
    assert len(names) == 7 and text["tokens"]["encoder"]["keys"]["special"] == [True, *[False] * 5, True]
    for method in ("dense", "prune80"):
        maps = page["maps"][method][0]["encoder", 2]
        assert maps.shape == (4, 7, 7)
    assert (page["maps"]["prune80"][0]["encoder", 2] == 0).sum() == 4 * 7 * 5
    assert page["shown"] == {"sparsity": ("zeros", "under", "half")}


def test_differences_are_taken_where_dense_has_the_row():
    import pandas as pd

    index, other = pd.Index(["a", "b"], name="row"), pd.Index(["b", "c"], name="row")
    tables = {
        "dense": {"t": pd.DataFrame({"x": [1.0, 2.0]}, index=index)},
        "m": {
            "t": pd.DataFrame({"x": [5.0, 7.0]}, index=other),
            "own": pd.DataFrame(),
        },
    }
    found = compared(tables)["t"]
    assert found.loc[("m", "b"), "x_difference"] == 3 and math.isnan(found.loc[("m", "c"), "x_difference"])
    assert "own" not in compared(tables)


@pytest.mark.parametrize("model, task", [("gpt", "pocket-perplexity"), ("marian", "pocket-translation")])
def test_documents_of_tasks_and_every_kind_of_attention(model, task, tmp_path, capsys):
    asked = ["look", "--models", model, "--tasks", task, "--limit", "2", "--methods", "window8"]
    assert main([*asked, "--studies", "sparsity,divergence", "--records", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    kinds = {"gpt": {"decoder"}, "marian": {"encoder", "decoder", "cross"}}[model]
    rows = [line.split() for line in out.splitlines() if line.startswith("  ")]
    assert {row[0] for row in rows if row[1:3] == ["0", "0"]} == kinds


def test_a_method_that_cannot_be_is_left_out_and_said(tmp_path, capsys, monkeypatch):
    asked = ["look", "--models", "bert", "--text", TEXT, "--studies", "sparsity", "--records", str(tmp_path)]
    assert main([*asked, "--methods", "prune80:on=cross,prune50"]) == 0
    told = capsys.readouterr()
    assert "prune80:on=cross: not applicable: " in told.err and ": dense, prune50" in told.out
    monkeypatch.setattr("attnbench.studies.looking.conduct", None)
    assert main([*asked, "--methods", "prune80:on=cross,prune50"]) == 0  # all is recorded, that too
    again = capsys.readouterr()
    assert again.out == told.out and "prune80:on=cross: not applicable: " in again.err


MISTAKES = {
    "--models bert --text x --studies sparsty": "unknown study 'sparsty'. Did you mean sparsity? `attnbench",
    "--models bert --text x --studies clamp": "'clamp': the amount (bits) is missing, as in clamp4",
    "--models bert --text x --studies clamp9": "'clamp9': bits are 1 to 6. `attnbench studies clamp` shows",
    "--models bert --text x --tasks pocket-sentiment": "--text and --tasks: a look is at one or the other.",
    "--models bert --text x --save-arrays 2": "--save-arrays writes into --output DIR: give one",
    "--models bert --text x --methods prone80": "unknown method 'prone'. Did you mean prune",
    "--models bert --output notes": "--output notes: holds files of something else; give a new folder",
    "--models bert --output notes/a.txt": "--output notes/a.txt: is a file; give a folder",
    "--text x": "no model: give --models",
}


@pytest.mark.parametrize("asked", MISTAKES)
def test_a_mistake_is_one_line(asked, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("mine", encoding="utf-8")
    assert main(["look", *asked.split()]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and MISTAKES[asked] in lines[0]
    assert (tmp_path / "notes" / "a.txt").read_text(encoding="utf-8") == "mine"


def test_a_text_that_is_too_long_or_empty_is_one_line(tmp_path, capsys):
    asked = ["look", "--models", "bert", "--studies", "sparsity", "--records", str(tmp_path)]
    assert main([*asked, "--text", "good " * 2000]) == 2
    assert "cut it with --max-length" in capsys.readouterr().err
    assert main([*asked, "--text", "good " * 2000, "--max-length", "9"]) == 0
    assert main([*asked, "--text", " "]) == 2


def test_the_head_of_a_checkpoint_is_the_one_it_was_saved_with():
    from transformers import BertConfig, GPT2Config, MarianConfig

    cases = {
        "classification": BertConfig(architectures=["BertForSequenceClassification"]),
        "masked-lm": BertConfig(architectures=["BertForMaskedLM"]),
        "body": BertConfig(architectures=["BertModel"]),
        "causal-lm": GPT2Config(architectures=["GPT2LMHeadModel"]),
        "seq2seq": MarianConfig(architectures=["MarianMTModel"]),
    }
    assert {head: head_of(config) for head, config in cases.items()} == {head: head for head in cases}


def test_studies_are_listed_and_shown(capsys):
    assert main(["studies"]) == 0
    listed = capsys.readouterr().out
    assert "sparsity" in listed and "clamp4" in listed
    assert main(["studies", "sparsity"]) == 0
    shown = capsys.readouterr().out
    assert "formula" in shown and "source" in shown and "looks at probs" in " ".join(shown.split())
    assert main(["studies", "sparsty"]) == 2
    assert "Did you mean sparsity?" in capsys.readouterr().err


def test_a_look_is_verified_and_a_number_that_was_changed_is_found(written, capsys):
    folder, _, _ = written
    (path,) = (folder / "records" / looks.FOLDER).glob("*/*/prune80/sparsity.json")
    assert main(["verify", str(path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 5 and all(line.endswith(": agrees") for line in lines)
    text = path.read_text(encoding="utf-8")
    body = json.loads(text)
    body["tables"]["heads"]["rows"][0][-1] += 1
    path.write_text(json.dumps(body), encoding="utf-8")
    assert main(["verify", str(path)]) == 1
    assert "heads: 128 numbers" in (told := capsys.readouterr().out) and "DISAGREES" in told
    path.write_text(text, encoding="utf-8")


def test_looks_of_two_folders_are_merged(written, tmp_path, capsys):
    folder, _, _ = written
    one, two, both = folder / "records", tmp_path / "two", tmp_path / "both"
    shutil.copytree(one, two)
    gone = min(two.rglob("sparsity.json"))
    gone.unlink()
    gone.with_suffix(".npz").unlink()
    assert main(["merge", str(two), str(one), "--into", str(both)]) == 0
    assert capsys.readouterr().out.endswith("4 written, 0 there already\n")
    names = [sorted(path.relative_to(each) for path in each.rglob("*.*")) for each in (one, both)]
    assert names[0] == names[1]
    assert main(["merge", str(one), "--into", str(both)]) == 0
    assert capsys.readouterr().out.endswith("0 written, 4 there already\n")
    held = both / gone.relative_to(two)
    body = json.loads(held.read_text(encoding="utf-8"))
    body["provenance"] |= {"identity": "another", "code": "another"}
    held.write_text(json.dumps(body), encoding="utf-8")
    assert main(["merge", str(one), "--into", str(both)]) == 1
    told = capsys.readouterr()
    assert told.out.endswith("0 written, 3 there already, 1 left where they are\n")
    assert "its code has changed" in told.err


def test_what_a_killed_look_left_in_part_is_removed(written, capsys):
    folder, asked, _ = written
    (place,) = {path.parent for path in (folder / "records").rglob("dense/*.json")}
    part = place / ".sparsity-1.json.part"
    part.write_text("{", encoding="utf-8")
    assert main(asked[:-4]) == 0
    assert not part.exists()


def test_several_models_are_put_side_by_side(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    asked = ["look", "--models", "bert,gpt", "--text", TEXT, "--studies", "sparsity", "--methods", "prune80"]
    assert main([*asked, "--records", str(tmp_path / "records"), "--output", str(tmp_path / "out")]) == 0
    shown = capsys.readouterr().out.partition("sparsity, all models: means over heads and layers\n")[2]
    header, *rows = [line.split() for line in shown.splitlines()]
    assert header[:4] == ["model", "data", "method", "kind"] and "diversity" in header
    assert [(row[0], row[2]) for row in rows] == [
        (model, method) for model in ("pocket-bert", "pocket-gpt") for method in ("dense", "prune80")
    ]
    with (tmp_path / "out" / "sparsity.models.csv").open(encoding="utf-8") as file:
        layers = list(csv.DictReader(file))
    for row in rows:
        (place,) = (tmp_path / "out" / row[0]).iterdir()
        with (place / "sparsity.heads.csv").open(encoding="utf-8") as file:
            heads = [each for each in csv.DictReader(file) if each["method"] == row[2]]
        mean = np.mean([float(each["diversity"]) for each in heads])
        assert float(row[header.index("diversity")]) == pytest.approx(mean, abs=2e-3)
        own = [each for each in layers if (each["model"], each["method"]) == (row[0], row[2])]
        first = [float(each["diversity"]) for each in heads if each["layer"] == "0"]
        assert float(own[0]["diversity"]) == pytest.approx(np.mean(first))
    assert len(layers) == 2 * (4 + 4)
