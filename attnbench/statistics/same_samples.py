"""Whether two records can be paired: of the same weights, samples, data and task definition."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from attnbench.inputs.prompting import NAMES
from attnbench.records.provenance import COMPANIONS
from attnbench.statistics.aggregates import Array

if TYPE_CHECKING:
    from attnbench.records.record import Record

REMEDY = "run it again with the same --limit, or keep them in different --records folders"


def others(measured: dict[str, Record]) -> dict[str, str]:
    """Say of which cells the samples are others than dense's, or than the first one's."""
    if not measured:
        return {}
    reference = measured.get("dense") or next(iter(measured.values()))
    told = {method: other_samples(item, reference) for method, item in measured.items()}
    return {method: each for method, each in told.items() if each}


def other_samples(item: Record, reference: Record) -> str | None:
    """Say how a record is of other weights, samples, data or tasks than one it is paired with, or None."""
    name, samples, others = (
        reference.cell["method"], item.scores.get("doc_id"), reference.scores.get("doc_id")
    )  # fmt: skip
    if samples is not None and others is not None:
        if len(samples) != len(others):
            return f"has {_samples(samples)}, {name} {len(others):,}: {REMEDY}"
        if not np.array_equal(samples, others):
            return f"was not measured on the same samples in the same order as {name}: {REMEDY}"
    for key in ("dataset", "task"):
        ours, theirs = (each.provenance.get("fingerprints", {}).get(key) for each in (item, reference))
        if ours != theirs:
            return f"is of another version of the {key} than {name}: measure them again"
    if item.cell["model"] == reference.cell["model"] and (told := _other_model(item, reference)):
        return told
    ours, theirs = (each.settings.get("max_length") for each in (item, reference))
    if ours != theirs:
        return f"has texts cut to {ours or 'no'} tokens, {name} to {theirs or 'none'}: measure them again"
    ours, theirs = ({key: each.settings.get(key) for key in NAMES} for each in (item, reference))
    if ours != theirs:
        key = next(key for key in NAMES if ours[key] != theirs[key])
        return f"has other prompts than {name} ({key.replace('_', '-')}): measure them again"
    return None


def _other_model(item: Record, reference: Record) -> str | None:
    """Say how a record of one model's name is of other weights than another, or None."""
    name = reference.cell["method"]
    prints = [each.provenance.get("fingerprints", {}) for each in (item, reference)]
    for key, words in (("checkpoint", "of other weights"), (COMPANIONS, "of another tokenizer or settings")):
        known = [each.get(key) for each in prints]
        if None not in known and known[0] != known[1]:
            return f"is {words} than {name}: measure them again, or keep them in different --records folders"
    ours, theirs = (each.settings.get("dtype") for each in (item, reference))
    if None not in (ours, theirs) and ours != theirs:
        return f"was measured in {ours}, {name} in {theirs}: {REMEDY.replace('--limit', '--dtype')}"
    return None


def _samples(ids: Array) -> str:
    return f"{len(ids):,} sample{'' if len(ids) == 1 else 's'}"
