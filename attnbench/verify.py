"""Measure a recorded cell again on a few samples and hold the two against each other."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from attnbench import pairs, record, spec, suite
from attnbench.aggregates import aggregate
from attnbench.column import Column, Settings
from attnbench.errors import UserError
from attnbench.record import Record
from attnbench.runner import Silent

LARGEST_SHARE = 0.05
SAME = ("limit", "batch_size", "seed", "dtype", "calibration")


def verify(
    path: str | Path, sample: int, model: str | None = None, trust_remote_code: bool = False
) -> tuple[list[str], bool]:
    """Return what was found, as lines, and whether the record stands.

    It stands where, by every metric and on the same samples, the 95 % interval of the paired difference
    between then and now includes zero and at most 5 % of the samples differ (rounding on another machine
    flips few), and the checkpoint, the task and the sites reached are the same. Raises UserError where the
    record or its model cannot be had.
    """
    try:
        old = record.read(path)
    except ValueError as error:
        raise UserError(f"{error}") from None
    new = _again(old, sample, model or _model(old), trust_remote_code)
    name = " ".join(old.cell.values())
    if old.status != "measured" or new.status != "measured":
        told = [
            f"{name}: recorded as {old.status}, now {new.status}" + (f": {new.error}" if new.error else "")
        ]
        return told, old.status == new.status
    lines, stands = _differences(old, new)
    before, now = _first(old, new)
    for metric in before.metrics:
        found = pairs.difference([now], [before], metric)
        close = np.isclose(now.scores[metric], before.scores[metric], rtol=1e-3, atol=1e-6)
        differ = int((~close).reshape(found.samples, -1).any(1).sum())
        inside = found.low <= 0 <= found.high and differ <= LARGEST_SHARE * found.samples
        lines.append(
            f"{name}: {metric} {found.a:.4f} now, {found.b:.4f} then, on the same {found.samples:,} samples: "
            f"{found.interval}, {differ} differ: {'agrees' if inside else 'DISAGREES'}"
        )
        stands &= inside
    return lines, stands


def _model(old: Record) -> str:
    name, source = old.cell["model"], old.provenance.get("source")
    if source != "folder":
        return name
    base = os.environ.get(suite.PLACES)
    if base and (Path(base) / name / "config.json").is_file():
        return str(Path(base, name).absolute())
    raise UserError(
        f"model '{name}' was a folder: say where it is: --model PATH/{name}, or {suite.PLACES}=PATH."
    )


def _again(old: Record, sample: int, model: str, trust_remote_code: bool) -> Record:
    count = len(old.scores["doc_id"]) if "doc_id" in old.scores else sample
    chosen: dict[str, Any] = {key: old.settings[key] for key in SAME if key in old.settings}
    chosen |= {"limit": min(sample, count), "trust_remote_code": trust_remote_code}
    methods = spec.parse(old.cell["method"])
    with tempfile.TemporaryDirectory() as folder:
        column = Column(model, old.cell["task"], Settings(**chosen), folder, Silent())
        dense, _ = column.measure((), True, False)
        return column.measure(methods, True, False)[0] if methods else dense


def _differences(old: Record, new: Record) -> tuple[list[str], bool]:
    """Say what else is not as it was: another checkpoint or fewer sites count against the record."""
    lines, stands = [], True
    then, now = (item.provenance.get("fingerprints", {}) for item in (old, new))
    for key, words in (
        ("checkpoint", "the weights are others"),
        ("task", "the task's definition has changed"),
    ):
        if then.get(key) != now.get(key):
            lines.append(f"{key}: {words}")
            stands = False
    if old.provenance.get("code") != new.provenance.get("code"):
        lines.append("code: the method's code has changed since")
    if old.receipt.get("sites_hit") != new.receipt.get("sites_hit"):
        lines.append(f"receipt: {new.receipt.get('sites_hit')} sites, then {old.receipt.get('sites_hit')}")
        stands = False
    return lines, stands


def _first(old: Record, new: Record) -> tuple[Record, Record]:
    """Cut the recorded samples to those that were measured again."""
    ids = new.scores["doc_id"]
    place = {int(each): k for k, each in enumerate(old.scores["doc_id"])}
    missing = [int(each) for each in ids if int(each) not in place]
    if missing:
        raise UserError(f"sample {missing[0]} is not in the record: the data are others")
    rows = np.array([place[int(each)] for each in ids])
    metrics = {name: metric for name, metric in old.metrics.items() if name in new.metrics}
    scores = {name: old.scores[name][rows] for name in ("doc_id", *metrics)}
    before = Record(old.cell, "measured", scores=scores)
    now = Record(new.cell, "measured", scores=new.scores)
    for item in (before, now):
        for name, metric in metrics.items():
            value = aggregate(metric.get("aggregate", "mean"), item.scores[name])
            item.metrics[name] = {**metric, "value": value}
    return before, now
