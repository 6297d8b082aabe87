"""`attnbench heads`: tables, files, rank correlations, and the effect of each head against a loop by hand."""

from __future__ import annotations

import csv
import io

import numpy as np
import pytest
import scipy.stats
import torch
from PIL import Image

from attnbench import heads, heatmap, models
from attnbench.backends import lm_eval
from attnbench.cli import main
from attnbench.errors import UserError

TASK = "pocket-sentiment"


def _table(path):
    with path.open(encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    return header, {(row[0], int(row[1])): [float(value) for value in row[2:]] for row in rows}


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = tmp_path_factory.mktemp("heads")
    arguments = [
        "heads",
        "--models",
        "bert",
        "--tasks",
        TASK,
        "--by",
        "entropy,l2,l1",
        "--ablate",
        "--limit",
        "24",
    ]
    stdout = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.stdout", stdout)
        status = main([*arguments, "--output", str(folder)])
    return folder / "pocket-bert" / TASK, status, stdout.getvalue()


def test_scores_are_printed_and_written(done):
    folder, status, shown = done
    assert status == 1  # l1 was asked for by name and tells no heads apart
    assert "l1: failed: heads:l1 cannot tell the heads apart" in shown
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        [
            "correlations.csv",
            *(f"{name}{end}" for name in ("entropy", "l2", "effect") for end in (".csv", ".png")),
        ]
    )
    found = heads.study("bert", TASK, ["entropy"])
    header, table = _table(folder / "entropy.csv")
    assert header == ["kind", "layer", "0", "1", "2", "3"]
    assert table == found.tables["entropy"]
    assert f"{table['encoder', 3][2]:.4f}" in shown


def test_correlations_are_spearmans(done):
    folder, _, _ = done
    columns = {
        name: np.concatenate(list(_table(folder / f"{name}.csv")[1].values()))
        for name in ("entropy", "l2", "effect")
    }
    with (folder / "correlations.csv").open(encoding="utf-8") as file:
        (_, *names), *rows = csv.reader(file)
    assert names == list(columns)
    for row in rows:
        for name, value in zip(names, row[1:], strict=True):
            expected = scipy.stats.spearmanr(columns[row[0]], columns[name]).statistic
            assert float(value) == pytest.approx(expected, abs=1e-6)


def test_the_effect_of_a_head_is_what_the_task_loses_without_it(done):
    folder, _, shown = done
    checkpoint = models.find("bert", TASK)
    prepared = lm_eval.prepare(TASK, checkpoint, limit=24)
    model = checkpoint.load(prepared.head)
    batches = prepared.batches(24, batch_size=24)
    dense = prepared.evaluate(model).metrics["acc"]["value"]
    effect = _table(folder / "effect.csv")[1]
    assert f"effect: by how much acc falls from {dense:.4f} without this head alone" in shown

    layer, head = max(
        ((at, h) for (_, at), row in effect.items() for h in range(4)),
        key=lambda p: effect["encoder", p[0]][p[1]],
    )
    projection = model.bert.encoder.layer[layer].attention.output.dense
    width = projection.in_features // 4
    labels = np.array(prepared.evaluate(model).scores["acc"])
    with torch.no_grad():
        right = model(**batches[0]).logits.argmax(-1)
        projection.weight[:, head * width : (head + 1) * width] = 0
        changed = model(**batches[0]).logits.argmax(-1)
    # two classes: a changed decision turns a right answer wrong or a wrong one right
    moved = (right != changed).numpy()
    order, _ = next(prepared._lm.batches(prepared.task.instances[:24], 24))
    after = np.where(moved, 1 - labels[order], labels[order]).mean()
    assert effect["encoder", layer][head] == pytest.approx(dense - after, abs=1e-9) and dense > after


def test_the_heat_map_shows_every_number(done):
    folder, _, _ = done
    with Image.open(folder / "effect.png") as picture:
        assert picture.format == "PNG" and min(picture.size) > 200
        pixels = np.asarray(picture.convert("RGB")).reshape(-1, 3)
    assert len(np.unique(pixels, axis=0)) > 50


def test_a_heat_map_takes_kinds_of_different_sizes_and_equal_numbers():
    flat = {
        ("encoder", 0): [1.0, 1.0],
        ("encoder", 1): [1.0, 1.0, 1.0],
        ("cross", 0): [1.0],
        ("decoder", 3): [2.0],
    }
    assert heatmap.draw(flat, "flat").startswith(b"\x89PNG")
    assert heatmap.draw({("encoder", 0): [0.0]}, "zero", diverging=True).startswith(b"\x89PNG")


def test_a_constant_criterion_correlates_with_nothing():
    study = heads.Study("m", "t", {"a": {("encoder", 0): [1.0, 2.0]}, "b": {("encoder", 0): [3.0, 3.0]}})
    values = study.correlations()
    assert values["a", "a"] == 1 and np.isnan(values["a", "b"]) and np.isnan(values["b", "b"])
    assert "nan" in heads.describe(study)


def test_kinds_are_named_where_there_are_several():
    study = heads.Study("m", "t", {"a": {("cross", 0): [1.0, 2.0], ("encoder", 0): [1.0, 0.5]}})
    assert heads.describe(study).splitlines()[3].split() == ["kind", "layer", "0", "1"]


MISTAKES = {
    "heads": "no model",
    "heads --models bert --by entrpy": "Did you mean entropy",
    "heads --models brt": "Did you mean bert",
    "heads --models ./nowhere": "give --tasks",
    "heads --models bert --tasks pocket-sentiment --by l2 --output file/x": "cannot be written",
}


@pytest.mark.parametrize(("line", "says"), MISTAKES.items())
def test_a_mistake_is_one_line(line, says, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    assert main(line.split()) == 2
    assert says in capsys.readouterr().err.splitlines()[-1]


def test_all_criteria_are_those_that_score():
    assert heads.chosen(["all"]) == heads.criteria()
    assert heads.chosen([]) == ["entropy", "gradient", "l2"]
    assert {"l1", "l2", "entropy", "variance", "output", "confidence", "gradient", "probe", "random"} == set(
        heads.criteria()
    )
    with pytest.raises(UserError, match="fixed"):
        heads.chosen(["fixed"])
