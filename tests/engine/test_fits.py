"""What methods learned is kept for a model's next task, where that would learn the same."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

import pytest
import sample_records
import tiny_causal
import torch

from attnbench import Method, NotApplicable
from attnbench.cli.main import main
from attnbench.engine.learning import fits
from attnbench.engine.learning.fits import Fits
from attnbench.matrix import later
from attnbench.matrix.console import Silent
from attnbench.matrix.ledger import Ledger
from attnbench.records import record

SAMPLES = [{"input_ids": torch.arange(6).view(2, 3)}, {"input_ids": torch.ones(1, 4, dtype=torch.long)}]
OTHERS = [{"input_ids": torch.arange(6).view(2, 3)}, {"input_ids": torch.zeros(1, 4, dtype=torch.long)}]


@dataclass
class Learns(Method):
    name = "learns"

    by: float = field(default=1.0, kw_only=True)
    more = None
    fitted = 0

    def fit(self, model, batches):
        type(self).fitted += 1
        self.drawn_ = torch.rand(3) * self.by
        self.sums_ = {"sums": [float(batch["input_ids"].sum()) for batch in batches]}
        self.more_ = None if self.more is None else type(self).more()

    def context(self, context, site):
        return context


@pytest.fixture
def learns(monkeypatch):
    monkeypatch.setattr(Learns, "fitted", 0)
    monkeypatch.setattr(fits, "learn", lambda model, methods, seed, samples: _learn(methods, seed, samples()))
    return Fits()


def _learn(methods, seed, batches):
    torch.manual_seed(seed)
    for method in methods:
        method.fit(None, batches)


def test_what_was_learned_is_there_again(learns):
    one, other = Learns(), Learns()
    seconds = learns.learn(None, [one], 3, lambda: SAMPLES)
    after = torch.rand(1)
    one.drawn_.zero_()
    one.sums_["sums"].append(0.0)
    assert learns.learn(None, [other], 3, lambda: [*SAMPLES]) == seconds
    assert Learns.fitted == 1 and torch.equal(torch.rand(1), after)
    torch.manual_seed(3)
    assert torch.equal(other.drawn_, torch.rand(3)) and other.sums_ == {"sums": [15.0, 4.0]}


@pytest.mark.parametrize(
    "other",
    [
        {"seed": 4}, {"samples": OTHERS}, {"samples": SAMPLES[:1]}, {"methods": [Learns(by=2.0)]},
        {"methods": [Learns(), Learns()]}, {"methods": [type("Another", (Learns,), {})()]},
        {"samples": [{"labels": each["input_ids"]} | each for each in SAMPLES]},
        {"samples": [{"input_ids": each["input_ids"].int()} for each in SAMPLES]},
    ],
)  # fmt: skip
def test_what_would_be_learned_otherwise_is_fitted(learns, other):
    asked = {"methods": [Learns()], "seed": 3, "samples": SAMPLES}
    learns.learn(None, asked["methods"], asked["seed"], lambda: asked["samples"])
    then = asked | other
    before = [method.fitted for method in then["methods"]]
    learns.learn(None, then["methods"], then["seed"], lambda: then["samples"])
    assert all(method.fitted > known for method, known in zip(then["methods"], before, strict=True))


@pytest.mark.parametrize(
    "more",
    [
        lambda: torch.zeros(fits.LARGEST // 4 + 1), lambda: [torch.nn.Linear(1, 1)], threading.Lock,
        lambda: torch.ones(2, requires_grad=True), lambda: {"a": lambda: 0},
    ],
)  # fmt: skip
def test_what_may_be_more_than_numbers_is_not_kept(learns, monkeypatch, more):
    monkeypatch.setattr(Learns, "more", more)
    for _ in range(2):
        learns.learn(None, [Learns()], 3, lambda: SAMPLES)
    assert Learns.fitted == 2


def test_the_oldest_fit_goes_where_all_are_too_large(learns, monkeypatch):
    monkeypatch.setattr(Learns, "more", lambda: torch.zeros(fits.LARGEST // 4 // 3))  # a third of the bound
    for seed in (0, 1, 2):
        learns.learn(None, [Learns()], seed, lambda: SAMPLES)
    for seed, fitted in ((1, 3), (2, 3), (0, 4), (1, 5)):
        learns.learn(None, [Learns()], seed, lambda: SAMPLES)
        assert Learns.fitted == fitted, seed


def test_costs_have_their_own_seconds_where_a_fit_was_made_before(tmp_path):
    item = sample_records.record("prune80", acc=sample_records.right(40, 5))
    sample_records.identify(item)
    ledger = Ledger(str(tmp_path))
    assert later.added(
        item,
        [],
        lambda: 100.0,
        lambda: {"flops": {"dense": 1.0, "simulated": None, "realised": None}},
        lambda: None,
        ledger,
        Silent(),
        True,
    )
    found = record.read(record.path_of(tmp_path, item.cell)).measured["costs"]["seconds"]
    assert found["fit"] == 100 and 0 <= found["measure"] < 100


def test_without_samples_only_the_same_absence_is_the_same(learns, monkeypatch):
    def none():
        raise NotApplicable("no calibration split")

    monkeypatch.setattr(Learns, "fit", lambda self, model, batches: setattr(self, "seen_", 1.0))
    learns.learn(None, [Learns()], 3, none)
    assert len(learns._known) == 1
    learns.learn(None, [Learns()], 3, lambda: SAMPLES)
    assert len(learns._known) == 2


COUNTING = """
from attnbench import Method, hookimpl

class Counted(Method):
    name = "counted"

    def fit(self, model, batches):
        with open("fits.txt", "a") as file:
            file.write(f"{type(model).__name__}\\n")
        self.sum_ = float(sum(batch["input_ids"].sum() for batch in batches))

    def context(self, context, site):
        return context * 0.5

@hookimpl
def register_methods(register):
    register(Counted)
"""


@pytest.mark.parametrize("calibrated, expected", [(["--calibration", "learn.txt"], 1), ([], 2)])
def test_a_run_fits_once_for_tasks_that_learn_from_the_same(
    tmp_path, monkeypatch, fresh_registry, calibrated, expected
):
    monkeypatch.chdir(tmp_path)
    tiny_causal.build(tmp_path / "words")
    for form in ("pairs", "last"):
        tiny_causal.write(tmp_path, form, form)
    (tmp_path / "counting.py").write_text(COUNTING)
    (tmp_path / "learn.txt").write_text("\n\n".join(f"w1 w2 w{k} w4 w5" for k in range(30)))

    def measured(tasks, records):
        asked = ["--models", "./words", "--tasks", tasks, "--include-path", ".", "--methods", "counted"]
        assert main(["run", *asked, "--plugin", "counting.py", "--records", records, *calibrated]) == 0
        found = {task: record.read(f"{records}/words/{task}/counted.json") for task in tasks.split(",")}
        return {task: (each.metrics, each.fitted, each.measured) for task, each in found.items()}

    both = measured("pairs,last", "both")
    assert len((tmp_path / "fits.txt").read_text().split()) == expected
    assert both == measured("pairs", "one") | measured("last", "other")
