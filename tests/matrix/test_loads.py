"""Weights are read once for the tasks that share them, to where they are asked, and again if spoilt."""

from __future__ import annotations

import pytest
import tiny_causal

from attnbench.cli.main import main
from attnbench.engine.realised import sidecar
from attnbench.records import record

SPOILING = """
from attnbench import Method, hookimpl

class Spoil(Method):
    name = "spoil"

    def fit(self, model, batches):
        next(model.parameters()).data.add_(1)
        self.done_ = 1.0

    def context(self, context, site):
        return context

@hookimpl
def register_methods(register):
    register(Spoil)
"""


@pytest.fixture
def loads(tmp_path, monkeypatch):
    """A model, two tasks, and a list that grows by each load of weights."""
    monkeypatch.chdir(tmp_path)
    tiny_causal.build(tmp_path / "words")
    for form in ("pairs", "last"):
        tiny_causal.write(tmp_path, form, form)
    found, real = [], sidecar.loaded

    def counted(*args):
        found.append(real(*args))
        return found[-1]

    monkeypatch.setattr(sidecar, "loaded", counted)
    return found


def run(tasks, records, *more):
    return main([
        "run", "--models", "./words", "--tasks", tasks, "--include-path", ".", "--methods", "prune50",
        "--records", records, *more,
    ])  # fmt: skip


def scores(records, task):
    found = record.read(f"{records}/words/{task}/prune50.json")
    return {name: metric["value"] for name, metric in found.metrics.items()}, found


def test_tasks_share_what_was_loaded(loads):
    assert run("pairs,last", "both") == 0 and len(loads) == 1
    assert run("pairs", "first") == run("last", "second") == 0 and len(loads) == 3
    assert scores("both", "pairs")[0] == scores("first", "pairs")[0]
    assert scores("both", "last")[0] == scores("second", "last")[0]


def test_what_a_method_spoilt_is_loaded_again_for_the_next_task(loads, tmp_path, fresh_registry):
    (tmp_path / "spoil.py").write_text(SPOILING)
    assert run("pairs,last", "spoilt", "--methods", "spoil,prune50", "--plugin", "spoil.py") == 1
    assert len(loads) == 2 and loads[0] is not loads[1]
    assert run("last", "alone") == 0
    assert scores("spoilt", "last")[0] == scores("alone", "last")[0]


def test_a_device_map_is_recorded_where_it_is_asked_for(loads, capsys):
    pytest.importorskip("accelerate")
    assert run("pairs", "mapped", "--device-map", "auto") == run("pairs", "plain") == 0
    (mapped, spread), (plain, other) = scores("mapped", "pairs"), scores("plain", "pairs")
    assert mapped == plain
    assert spread.settings["device_map"] == "auto" and "device_map" not in other.settings
    assert spread.provenance["identity"] == other.provenance["identity"]
    assert run("pairs", "mapped", "--device-map", "auto", "--workers", "2") == 2
    assert "--device-map: one process has all devices" in capsys.readouterr().err
