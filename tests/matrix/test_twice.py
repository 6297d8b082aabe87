"""The numerical floor: cells measured again in other batches by other threads, and what is told of it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sample_records import record, right

import attnbench
from attnbench.backends.measurement import Measurement
from attnbench.boards import board, suite
from attnbench.boards.tables import floors
from attnbench.cli.main import main
from attnbench.errors import UserError
from attnbench.inputs.settings import Settings
from attnbench.matrix import twice
from attnbench.matrix.bench import Bench
from attnbench.records import record as records
from attnbench.statistics import floor

SUITE = """
models = ["pocket-gpt"]
tasks = ["pocket-agreement"]
methods = ["logquant3", "prune80"]
repeats = 1
limit = 24
floor = [{}]
"""


def _measured(path, named):
    path.write_text(SUITE.format(named), encoding="utf-8")
    threads = torch.get_num_threads()
    assert main(["run", str(path)]) == 0
    assert torch.get_num_threads() == threads
    items = list(records.read_all(path.parent / "records" / path.stem))
    return {item.cell["method"]: item for item in items}


def test_a_suite_measures_what_it_names_twice_and_once(tmp_path):
    path = tmp_path / "s.toml"
    plain = _measured(path, "")
    assert not any("floor" in item.measured for item in plain.values())
    found = _measured(path, '"dense", "logquant3"')
    assert [name for name, item in found.items() if "floor" in item.measured] == ["dense", "logquant3"]
    assert found["prune80"].date == plain["prune80"].date
    assert found["logquant3"].provenance["identity"] == plain["logquant3"].provenance["identity"]
    bench = Bench("pocket-gpt", "pocket-agreement", Settings(limit=24))
    for name in ("dense", "logquant3"):
        told = found[name].measured["floor"]
        assert (told["batch_size"], told["samples"]) == (7, 24)
        assert told["threads"] == (2 if torch.get_num_threads() == 1 else 1)
        with attnbench.apply(bench.model, name):
            again = bench.prepared.evaluate(bench.model, batch_size=7)
        assert told["metrics"]["acc"]["value"] == pytest.approx(again.metrics["acc"]["value"], abs=2 / 24)
    assert found["dense"].measured["floor"]["metrics"]["acc"]["moved"] <= 1
    kept = _measured(path, "")
    assert {name: item.date for name, item in kept.items()} == {name: i.date for name, i in found.items()}


@pytest.mark.parametrize(("size", "other"), [(32, 7), (7, 8), (1, 1)])
def test_the_second_time_has_other_batches_and_threads(size, other):
    def evaluate(**serving):
        asked.append((serving["batch_size"], serving["batch_tokens"], torch.get_num_threads()))
        metrics, scores = {"acc": {"value": 0.5}}, {"doc_id": np.arange(4), "acc": np.array([1.0, 0, 1, 0])}
        return Measurement(metrics, scores, [])

    asked, before = [], torch.get_num_threads()
    found = Measurement(
        {"acc": {"value": 0.75}}, {"doc_id": np.arange(4), "acc": np.array([1.0, 1, 1, 0])}, []
    )
    told = twice.measured(evaluate, found, {"batch_size": size, "batch_tokens": 100})
    assert asked == [(other, None, 2 if before == 1 else 1)] and torch.get_num_threads() == before
    assert told["metrics"] == {"acc": {"value": 0.5, "moved": 1}} and told["samples"] == 4


def test_a_floor_is_of_methods_of_the_suite(tmp_path):
    path = tmp_path / "s.toml"
    path.write_text(SUITE.format('"prune8"'), encoding="utf-8")
    with pytest.raises(UserError, match=r"unknown method 'prune8'\. Did you mean prune80"):
        suite.load(path)


def _twice(item, value, moved, metric="acc"):
    metrics = {metric: {"value": value, "moved": moved}}
    samples = len(item.scores["doc_id"])
    item.measured = {"floor": {"batch_size": 7, "threads": 2, "samples": samples, "metrics": metrics}}
    return item


def _rows(items):
    built = board.build(items)
    rows = [row for section in built.sections for row in section.rows]
    return {row.method: row for row in rows}, floors.told(rows, items, str)


def test_no_difference_below_the_floor_is_told():
    items = [
        _twice(record("dense", acc=right(400, 40)), 0.9, 0),
        _twice(record("logquant3", acc=right(400, 44)), 0.865, 10),  # moves by 2.5 points
        record("prune50", acc=right(400, 49)),  # loses 2.25
        record("prune80", acc=right(400, 60)),  # loses 5
    ]
    rows, told = _rows(items)
    assert rows["prune50"].floor == pytest.approx(0.025) and rows["prune50"].high < 0
    assert "▼" not in rows["prune50"].mark and "▼" in rows["prune80"].mark
    (line,) = told
    assert "in batches of 7 by 2 threads): dense sst2 0 points of acc (0 of 400 samples)" in line
    assert (
        "logquant3 sst2 2.5 points of acc (10 of 400 samples). A smaller difference gets neither ▼ nor ▲"
        in line
    )
    for item in items:
        item.measured = {}
    rows, told = _rows(items)
    assert "▼" in rows["prune50"].mark and rows["prune50"].floor is None and told == []


def test_a_floor_of_a_perplexity_is_a_share_of_it():
    losses = np.stack([np.full(50, -8.0), np.full(50, 4.0)], 1)
    item = record("dense", kind="perplexity", ppl=losses)
    _twice(item, item.metrics["ppl"]["value"] * 1.02, 3, "ppl")
    assert floor.of(item, "ppl", "log") == pytest.approx((math.log(1.02), 3, 50))
    assert floor.largest([item], "other", "log") is None and floor.share([item], "ppl") == 0.06


EDGE = '''
from dataclasses import dataclass

from attnbench import Method, hookimpl


@dataclass
class Edge(Method):
    """Let examples beyond a batch's seventh attend to nothing: other batches, other answers."""

    name = "edge"

    def probs(self, probs, site):
        probs[max(0, 7 - site.examples.start) :] = 0
        return probs


@hookimpl
def register_methods(register):
    register(Edge)
'''


def test_verify_allows_what_rounding_moved_if_it_moves_here_too(tmp_path, capsys, fresh_registry):
    plugin, path = tmp_path / "edge.py", tmp_path / "s.toml"
    plugin.write_text(EDGE, encoding="utf-8")
    path.write_text(SUITE.replace("logquant3", "edge").format(""), encoding="utf-8")
    loaded = ["--plugin", str(plugin)]
    assert main(["run", str(path), *loaded]) == 0
    for method, moves in (("prune80", False), ("edge", True)):
        place = tmp_path / "records" / "s" / "pocket-gpt" / "pocket-agreement" / f"{method}.json"
        item = records.read(place)
        item.scores["acc"][[0, 1]] = 1 - item.scores["acc"][[0, 1]]  # 2 of 24, over 5 %
        item.metrics["acc"]["value"] = float(item.scores["acc"].mean())
        alone, beside = (tmp_path / f"{kind} {method}" for kind in ("alone", "beside"))
        assert main(["verify", str(records.write(alone, item)), *loaded]) == 1
        assert "2 differ: DISAGREES" in capsys.readouterr().out
        written = str(records.write(beside, _twice(item, 0.9, 1)))
        assert main(["verify", written, *loaded]) == (0 if moves else 1)
        assert f"2 differ: {'agrees' if moves else 'DISAGREES'}" in capsys.readouterr().out
