"""Records made by hand, for the tests of tables."""

from __future__ import annotations

from typing import Any

import numpy as np

from attnbench.measures.fidelity import summary
from attnbench.records import provenance
from attnbench.records.record import Record
from attnbench.statistics.aggregates import aggregate
from attnbench.statistics.fidelity import array_name
from attnbench.statistics.inference import standard_error


def record(method: str, model: str = "tiny", task: str = "sst2", kind: str = "mean", **scores: Any) -> Record:
    """Make a measured record: `acc=array` is the per-sample array of a metric that is computed as `kind`."""
    arrays = {name: np.asarray(array, float) for name, array in scores.items()}
    metrics = {
        name: {
            "value": aggregate(kind, array),
            "stderr": standard_error(kind, [array]),
            "higher_is_better": kind != "perplexity",
            "aggregate": kind,
        }
        for name, array in arrays.items()
    }
    samples = len(next(iter(arrays.values())))
    return Record(
        {"model": model, "task": task, "method": method},
        "measured",
        metrics=metrics,
        scores={"doc_id": np.arange(samples), **arrays},
        settings={"limit": None, "batch_size": 32, "dtype": "float32"},
        environment={"versions": {"attnbench": "0.1.0", "torch": "2.13.0"}, "processor": "Xeon", "cores": 2},
        seconds={"fit": 1.0, "evaluate": 2.5, "measure": 9.0},
        date="2026-11-20T10:00:00+00:00",
    )


def faithful(item: Record, **arrays: Any) -> Record:
    """Give a record what its answers are to dense's: `flips=array`, `answers_changed=array`, `kl=array`."""
    found = {array_name(name.replace("_", "-")): np.asarray(array, float) for name, array in arrays.items()}
    item.scores |= found
    item.measured = {**item.measured, "fidelity": summary(found)}
    return item


def missing(
    method: str, status: str, error: str | None = None, model: str = "tiny", task: str = "sst2"
) -> Record:
    """Make a record without a number."""
    return Record({"model": model, "task": task, "method": method}, status, error)


def right(samples: int, wrong: int, start: int = 0) -> np.ndarray:
    """Return 0/1 scores with `wrong` mistakes from sample `start` on."""
    scores = np.ones(samples)
    scores[start : start + wrong] = 0
    return scores


def board() -> list[Record]:
    """Return a small table: one model, one task of 1,000 samples, every kind of row."""
    dense = right(1000, 80)
    records = [record("dense", acc=dense), record("uniform", acc=right(1000, 480))]
    records += [record("prune95", acc=right(1000, 120)), record("logquant3", acc=right(1000, 82))]
    records += [record(f"prune80:random{seed}", acc=right(1000, 140 + 20 * i))
                for i, seed in enumerate(("", ":seed=1", ":seed=2"))]  # fmt: skip
    records += [record("prune50", acc=right(1000, 88)), record("prune0", acc=dense)]
    records += [missing("heads50:l1", "failed", "heads50:l1: ValueError: every head has the same l1 norm")]
    records += [missing("window64:on=cross", "not applicable", "no cross attention")]
    by_name = {item.cell["method"]: item for item in records}
    by_name["logquant3"].measured = {"sparsity": 0.312, "bits": 3.0}
    by_name["prune95"].measured = {"sparsity": 0.9463}
    by_name["prune0"].receipt = {"effect": "no effect"}
    by_name["dense"].receipt = {"effect": "no effect"}
    return records


def identify(item):
    """Give a record the identity that its content has."""
    source = item.provenance
    source.setdefault("fingerprints", {})
    source["identity"] = provenance.identity(
        item.cell, source["fingerprints"], item.settings, source.setdefault("code", "0" * 64)
    )
