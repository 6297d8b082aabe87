"""Methods that cannot do what is asked: each its own cell and reason, the cells beside it measured."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import attnbench
from attnbench.cli.main import main

# spec: status, words of its reason
CELLS = {
    "heads50:l1": ("failed", "heads:l1 cannot tell the heads apart: all score"),
    "heads:fixed:off=0.4": ("failed", "off=0.4: layer 0 has heads 0 to 3"),
    "heads:fixed:off=7": ("failed", "off=7: no layer 7 there, only 0 to 1"),
    "finetune9:lr=1000000000000": ("failed", "training diverges"),
    "gates:l0:on=cross:steps=3": ("not applicable", "on=cross"),
    "heads50:gradient:on=decoder": ("not applicable", "on=decoder"),
    "mask50:layers=4-6": ("not applicable", "layers=4-6"),
    "hidden-quant8:on=cross": ("not applicable", "no layer begins at on=cross"),
    "finetune3:on=cross": ("not applicable", "finetune3:on=cross: no attention at on=cross"),
    "finetune3:layers=9": ("not applicable", "layers=9"),
    "prune80": ("measured", ""),
    "heads50:gradient": ("measured", ""),
}


@pytest.fixture(scope="module")
def cells(tiny_folder, tmp_path_factory):
    records = str(tmp_path_factory.mktemp("records"))
    found = attnbench.run(tiny_folder, list(CELLS), "pocket-sentiment", limit=12, records=records)
    return {item.cell["method"]: item for item in found.records}


@pytest.mark.parametrize("spec", CELLS)
def test_a_cell_says_why_and_harms_no_other(spec, cells):
    status, words = CELLS[spec]
    item = cells[spec]
    assert item.status == status and words in (item.error or ""), item.error
    assert bool(item.metrics) == (status == "measured")


def test_cells_beside_bad_ones_are_what_they_are_alone(cells, tiny_folder, tmp_path):
    records = str(tmp_path)
    alone = attnbench.run(tiny_folder, "heads50:gradient", "pocket-sentiment", limit=12, records=records)
    item = {item.cell["method"]: item for item in alone.records}["heads50:gradient"]
    assert item.fitted == cells["heads50:gradient"].fitted
    assert list(item.scores["acc"]) == list(cells["heads50:gradient"].scores["acc"])


def test_weights_that_are_not_finite_fail_every_cell(tiny_folder, tmp_path):
    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(tiny_folder, tmp_path / "broken")
    file = Path(folder) / "model.safetensors"
    weights = load_file(file)
    weights["bert.encoder.layer.1.output.dense.weight"][3] = float("nan")
    save_file(weights, file, metadata={"format": "pt"})
    found = attnbench.run(
        str(folder), "prune80,heads50:entropy", "pocket-sentiment", limit=6, records=str(tmp_path / "r")
    )
    assert [item.status for item in found.records] == ["failed"] * 4
    for item in found.records:
        assert "finite" in item.error, item.error


@pytest.mark.parametrize(
    ("spec", "words"),
    {
        "prune101": "between 0 and 100",
        "heads101:entropy": "between 0 and 100",
        "mask200": "100",
        "logquant0": "bit",
        "heads50:gradient:steps=0": "steps is at least 1",
        "gates:l0:train=some": "neither gates nor all",
        "finetune0": "steps is at least 1",
        "threshold2": "1",
        "entmax3": "entmax",
        "heads50": "heads50:",
        "prune80:on=nowhere": "nowhere",
        "heads:fixed": "off=",
    }.items(),
)
def test_what_no_model_could_do_is_refused_before_anything_runs(spec, words, capsys, tmp_path):
    assert main(["run", "--models", "bert", "--methods", spec, "--records", str(tmp_path / "r")]) == 2
    said = capsys.readouterr().err.strip()
    assert len(said.splitlines()) == 1 and spec.partition(":")[0] in said and words in said
    assert not (tmp_path / "r").exists()


def test_a_mistake_of_the_users_inside_a_cell_reads_as_such():
    from attnbench.errors import UserError, described, own_fault

    with pytest.raises(RuntimeError) as caught, own_fault(["a method"]):
        raise UserError("calibration a.txt: holds no text")
    assert described(caught.value) == "calibration a.txt: holds no text"
    assert described(ValueError("x")) == "ValueError: x"
