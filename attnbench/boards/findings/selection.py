"""Rows of a study's tables, as boards of looks name them. Pure.

    rows = STUDY "." TABLE ["where" condition ("and" condition)*]    roles.heads where layer = 2
    condition = NAME ("<" | "<=" | ">" | ">=" | "=" | "!=") VALUE    vectors = 'last layer'

A name is one of the table's index or columns, a value a number or a text, in quotes where it has several
words. Where `method` is not named, the rows are the dense model's.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from attnbench.errors import UserError, unknown
from attnbench.studies.passes import DENSE

if TYPE_CHECKING:
    from pandas import DataFrame, Series

TOKEN = re.compile(r"\s*('[^']*'|<=|>=|!=|[<>=]|[^\s<>=!']+)")
SIGNS: Mapping[str, Callable[[Any, Any], Any]] = {
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
    "=": operator.eq, "!=": operator.ne,
}  # fmt: skip
LOW, HIGH = "_low", "_high"  # end the names of the columns that hold another one's interval
METHOD = "method"
Tables = Mapping[str, Mapping[str, "DataFrame"]]  # study -> table -> all methods, `method` first in its index


@dataclass(frozen=True)
class Condition:
    """One comparison of a name with a value."""

    name: str
    sign: str
    value: str

    def holds(self, table: DataFrame) -> Series:
        """Tell of which rows it is true, by their numbers."""
        column = table[self.name]
        return _compared(column, self.sign, self.value, self.name)

    def bounds(self, table: DataFrame) -> tuple[Series, Series]:
        """Tell of which rows it is surely true, and of which it can be: by intervals where there are any."""
        low, high = self.name + LOW, self.name + HIGH
        if low not in table or high not in table or self.sign in ("=", "!="):
            return self.holds(table), self.holds(table)
        one, two = (_compared(table[name], self.sign, self.value, name) for name in (low, high))
        return one & two, one | two


@dataclass(frozen=True)
class Rows:
    """Some rows of one table."""

    study: str
    table: str
    where: tuple[Condition, ...] = ()

    def of(self, tables: Tables, every: bool = False) -> DataFrame:
        """Return the rows with the index as columns, of `every` method where none is named.

        Raises UserError for a name that is not there.
        """
        if self.study not in tables:
            raise unknown("study", self.study, tables, f"This look has {', '.join(tables)}.")
        known = tables[self.study]
        if self.table not in known:
            raise unknown("table", self.table, known, f"{self.study} has {', '.join(known)}.")
        found = known[self.table].reset_index()
        where = self.where
        if not every and METHOD not in (each.name for each in where):
            where = (Condition(METHOD, "=", DENSE), *where)
        for each in where:
            require(each.name, found)
            found = found[each.holds(found)]
        return found


def require(name: str, table: DataFrame) -> None:
    """Raise UserError where a table has no such column."""
    if name not in table:
        raise unknown("column", name, list(table), f"The table has {', '.join(table)}.")


def _compared(column: Series, sign: str, value: str, name: str) -> Series:
    try:
        return SIGNS[sign](column.astype(float), float(value))
    except ValueError:
        pass
    if sign not in ("=", "!="):
        raise UserError(f"'{name} {sign} {value}': texts are = or !=, numbers have an order")
    return SIGNS[sign](column.astype(str), value)


def words(text: str) -> list[str]:
    """Split a text into names, signs and values. Raises UserError for a quote that does not end."""
    found, at = [], 0
    while text[at:].strip():
        match = TOKEN.match(text, at)
        if match is None:
            raise UserError(f"'{text}': cannot be read from '{text[at:].strip()}' on")
        found.append(match[1])
        at = match.end()
    return found


def rows(given: Sequence[str]) -> Rows:
    """Read rows from their words. Raises UserError saying what they may look like."""
    study, dot, table = given[0].partition(".") if given else ("", "", "")
    rest = list(given[1:])
    if not (study and dot and table) or (rest and rest[0] != "where"):
        raise UserError("write STUDY.TABLE, or STUDY.TABLE where NAME = VALUE and ...")
    return Rows(study, table, conditions(rest[1:]) if rest else ())


def conditions(given: Sequence[str]) -> tuple[Condition, ...]:
    """Read conditions from their words. Raises UserError saying what they may look like."""
    found = []
    for start in range(0, max(1, len(given)), 4):
        part, more = given[start : start + 3], given[start + 3 : start + 4]
        if len(part) != 3 or part[1] not in SIGNS or (more and (more != ["and"] or len(given) == start + 4)):
            raise UserError(f"write NAME {' | '.join(SIGNS)} VALUE, with 'and' between several")
        found.append(Condition(part[0], part[1], part[2].strip("'")))
    return tuple(found)
