"""`attnbench check` holds studies to batch and padding invariance, and catches what is planted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from attnbench import Study, by_head
from attnbench.cli.main import main
from attnbench.conformance.studies import check_study
from attnbench.methods.plugins import registry


@dataclass
class PerBatch(Study):
    """Average over calls, however many examples each has.

    Shapes: probs (batch, heads, queries, keys). Source: a mistake.
    """

    name, examples, shown = "per-batch", ("per-batch",), ("peak",)

    def begin(self, model: Any, sites: Any) -> None:
        self.sums: dict[Any, Any] = {}
        self.calls: dict[Any, int] = {}

    def probs(self, probs: Any, site: Any) -> None:
        key = site.kind, site.layer
        self.sums[key] = self.sums.get(key, 0) + probs.amax(-1).mean((0, 2)).numpy()
        self.calls[key] = self.calls.get(key, 0) + 1

    def tables(self) -> Any:
        return {"heads": by_head({"peak": {key: self.sums[key] / self.calls[key] for key in self.sums}})}


@dataclass
class Peak(PerBatch):
    """Average over queries.

    Shapes: probs (batch, heads, queries, keys). Source: the same, mended.
    """

    name, examples = "peak-of-queries", ("peak-of-queries",)

    def probs(self, probs: Any, site: Any) -> None:
        key = site.kind, site.layer
        self.sums[key] = self.sums.get(key, 0) + probs.amax(-1).double().sum((0, 2)).numpy()
        self.calls[key] = self.calls.get(key, 0) + site.rows * len(site.samples)


@dataclass
class Undescribed(Peak):
    """Say nothing of its source."""

    name, examples = "undescribed", ("undescribed",)


@dataclass
class ShowsNothing(Peak):
    """Show a column that is not there.

    Shapes: as above. Source: a mistake.
    """

    name, examples, shown = "shows-nothing", ("shows-nothing",), ("gone",)


@pytest.fixture
def planted(monkeypatch):
    known = {cls.name: cls for cls in (PerBatch, Peak, Undescribed, ShowsNothing)}
    monkeypatch.setattr(registry(), "studies", {**registry().studies, **known})


CAUGHT = {"per-batch": "batch", "undescribed": "docstring", "shows-nothing": "runs"}


@pytest.mark.parametrize("name", CAUGHT)
def test_a_planted_mistake_is_caught(name, planted):
    report = check_study(name, families=["bert", "llama"])
    assert not report.ok and CAUGHT[name] in report.failed, str(report)


def test_a_study_that_keeps_its_promises_passes(planted):
    report = check_study("peak-of-queries", families=["bert", "gpt2", "bart"])
    assert report.ok, str(report)


@pytest.mark.parametrize("name", ["distribution", "sparsity", "divergence", "maps"])
def test_the_built_in_ones_keep_theirs(name):
    report = check_study(name, families=["bert", "bart"])
    assert report.ok, str(report)


def test_the_command_takes_studies_as_methods(planted, capsys):
    assert main(["check", "undescribed"]) == 1
    assert "FAILED" in capsys.readouterr().out
