"""How far a suite is, by model and task, and the commands that do the rest."""

from __future__ import annotations

import os
import shlex
import shutil

import pytest

from attnbench.cli.main import main
from attnbench.matrix.sharing.leases import Leases

DATA = "text,label\na good film,positive\nit was bad and long,negative\n"
PLUGIN = """
from attnbench import Method, hookimpl

class Raises(Method):
    name = "raises"
    examples = ("raises",)

    def probs(self, probs, site):
        raise RuntimeError("always")

@hookimpl
def register_methods(register):
    register(Raises)
"""


@pytest.fixture
def suite(tiny_folder, tmp_path, monkeypatch):
    """Write a suite of two models, folders where a variable says, on a task of the user's own."""
    places = tmp_path / "my models"
    for name in ("a", "b"):
        shutil.copytree(tiny_folder, places / name)
    monkeypatch.setenv("ATTNBENCH_MODELS", str(places))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my data.csv").write_text(DATA, encoding="utf-8")
    (tmp_path / "s.toml").write_text(
        'models = ["a", "b"]\ntasks = ["my data.csv"]\nmethods = ["prune50"]\n', encoding="utf-8"
    )
    return tmp_path / "s.toml"


def _status(capsys, *more):
    """Return the exit status of `attnbench status s.toml`, its table by model, and what follows it."""
    capsys.readouterr()
    status = main(["status", "s.toml", *more])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["model", "task", "done", "missing", "failed", "stale"]
    table = {line.split()[0]: tuple(map(int, line.split()[-4:])) for line in lines[1:3]}
    return status, table, lines[3:]


def _missing(capsys, *more):
    capsys.readouterr()
    status = main(["status", "s.toml", "--missing", *more])
    return status, capsys.readouterr().out.splitlines()


def test_what_is_missing_is_done_by_the_commands_that_it_prints(suite, tmp_path, capsys):
    assert _status(capsys) == (1, {"a": (0, 3, 0, 0), "b": (0, 3, 0, 0)}, [])
    status, commands = _missing(capsys)
    assert status == 1 and commands == [
        f"attnbench run s.toml --models {name} --tasks 'my data.csv'" for name in "ab"
    ]
    assert main(shlex.split(commands[0])[1:]) == 0
    assert _status(capsys) == (1, {"a": (3, 0, 0, 0), "b": (0, 3, 0, 0)}, [])
    assert _missing(capsys) == (1, commands[1:])
    assert main(shlex.split(commands[1])[1:]) == 0
    assert _status(capsys) == (0, {"a": (3, 0, 0, 0), "b": (3, 0, 0, 0)}, [])
    assert _missing(capsys) == (0, [])
    status, commands = _missing(capsys, "--records", "else where", "--models", "a")
    assert commands == ["attnbench run s.toml --models a --tasks 'my data.csv' --records 'else where'"]
    held = Leases(tmp_path / "records" / "s")
    assert held.take("a · my data · prune50")
    told = f"being measured: a · my data · prune50, by {os.uname().nodename}, process {os.getpid()}"
    assert _status(capsys)[2] == [told]
    held.close()


def test_what_is_stale_and_what_has_failed_is_named(suite, tmp_path, capsys, fresh_registry):
    from safetensors.torch import load_file, save_file

    (tmp_path / "raises.py").write_text(PLUGIN, encoding="utf-8")
    suite.write_text(suite.read_text(encoding="utf-8").replace('"prune50"', '"raises"'), encoding="utf-8")
    plugin = ("--plugin", "raises.py")
    assert main(["run", "s.toml", "--models", "a", *plugin]) == 1
    status, table, lines = _status(capsys, *plugin)
    assert (status, table["a"]) == (1, (2, 0, 1, 0))
    assert len(lines) == 1 and lines[0].startswith(
        "failed: a · my data · raises: raises: RuntimeError: always"
    )
    command = "attnbench run s.toml --models a --tasks 'my data.csv' --plugin raises.py"
    assert _missing(capsys, *plugin)[1][0] == command
    text = suite.read_text(encoding="utf-8").replace('"raises"', '"prune50"')
    suite.write_text(f"limit = 1\n{text}", encoding="utf-8")
    status, table, lines = _status(capsys)
    assert (status, table["a"]) == (1, (0, 1, 0, 2))
    assert lines[0] == "stale: a · my data · dense: limit all before, 1 now"
    suite.write_text(text, encoding="utf-8")
    assert main(["run", "s.toml", "--models", "a"]) == 0
    weights = tmp_path / "my models" / "a" / "model.safetensors"
    os.utime(weights)  # younger than the records, and the same
    os.utime(weights.parent / "config.json", (4e9, 4e9))
    assert _status(capsys)[1]["a"] == (3, 0, 0, 0)
    tensors = load_file(weights)
    tensors["classifier.bias"] += 0.5
    save_file(tensors, weights, metadata={"format": "pt"})
    status, table, lines = _status(capsys)
    assert table["a"] == (0, 0, 0, 3) and lines[0] == "stale: a · my data · dense: its weights have changed"
    record = tmp_path / "records" / "s" / "a" / "my data" / "dense.json"
    record.write_text("{", encoding="utf-8")
    assert "not readable as JSON" in _status(capsys)[2][0]


def test_a_suite_that_is_not_there(capsys, tmp_path):
    assert main(["status", str(tmp_path / "none.toml")]) == 2
    assert "none.toml: no such file. A suite is a TOML file." in capsys.readouterr().err
    assert main(["status", "a.toml", "b.toml", "--records", "r"]) == 2
    assert "Give one suite with it" in capsys.readouterr().err
