"""What a column takes along to another machine: its files, or their names where they are not to be found."""

from __future__ import annotations

import dataclasses
import platform

import pytest

from attnbench.cli.main import main
from attnbench.errors import UserError
from attnbench.inputs.settings import Settings
from attnbench.matrix.plan import Cell
from attnbench.matrix.sharing import travelling
from attnbench.matrix.sharing.travelling import Luggage, packed, unpack


def _packed(cells, settings=None, plugins=(), folders=()):
    return packed(cells, dataclasses.asdict(settings or Settings()), plugins, folders)


@pytest.fixture
def here(tmp_path, monkeypatch, scaled):
    """Stand in a folder with a model, data, a task folder, a plugin, and a file that a spec names."""
    monkeypatch.chdir(tmp_path)
    for name in ("my model/config.json", "data.csv", "learn.csv", "tasks/x/x.yaml", "plugins/p.py", "a"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name, encoding="utf-8")
    return tmp_path


def test_plugins_data_and_named_files_travel_and_are_where_they_are_looked_for(here, tmp_path_factory):
    settings = Settings(calibration="learn.csv", include_path="tasks")
    cells = [Cell("./my model", "data.csv", method) for method in ("dense", "scaled:file=a")]
    luggage, asked = _packed(cells, settings, ["plugins/p.py"], [str(here / "plugins")])
    node = tmp_path_factory.mktemp("node")
    unpack(luggage, node)
    assert (node / asked["settings"]["calibration"]).read_text(encoding="utf-8") == "learn.csv"
    assert (node / asked["settings"]["include_path"] / "x" / "x.yaml").is_file()
    assert (node / asked["plugins"][0]).name == "p.py" and (node / asked["folders"][0] / "p.py").is_file()
    assert (node / "a").read_text(encoding="utf-8") == "a"
    assert {cell.model for cell in asked["cells"]} == {f"{here}/my model"} == set(luggage.there)
    assert [cell.method for cell in asked["cells"]] == ["dense", "scaled:file=a"]
    for cell in asked["cells"]:
        assert (node / cell.task).read_text(encoding="utf-8") == "data.csv" and cell.task.endswith(
            "/data.csv"
        )


def test_a_model_of_the_hub_and_a_task_by_name_stay_what_they_are(here):
    cells = [Cell("google/bert", "sst2", "dense")]
    luggage, asked = _packed(cells)
    assert asked["cells"] == cells and not luggage.files and not luggage.there


def test_what_is_not_on_the_node_is_named(tmp_path):
    with pytest.raises(UserError) as caught:
        unpack(Luggage(there=[str(tmp_path / "models" / "large")]), tmp_path)
    assert str(caught.value) == (
        f"{platform.node()} has no {tmp_path}/models/large: "
        "put it on a disk that all nodes have, at this place"
    )


def test_what_is_too_large_or_not_there_does_not_travel(here, monkeypatch):
    monkeypatch.setattr(travelling, "LARGEST", 9)
    with pytest.raises(UserError, match="12 bytes of plugins and data would travel to each node"):
        _packed([Cell("bert", "sst2", "dense")], plugins=["plugins/p.py"])
    with pytest.raises(UserError, match=r"none.csv: cannot be read: No such file"):
        _packed([Cell("bert", "none.csv", "dense")])


BAD = {
    "slurm": "--on slurm: give ray, or ray://HOST:PORT of a cluster",
    "ray://here": "--on ray://here: give ray, or ray://HOST:PORT of a cluster",
    "ray --workers 2": "--workers: are of this machine, and --on ray of a cluster: give one",
}


@pytest.mark.parametrize("given", BAD)
def test_an_engine_that_is_none(given, capsys, tmp_path):
    asked = ["run", "--models", "bert", "--records", str(tmp_path / "r"), "--on", *given.split()]
    assert main(asked) == 2
    assert BAD[given] in capsys.readouterr().err


def test_an_address_that_does_not_answer_is_one_line(capsys, tmp_path):
    pytest.importorskip("ray")
    asked = ["run", "--models", "bert", "--limit", "2", "--records", str(tmp_path / "r")]
    assert main([*asked, "--on", "ray://127.0.0.1:9"]) == 2
    told = capsys.readouterr().err.splitlines()[-1]
    assert told == "attnbench: --on ray://127.0.0.1:9: no answer: Connection refused"


def test_ray_that_is_not_there_is_one_line(capsys, tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "ray", None)
    asked = ["run", "--models", "bert", "--limit", "2", "--records", str(tmp_path / "r"), "--on", "ray"]
    assert main(asked) == 2
    told = capsys.readouterr().err.splitlines()[-1]
    assert told == 'attnbench: --on ray: ray is not installed. Next: pip install "attnbench[ray]"'
