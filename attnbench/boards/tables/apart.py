"""What a board can tell apart, in short: ties, methods of one budget, sums over columns, odd sweeps. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from attnbench.boards.tables import separable
from attnbench.boards.tables.separable import ALARMS, NAMED, SUMMARY, SUMMED, Columns, Groups, Ranks
from attnbench.methods.controls import CONTROLS
from attnbench.methods.families import name_without_seed
from attnbench.records.inert import Show, escape
from attnbench.statistics.row import Row

if TYPE_CHECKING:
    from attnbench.boards.board import Section

TITLE = "What the samples can tell apart"
BUDGETS = "Methods at one budget:"
SUMMARY_TITLE = "Each method over all columns"
MOST = 2000  # rows of a table with ranks and alarms: more of them take longer than all else of a board
FEW = 12  # columns with a line each
ALIKE = 0.1  # by which what two methods of one budget leave may differ, relative
SCOPE = re.compile(r":((?:on|layers)=[^:+]+)")
LEFT_OUT = f"Ranks and alarms are left out of tables of more than {MOST:,} rows: --format ranks writes them."
NOTE = (
    "Tied with the best: first place is among the ranks that the samples leave open, 95 % for all methods of "
    "a line together, paired. Methods of one budget have one name and amount, and leave as much. Random "
    "baselines are ranked as well. --format ranks writes every rank."
)


@dataclass(frozen=True)
class Apart:
    """Lines on columns and on budgets, the rows of a summary over columns, alarms; any may be empty."""

    columns: list[str]
    budgets: list[str]
    summary: list[list[str]]
    alarms: list[str]
    left_out: bool = False

    @property
    def notes(self) -> list[str]:
        return [*([NOTE] if self.columns else []), *([SUMMARY] if self.summary else [])]

    def __bool__(self) -> bool:
        return bool(self.columns or self.summary or self.alarms)


def of_section(section: Section, show: Show) -> Apart:
    """Say what the samples of a section can tell apart; ranks only of a table that is not too long."""
    columns, groups = separable.columns_of(section)
    summary = list(separable.summary(columns, show))
    if len(section.rows) > MOST:
        return Apart([], [], summary, [], left_out=True)
    alarms = separable.alarms(columns, groups, show)
    ranked = separable.ranked(columns, groups)
    if len(ranked) <= FEW:
        ties = list(separable.ties(ranked, columns, show))
    else:
        counts = [sum(best == 1 for best, _ in found.values()) for found in ranked.values()]
        ties = [f"{min(counts)} to {max(counts)} methods are tied with the best of a column."]
    return Apart(ties, _budgets(columns, groups, show), summary, alarms)


def markdown(section: Section) -> str:
    """Write a section's part in markdown, empty where there is nothing to say; a long summary is folded."""
    found = of_section(section, escape)
    if not found:
        return ""
    parts = [f"### {TITLE}", *([_list(found.columns)] if found.columns else [])]
    parts += [BUDGETS, _list(found.budgets)] if found.budgets else []
    parts += [LEFT_OUT] if found.left_out else []
    if found.summary:
        shown = separable.table(SUMMED, found.summary)
        if len(found.summary) > FEW:
            shown = f"<details><summary>{SUMMARY_TITLE}</summary>\n\n{shown}\n\n</details>"
        parts.append(shown)
    parts += [f"{ALARMS}\n\n{_list(found.alarms)}"] if found.alarms else []
    return "\n\n".join([*parts, "\n".join(f"<sub>{line}</sub><br>" for line in found.notes)])


def _list(lines: Sequence[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _budgets(columns: Columns, groups: Groups, show: Show) -> list[str]:
    """Write a line for each budget at which some method is behind, and how many have none."""
    found: dict[str, list[Ranks]] = {}
    for key, rows in columns.items():
        sets: dict[str, dict[str, Row]] = {}
        for name, row in rows.items():
            if name not in CONTROLS:
                sets.setdefault(budget(name), {})[name] = row
        for name, members in sets.items():
            if found_here := separable.ranks_of(_alike(members), groups[key]):
                found.setdefault(name, []).append(found_here)
    lines, level = [], 0
    for name, each in found.items():
        if all(best == 1 for ranks in each for best, _ in ranks.values()):
            level += 1
        else:
            lines.append(_line(name, each, show))
    if level:
        lines.append(f"{level} {'other ' if lines else ''}budget{'s' * (level > 1)}: all methods are tied.")
    return lines


def _line(name: str, found: Sequence[Ranks], show: Show) -> str:
    """Write which methods of a budget are tied with the best; of several columns, on how many each is."""
    methods = dict.fromkeys(method for ranks in found for method in ranks)
    first = {m: sum(m in ranks and ranks[m][0] == 1 for ranks in found) for m in methods}
    if len(found) > 1:
        there = {m: sum(m in ranks for ranks in found) for m in methods}
        counts = sorted(first.items(), key=lambda pair: -pair[1])
        told = [
            f"{show(_variant(m, name))} {count}" + (f" of {there[m]}" if there[m] < len(found) else "")
            for m, count in counts
        ]
        return f"{show(name)}, tied with the best on so many of {len(found)} columns: {_some(told)}."
    tied = [m for m, count in first.items() if count]
    behind = _some([show(_variant(m, name)) for m, count in first.items() if not count])
    told = [show(tied[0]), *(show(_variant(m, name)) for m in tied[1:])]
    return f"{_some(told)} {'is best' if len(tied) == 1 else 'are tied with the best'}; behind: {behind}."


def _variant(method: str, name: str) -> str:
    """Shorten a method of a budget whose name stands before it: heads50:entropy is :entropy."""
    return method.removeprefix(name) if method.startswith(f"{name}:") else method


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if names[NAMED:] else "")


def budget(method: str) -> str:
    """Return name and amount of every term of a spec, with where it is applied: its variants share it."""
    terms = name_without_seed(method).split("+")
    return "+".join(term.partition(":")[0] + "".join(f":{s}" for s in SCOPE.findall(term)) for term in terms)


def _alike(members: dict[str, Row]) -> dict[str, Row]:
    """Return the methods that leave as much as the first one does."""
    first = next(iter(members.values()))
    return {name: row for name, row in members.items() if row is first or _as_much(first, row)}


def _as_much(one: Row, other: Row) -> bool:
    """Compare two rows by the first measure that either is compressed by."""
    for a, b in (
        (one.bits, other.bits),
        (one.kv, other.kv),
        (one.cache, other.cache),
        (one.heads, other.heads),
    ):
        if a is not None and b is not None and (a, b) != (1.0, 1.0):
            return abs(a - b) <= ALIKE * max(a, b)
    if one.sparsity is None or other.sparsity is None:
        return True
    a, b = 1 - one.sparsity, 1 - other.sparsity
    return abs(a - b) <= ALIKE * max(a, b)
