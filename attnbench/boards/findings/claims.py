"""What is claimed of a study's tables, and what they say of it. Pure.

    claim = ("all" | "at least" NUMBER["%"]) "of" rows "have" condition ("and" condition)*

    at least 25% of roles.heads have sink > 0.5
    all of probe.compared where vectors = 'last layer' have behind > 0

A column x that has x_low and x_high beside it, its 95 % interval, is held against a threshold by these: a row
has what is claimed where the whole interval has, and lacks it where none of it has.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from attnbench.boards.findings import selection
from attnbench.boards.findings.selection import HIGH, LOW, Condition, Rows, Tables
from attnbench.errors import UserError

if TYPE_CHECKING:
    from pandas import DataFrame

AMOUNT = re.compile(r"(\d+(?:\.\d+)?)(%?)")
HOLDS, FAILS, OPEN = "holds", "fails", "open"
FEW = 3  # rows whose numbers are told one by one


@dataclass(frozen=True)
class Claim:
    """So many of some rows have something; `least` None is all, with `share` it is a share of 1."""

    text: str
    rows: Rows
    have: tuple[Condition, ...]
    least: float | None = None
    share: bool = False

    def need(self, rows: int) -> int:
        """Return how many of so many rows have to have it."""
        if self.least is None:
            return rows
        return math.ceil(self.least * rows - 1e-9) if self.share else int(self.least)


@dataclass(frozen=True)
class Outcome:
    """A claim with its verdict, and in words what was found."""

    claim: Claim
    verdict: str
    found: str


def parse(text: str) -> Claim:
    """Read a claim. Raises UserError saying what it may look like."""
    try:
        given = selection.words(text)
        least, share, rest = _quantity(given)
        if "have" not in rest:
            raise UserError("it says nothing that they have")
        at = rest.index("have")
        rows = selection.rows(rest[:at])
        return Claim(text, rows, selection.conditions(rest[at + 1 :]), least, share)
    except UserError as error:
        shape = "'all of ROWS have NAME > NUMBER', or 'at least 25% of', 'at least 3 of'"
        raise UserError(f"claim '{text}': {error}. A claim is {shape}") from None


def _quantity(given: Sequence[str]) -> tuple[float | None, bool, list[str]]:
    if list(given[:2]) == ["all", "of"]:
        return None, False, list(given[2:])
    amount = AMOUNT.fullmatch(given[2]) if len(given) > 2 else None
    if list(given[:2]) != ["at", "least"] or amount is None or list(given[3:4]) != ["of"]:
        raise UserError("it does not say of how many")
    share = bool(amount[2])
    if not share and "." in amount[1]:
        raise UserError(f"{amount[1]} rows are not a whole number")
    return float(amount[1]) / (100 if share else 1), share, list(given[4:])


def decide(claim: Claim, tables: Tables, missing: Sequence[str] = ()) -> Outcome:
    """Hold a claim against tables; it stays open where intervals do not tell, or `missing` has its study.

    Raises UserError for a name that a table has not.
    """
    if claim.rows.study in missing:
        return Outcome(claim, OPEN, "not measured")
    table = claim.rows.of(tables)
    if not len(table):
        return Outcome(claim, OPEN, "no such row")
    for each in claim.have:
        selection.require(each.name, table)
    surely = maybe = table.iloc[:, 0].notna() | True
    have = surely
    for each in claim.have:
        sure, can = each.bounds(table)
        surely, maybe, have = surely & sure, maybe & can, have & each.holds(table)
    need = claim.need(len(table))
    verdict = HOLDS if surely.sum() >= need else FAILS if maybe.sum() < need else OPEN
    return Outcome(claim, verdict, _told(claim, table, int(have.sum())))


def _told(claim: Claim, table: DataFrame, have: int) -> str:
    counted = f"{have} of {len(table)}" + (f" ({have / len(table):.0%})" if claim.share else "")
    if len(table) > FEW:
        return counted
    names = list(dict.fromkeys(each.name for each in claim.have))
    told = "; ".join(
        ", ".join(f"{name} {with_interval(table, row, name)}" for name in names) for row in range(len(table))
    )
    return told if len(table) == 1 else f"{counted}: {told}"


def with_interval(table: DataFrame, row: int, name: str) -> str:
    """Write a number, and its interval where the table has one."""
    value, *ends = (table[column].iloc[row] for column in (name, name + LOW, name + HIGH) if column in table)
    known = len(ends) == 2 and not any(isinstance(end, float) and math.isnan(end) for end in ends)
    return number(value) + (f" [{number(ends[0])}, {number(ends[1])}]" if known else "")


def number(value: object) -> str:
    """Write a number with three digits or so, a whole one as it is, and nothing for none."""
    if not isinstance(value, float):
        return str(value)
    if not math.isfinite(value):
        return "–" if math.isnan(value) else str(value)
    if value == int(value) and abs(value) < 1e6:
        return str(int(value))
    return f"{value:.3f}" if 0.0995 <= abs(value) < 100 else f"{value:.3g}"
