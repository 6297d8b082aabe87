"""What records say beside their numbers: whether the method acted, on how much, whether it was checked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from attnbench.methods import verdicts

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
