"""What two records of one name differ in, and whether the one may give way to the other. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from attnbench.errors import UserError
from attnbench.inputs.names import OWN
from attnbench.methods import spec
from attnbench.methods.protocol import needs_fit
from attnbench.records import provenance
from attnbench.records.provenance import CHANGES_NUMBERS, CHANGES_WHERE_SET, COMPANIONS, FILE
from attnbench.records.record import Record

CALIBRATION = ("calibration", "calibration_samples", "calibration_tokens")  # settings, and their fingerprints
CALIBRATED = ("calibration", "calibration documents")
# a thing of the user's own -> the fingerprints by which two of them are told apart
PLACED = {
    "checkpoint": ("checkpoint", COMPANIONS),
    "task": ("dataset", "task"),
    "calibration": ("calibration documents",),
}
ANOTHER = {
    "checkpoint": "another checkpoint: other weights, from another place",
    "task": "another task or data file of that name, from another place",
    "calibration": "another file of that name to learn from, from another place",
}
CHANGED = {
    "checkpoint": "its weights have changed",
    COMPANIONS: "what lies beside its weights has changed",
    "dataset": "the data have changed",
    "task": "the task's definition has changed",
    "calibration documents": "what methods learn from has changed",
}


def conflict(old: Record, new: Record) -> str | None:
    """Say how a measured record is of something else than one of its name, None where it may give way.

    It may where weights, data or code of the same places have changed, and where more samples come.
    """
    if old.status != "measured":
        return None
    if old.cell != new.cell:
        return f"shares its file with {' · '.join(old.cell.values())}"
    for name in _counting(CHANGES_NUMBERS, new):
        then, now = old.settings.get(name), new.settings.get(name)
        if name in old.settings and then != now and not (name == "limit" and _more(then, now)):
            return f"was measured with {name} {_shown(name, then)}, not {_shown(name, now)}"
    for name in _counting(CHANGES_WHERE_SET, new):
        then, now = old.settings.get(name), new.settings.get(name)
        if then != now:
            return f"was measured with {name} {_shown(name, then)}, not {_shown(name, now)}"
    for name, prints in PLACED.items():
        same = same_place(old, new, name)
        told = prints if same is False else prints[:1] if name == "checkpoint" and same is None else ()
        if any(_differ(old, new, each) for each in told):
            return f"was measured on {ANOTHER[name]}"
    return None


def changes(old: Record, new: Record) -> list[str]:
    """List in words why a record does not hold for what is to be measured now; nothing where it does."""
    if new.status == "not applicable":
        return ["not applicable any more"]
    if holds(old, new):
        return []
    found = []
    limits = [item.settings.get("limit") for item in (old, new)]
    for name in _counting((*CHANGES_NUMBERS, *CHANGES_WHERE_SET), new):
        then, now = old.settings.get(name), new.settings.get(name)
        if then != now:
            said = "more samples, " if name == "limit" and _more(then, now) else ""
            found.append(f"{said}{name} {_shown(name, then)} before, {_shown(name, now)} now")
    prints = [item.provenance.get("fingerprints", {}) for item in (old, new)]
    for name in prints[0].keys() | prints[1].keys():
        then, now = (each.get(name) for each in prints)
        if name == "dataset" and limits[0] != limits[1]:
            continue  # other samples are another data set by its hash
        if then != now:
            what = name.removeprefix(FILE) if name.startswith(FILE) else f"its {name}"
            found.append(CHANGED.get(name, f"{what} has changed"))
    if old.provenance.get("code") != new.provenance.get("code"):
        found.append("its code has changed")
    return sorted(found) or ["attnbench measures otherwise since"]


def holds(old: Record, new: Record) -> bool:
    """Tell whether a record is of what is to be measured now.

    What a run is calibrated on is no part of a cell whose methods learn nothing.
    """
    if provenance.holds(old.provenance, new.provenance):
        return True
    if "identity" not in old.provenance or _learns(new):
        return False
    settings = {**new.settings, **{name: old.settings.get(name) for name in CALIBRATION}}
    prints, code = dict(new.provenance.get("fingerprints", {})), new.provenance.get("code")
    before = old.provenance.get("fingerprints", {})
    prints |= {name: before[name] for name in CALIBRATED if name in before}
    return bool(old.provenance["identity"] == provenance.identity(new.cell, prints, settings, code))


def _counting(names: Iterable[str], new: Record) -> list[str]:
    """Return the settings by which a cell may differ."""
    return [name for name in names if name not in CALIBRATION or _learns(new)]


def _learns(item: Record) -> bool:
    """Tell whether a cell's methods learn; of a plugin that is not here they may."""
    try:
        return any(map(needs_fit, spec.parse(item.cell["method"])))
    except UserError:
        return True


def _more(then: int | None, now: int | None) -> bool:
    return then is not None and (now is None or now > then)


def _shown(name: str, value: Any) -> str:
    return str(value) if value is not None else "all" if name == "limit" else "none"


def _differ(old: Record, new: Record, name: str) -> bool:
    then, now = (item.provenance.get("fingerprints", {}).get(name) for item in (old, new))
    return None not in (then, now) and then != now


def same_place(old: Record, new: Record, name: str) -> bool | None:
    """Tell whether both have a thing from one place, None where an older record does not say."""
    then, now = old.provenance, new.provenance
    if name == "checkpoint" and not {then.get("source"), now.get("source")} & {*OWN}:
        return (then.get("source"), then.get("model")) == (now.get("source"), now.get("model"))
    if "places" not in then:
        return None
    return bool(then["places"].get(name) == now.get("places", {}).get(name))
