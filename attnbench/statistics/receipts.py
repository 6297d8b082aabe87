"""What records say beside their numbers: whether the method acted, on how much, whether it was checked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from attnbench.methods import verdicts
from attnbench.methods.families import name_without_seed

if TYPE_CHECKING:
    from attnbench.records.record import Record

MOSTLY, MOSTLY_DENSE = 0.5, "mostly dense"  # fewer scored tokens than that saw a cut cache


def check(members: Sequence[Record]) -> str | None:
    """Say where `attnbench check` found a fault in the method's code, or never saw it."""
    said = [str(item.provenance.get("check")).partition(":")[0] for item in members]
    return next((word for word in (verdicts.FAILED, verdicts.UNCHECKED) if word in said), None)


def mostly_dense(members: Sequence[Record]) -> str | None:
    """Say so where most of what is scored saw no cut cache though a method cuts them."""
    return MOSTLY_DENSE if any(item.receipt.get("cut", 1) < MOSTLY for item in members) else None


def effect(members: Sequence[Record]) -> str | None:
    """Say what changed nothing: the method, or some of its seeds."""
    idle = [item.receipt.get("effect") for item in members].count("no effect")
    if idle == len(members):
        return "no effect"
    return f"{idle} of {len(members)} seeds without effect" if idle else None


def noted(records: Sequence[Record], show: Callable[[str], str]) -> list[str]:
    """Say on how many samples methods noted something of a prompt, of several seeds on the most."""
    most: dict[tuple[str, ...], int] = {}
    for item in records:
        method = name_without_seed(item.cell["method"])
        for note, count in item.receipt.get("notes", {}).items():
            key = (item.cell["model"], item.cell["task"], method, note)
            most[key] = max(most.get(key, 0), count)
    return [
        f"{show(model)} {show(task)} {show(method)}: {show(note)} on {count} sample{'s' * (count != 1)}."
        for (model, task, method, note), count in most.items()
    ]
