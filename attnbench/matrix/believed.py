"""Whether a record is what was measured: by what it says itself, and beside one that was measured again."""

from __future__ import annotations

from typing import Any

from attnbench.records import provenance
from attnbench.records.record import Record

# of the same first samples: by how much each may be another on another machine, where rounding moves a value
# over an edge, and with it a level may go
LOOKED_AT = {"sparsity": 0.02, "nominal": 0.02, "heads": 0.02, "divergence": 0.02, "bits": 1.0}


def doubt(old: Record) -> str | None:
    """Say why a measured record cannot be what was measured, None where nothing in it says so."""
    from attnbench.statistics import against_dense

    if old.status != "measured":
        return None
    if told := against_dense.problem(old):
        return told
    source = old.provenance
    own = provenance.identity(old.cell, source.get("fingerprints", {}), old.settings, source.get("code"))
    if source.get("identity") != own:
        return "its identity is of other settings, data or weights, or of older numerics"
    return None


def differences(old: Record, new: Record) -> tuple[list[str], bool]:
    """Say what else is not as it was; all but the method's code counts against the record."""
    lines, stands = [], True
    then, now = (item.provenance.get("fingerprints", {}) for item in (old, new))
    for key, words in (
        ("checkpoint", "the weights are others"),
        ("task", "the task's definition has changed"),
        ("calibration documents", "the method has learned from others"),
    ):
        if then.get(key) != now.get(key):
            lines.append(f"{key}: {words}")
            stands = False
    for key in sorted(then.keys() | now.keys()):
        if key.startswith(provenance.FILE) and then.get(key) != now.get(key):
            lines.append(f"{key}: its content is another")
            stands = False
    if old.provenance.get("code") != new.provenance.get("code"):
        lines.append("code: the method's code has changed since")
    if old.receipt.get("sites_hit") != new.receipt.get("sites_hit"):
        here, there = (item.receipt.get("sites_hit") for item in (new, old))
        lines.append(f"receipt: {here} sites reached now, {there} in the record")
        stands = False
    if not any(name in old.measured for name in LOOKED_AT):
        return lines, stands  # it states nothing of them
    if _fewer(old, new):
        lines.append(f"{', '.join(LOOKED_AT)}: not compared, {len(_ids(new))} samples are too few")
        return lines, stands
    for name, near in {"samples": 0.0, **LOOKED_AT}.items():
        before, now = old.measured.get(name), new.measured.get(name)
        if (before is None) != (now is None) or abs((before or 0) - (now or 0)) > near:
            lines.append(f"{name}: {now} now, {before} then: DISAGREES")
            stands = False
    return lines, stands


def _fewer(old: Record, new: Record) -> bool:
    """Tell whether so few samples were measured again that attention was looked at on fewer of them."""
    from attnbench.measures.measure import SAMPLES

    return len(_ids(new)) < min(SAMPLES, len(_ids(old)))


def _ids(item: Record) -> Any:
    return item.scores.get("doc_id", ())
