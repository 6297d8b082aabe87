"""What a column's fitted methods learn from: loaded and made into batches once, theirs to change."""

from __future__ import annotations

import pytest
import torch

import attnbench
from attnbench.backends.causal import stock
from attnbench.backends.encoders import prepared as encoders
from attnbench.backends.encoders import tasks
from attnbench.inputs.settings import Settings
from attnbench.matrix.bench import Bench

TASKS = {"bert": "pocket-sentiment", "gpt": "pocket-agreement", "marian": "pocket-translation"}


@pytest.fixture
def loaded(monkeypatch):
    """Count how often a split other than the evaluated one is read."""
    found = []

    def counted(cls, name):
        original = getattr(cls, name)

        def read(self, split, *others):
            found.append(split)
            return original(self, split, *others)

        monkeypatch.setattr(cls, name, read)

    counted(tasks.EncoderTask, "documents")
    counted(stock.Stock, "learnable")
    return lambda: [split for split in found if split != "validation"]


def test_fitted_methods_of_a_column_share_what_they_learn_from(tiny_folder, tmp_path, loaded, monkeypatch):
    made, original = [], encoders.Prepared.calibration

    def counted(self):
        made.append(self)
        return original(self)

    monkeypatch.setattr(encoders.Prepared, "calibration", counted)
    methods = ["heads50:entropy", "prune80:global", "mask50"]
    found = attnbench.run(tiny_folder, methods, "pocket-sentiment", limit=4, records=str(tmp_path))
    assert [item.error for item in found.records] == [None] * 5
    assert loaded() == ["calibration"] and len(made) == 1
    prints = {item.provenance["fingerprints"].get("calibration documents") for item in found.records[2:]}
    assert len(prints) == 1 and None not in prints


@pytest.mark.parametrize("name", TASKS)
def test_documents_are_drawn_once(name, loaded):
    bench = Bench(name, TASKS[name], Settings(limit=2))
    prepared = bench.prepared
    first = prepared.calibration_fingerprint()
    assert bench.calibration() and prepared.calibration_documents()
    assert prepared.calibration_fingerprint() == first
    assert loaded() == ["calibration"]


def test_a_method_that_changes_its_batches_changes_them_for_itself():
    bench = Bench("bert", "pocket-sentiment", Settings(limit=2))
    first, again = bench.calibration(), bench.calibration()
    for batch in first:
        batch["input_ids"].zero_()
        batch.pop("labels")
    for one, other in zip(again, bench.calibration(), strict=True):
        assert one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)
        assert one["input_ids"].any() and "labels" in one
