"""Every Eval Ever: one JSON a measured cell, in the folders of that datastore. Pure.

Schema 0.3.0, https://github.com/evaleval/every_eval_ever (MIT). What its schema has no field for, as the
method, its receipt and the paired difference to dense, stands in the free texts of `additional_details` and
`details`. A number with a method is filed under MODEL+METHOD: it is not the model's own.
"""

from __future__ import annotations

import hashlib
import json
import math
import uuid
from typing import TYPE_CHECKING, Any

from attnbench.boards.formats.numbers import Measured, collection, measured

if TYPE_CHECKING:
    from attnbench.boards.board import Board
    from attnbench.statistics.row import Row

SCHEMA = "0.3.0"
NAMES = {"acc": "accuracy", "em": "exact-match"}  # metrics that have a name of all harnesses
SIGNED = ("mcc", "pearson", "spearman")
UNITS = {"fraction": "proportion", "score": "points", "log": "perplexity", "raw": "unitless"}
RELATION = {"pocket": "first_party", "hub": "third_party"}


def files(found: Board, name: str) -> dict[str, bytes]:
    """Return one file a measured cell, by its path under the output folder: NAME-eee/data/….

    A file's name is a hash of its cell, so that a cell measured again takes its own place. A cell without a
    number has none there.
    """
    title = found.suite.title if found.suite else "attnbench"
    out = {}
    for cell in measured(found):
        log = _log(cell, collection(found), title)
        if log["evaluation_results"]:
            folder = f"{name}-eee/data/{collection(found)}/{cell.subject}"
            text = json.dumps(log, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
            out[f"{folder}/{_uuid(cell, collection(found))}.json"] = text.encode()
    return out


def _uuid(cell: Measured, name: str) -> uuid.UUID:
    parts = json.dumps([name, *(cell.record.cell[key] for key in ("model", "task", "method"))])
    return uuid.UUID(bytes=hashlib.sha256(parts.encode()).digest()[:16], version=4)


def _log(cell: Measured, name: str, title: str) -> dict[str, Any]:
    item = cell.record
    source, when = item.provenance.get("source"), str(cell.seconds)
    versions = item.environment.get("versions", {})
    task, method = item.cell["task"], item.cell["method"]
    engine = {key: str(versions[key]) for key in ("torch", "transformers", "lm-eval") if key in versions}
    results = [
        _result(cell, metric, entry, when)
        for metric, entry in cell.metrics.items()
        if entry.get("value") is not None and math.isfinite(entry["value"])
    ]
    return {
        "schema_version": SCHEMA,
        "evaluation_id": f"{name}/{task}/{cell.subject}/{when}",
        "evaluation_timestamp": when,
        "retrieved_timestamp": when,
        "source_metadata": {
            "source_name": title,
            "source_type": "evaluation_run",
            "source_organization_name": "attnbench",
            "evaluator_relationship": RELATION.get(str(source), "other"),
        },
        "eval_library": {
            "name": "attnbench",
            "version": str(versions.get("attnbench", "unknown")),
            "additional_details": engine,
        },
        "model_info": {
            "name": cell.model if method == "dense" else f"{cell.model} with {method}",
            "id": cell.subject,
            "developer": cell.subject.partition("/")[0],
            "inference_platform": "local",
            "inference_engine": {"name": "transformers", "version": engine.get("transformers", "unknown")},
            "additional_details": {
                "deployment_type": "self_deployed",
                "model_availability": "open_weights" if source in RELATION else "unknown",
                "base_model": cell.model,
                "method": method,
                **_texts("fingerprint_", item.provenance.get("fingerprints", {}), ("checkpoint",)),
            },
        },
        "evaluation_results": results,
    }


def _result(cell: Measured, metric: str, entry: dict[str, Any], when: str) -> dict[str, Any]:
    item, row = cell.record, cell.rows.get(metric)
    samples = item.scores.get(metric)
    uncertainty: dict[str, Any] = {} if samples is None else {"num_samples": len(samples)}
    if entry.get("stderr") is not None:
        uncertainty["standard_error"] = {"value": entry["stderr"], "method": "jackknife"}
    config = {
        "evaluation_description": f"{metric} of {item.cell['task']} with {item.cell['method']}",
        "metric_id": NAMES.get(metric, f"attnbench.{metric}"),
        "metric_name": metric,
        "lower_is_better": not entry.get("higher_is_better", True),
        "score_type": "continuous",
        **_bounds(entry.get("aggregate", "mean"), row),
    }
    arguments = {}
    if item.provenance.get("command"):
        arguments["execution_command"] = str(item.provenance["command"])
    return {
        "evaluation_result_id": metric,
        "evaluation_name": item.cell["task"],
        "source_data": {
            "dataset_name": item.cell["task"],
            "source_type": "other",
            "additional_details": _texts(
                "fingerprint_", item.provenance.get("fingerprints", {}), ("dataset", "task", "source")
            ),
        },
        "evaluation_timestamp": when,
        "metric_config": config,
        "score_details": {
            "score": entry["value"],
            "details": _details(cell, row),
            **({"uncertainty": uncertainty} if uncertainty else {}),
        },
        "generation_config": {
            "generation_args": arguments,
            "additional_details": _texts("", item.settings),
        },
    }


def _bounds(kind: str, row: Row | None) -> dict[str, Any]:
    """Return what a score can be at the least and the most, and its unit; infinity is a text there."""
    scale = row.scale if row is not None else "raw"
    low: float | str = {"fraction": 0.0, "score": 0.0, "log": 0.0}.get(scale, "-Infinity")
    high: float | str = {"fraction": 1.0, "score": 100.0}.get(scale, "Infinity")
    return {"metric_unit": UNITS[scale], "min_score": -1.0 if kind in SIGNED else low, "max_score": high}


def _details(cell: Measured, row: Row | None) -> dict[str, str]:
    """Return a cell's paired difference to dense, its receipt and what was measured beside it, as texts."""
    item = cell.record
    told = _texts("receipt_", item.receipt) | _texts("measured_", item.measured)
    told |= _texts("", item.provenance, ("identity", "code", "check"))
    if row is not None:
        names = ("difference", "low", "high", "margin", "scale", "p_holm", "kept", "seeds")
        values = {name: getattr(row, name) for name in names}
        # six digits: more differ from processor to processor, as do those of resamples
        told |= _texts("to_dense_", {
            name: f"{value:.6g}" if isinstance(value, float) else value for name, value in values.items()
        })  # fmt: skip
        told |= {"verdict": row.verdict} if row.verdict else {}
    return told


def _texts(prefix: str, values: dict[str, Any], names: tuple[str, ...] | None = None) -> dict[str, str]:
    """Write values as texts by their names, those that are null left out: the schema takes texts alone."""
    chosen = {key: values.get(key) for key in names} if names else values
    return {
        prefix + key.replace(" ", "_"): value if isinstance(value, str) else json.dumps(value)
        for key, value in chosen.items()
        if value is not None
    }
