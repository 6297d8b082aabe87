"""What a board can tell apart: who is tied with the best, each method over all columns, odd sweeps. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from tabulate import tabulate

from attnbench.methods.controls import CONTROLS
from attnbench.methods.families import amounts, family, name_without_seed
from attnbench.records.inert import Show, escape
from attnbench.statistics import against_dense, inference, pairs, same_samples
from attnbench.statistics.ranks import ranks
from attnbench.statistics.row import LEVEL, Row

if TYPE_CHECKING:
    from attnbench.boards.board import Board, Section
    from attnbench.records.record import Record

Columns = dict[tuple[str, str], dict[str, Row]]
Groups = dict[tuple[str, str], "dict[str, list[Record]]"]
# what tells which of two amounts compresses more: a field of a row, and its sign
STRENGTH = (("bits", -1), ("cache", -1), ("kv", -1), ("heads", -1), ("sparsity", 1))
SUMMED = ["method", "columns", "mean kept [95 %]", "better", "worse", "undecided"]
NAMED = 8  # methods that a line names
Ranks = dict[str, tuple[int, int]]


def files(found: Board, name: str) -> dict[str, bytes]:
    """Return what is separable on a board as NAME-ranks.md."""
    title = found.suite.title if found.suite else "Records"
    parts = [f"# {escape(title, 200)}: what is separable"]
    for section in found.sections:
        parts += [f"## {section.title}", *of_section(section)]
    return {f"{name}-ranks.md": ("\n\n".join(parts) + "\n").encode()}


def of_section(section: Section) -> list[str]:
    """Write ranks by column, a summary of methods over columns and alarms of sweeps, as far as there are."""
    columns, groups = columns_of(section)
    parts = []
    if found := ranked(columns, groups):
        parts += ["\n".join(f"- {line}" for line in ties(found, columns, escape)), _matrix(found), RANKS]
    if summed := list(summary(columns, escape)):
        parts += [table(SUMMED, summed), SUMMARY]
    if told := alarms(columns, groups, escape):
        parts.append("\n".join([ALARMS, "", *(f"- {line}" for line in told)]))
    return parts


def columns_of(section: Section) -> tuple[Columns, Groups]:
    """Return by model and task the rows of first metrics, and the records, each by method."""
    columns: Columns = {}
    for row in section.rows:
        if row.primary and row.status == "measured":
            columns.setdefault((row.model, row.task), {})[row.method] = row
    return columns, pairs.groups(section.records)


def ranked(columns: Columns, groups: Groups) -> dict[tuple[str, str], Ranks]:
    """Return the ranks of every column that has some."""
    return {key: found for key, rows in columns.items() if (found := ranks_of(rows, groups[key]))}


def ranks_of(rows: dict[str, Row], records: dict[str, list[Record]]) -> Ranks:
    """Return the best and worst rank of each method of a column; nothing of fewer than two methods."""
    first = next(iter(rows.values()))
    names = [name for name, row in rows.items() if name not in CONTROLS and row.metric == first.metric]
    members = {name: _members(name, records) for name in names}
    members = {
        name: items for name, items in members.items()
        if items and all(first.metric in item.scores for item in items)
    }  # fmt: skip
    if len(members) < 2:
        return {}
    arrays = [[np.asarray(item.scores[first.metric], float) for item in items] for items in members.values()]
    kind = next(iter(members.values()))[0].metrics[first.metric].get("aggregate", "mean")
    try:
        return dict(zip(members, ranks(kind, arrays, first.higher_is_better), strict=True))
    except ValueError:
        return {}


def ties(ranked: dict[tuple[str, str], Ranks], columns: Columns, show: Show) -> Iterator[str]:
    """Yield a line for each column: how many methods are tied with the best, and which where few are."""
    for key, found in ranked.items():
        tied = [name for name, (best, _) in found.items() if best == 1]
        samples = next(iter(columns[key].values())).samples
        told = f": {', '.join(map(show, tied))}" if len(tied) <= NAMED else ""
        counted = f"{len(tied)} of {len(found)} methods tied with the best on {samples:,} samples"
        yield f"{' on '.join(map(show, key))}: {counted}{told}."


def _matrix(ranked: dict[tuple[str, str], Ranks]) -> str:
    """Write the ranks of every method on every column, bold where it is tied with the best."""
    lines = []
    for name in dict.fromkeys(name for found in ranked.values() for name in found):
        cells = [found.get(name) for found in ranked.values()]
        lines.append([escape(name), *map(_rank, cells)])
    return table(["method", *(", ".join(map(escape, key)) for key in ranked)], lines)


def _rank(found: tuple[int, int] | None) -> str:
    if found is None:
        return ""
    best, worst = found
    told = f"{best}–{worst}" if worst > best else str(best)
    return f"**{told}**" if best == 1 else told


def _members(name: str, records: dict[str, list[Record]]) -> list[Record]:
    """Return the records that a row is of, those with a number on dense's samples."""
    dense = records.get("dense", [])
    return [
        item for item in records.get(name, [])
        if against_dense.problem(item) is None and not (dense and same_samples.other_samples(item, dense[0]))
    ]  # fmt: skip


def summary(columns: Columns, show: Show) -> Iterator[list[str]]:
    """Yield a line for each method of two columns or more: its mean over them, and how they came out."""
    found: dict[str, list[tuple[Row, Row | None]]] = {}
    for rows in columns.values():
        for name, row in rows.items():
            if name not in CONTROLS and row.difference is not None:
                found.setdefault(name, []).append((row, rows.get("uniform")))
    for name, mine in found.items():
        if len(mine) < 2:
            continue
        known = [(row, floor) for row, floor in mine if row.kept is not None and floor and floor.difference]
        kept = ""
        if known:
            mean = float(np.mean([row.kept for row, _ in known]))
            widths = [
                (row.high - row.low) / 2 / abs(floor.difference)
                for row, floor in known
                if floor and floor.difference and row.high is not None and row.low is not None
            ]
            half = math.sqrt(sum(width**2 for width in widths)) / len(known)
            kept = f"{100 * mean:.0f}% [{100 * (mean - half):.0f}, {100 * (mean + half):.0f}]"
            kept += f" of {len(known)}" if len(known) < len(mine) else ""
        better, worse = (sum(getattr(row, side) for row, _ in mine) for side in ("better", "worse"))
        counts = [str(number) for number in (better, worse, len(mine) - better - worse)]
        yield [show(name), str(len(mine)), kept, *counts]


def alarms(columns: Columns, groups: Groups, show: Show) -> list[str]:
    """Return a line for each step of a sweep that compresses more and scores more, Holm over all steps."""
    found: list[tuple[float, str]] = []
    for key, rows in columns.items():
        sweeps: dict[str, list[str]] = {}
        for name in rows:
            if name not in CONTROLS:
                sweeps.setdefault(family(name_without_seed(name)), []).append(name)
        for members in sweeps.values():
            for one, other in pairwise(sorted(members, key=amounts)):
                if sum(a != b for a, b in zip(amounts(one), amounts(other), strict=True)) != 1:
                    continue  # more on one side and less on the other is no step
                weak, strong = _by_strength(rows[one], rows[other])
                if weak is None or strong is None:
                    continue
                try:
                    apart = pairs.difference(groups[key][strong.method], groups[key][weak.method])
                except (pairs.Undefined, pairs.UserError):
                    continue
                one_sided = apart.p / 2 if apart.gain[1] > 0 else 1 - apart.p / 2
                told = f"{' on '.join(map(show, key))}: {show(strong.method)} scores {apart.interval} "
                found.append((one_sided, told + f"against {show(weak.method)}, which leaves more."))
    corrected = inference.holm([p for p, _ in found])
    return [line for (_, line), p in zip(found, corrected, strict=True) if p <= LEVEL]


def _by_strength(one: Row, other: Row) -> tuple[Row | None, Row | None]:
    """Return the row that leaves more and the one that leaves less, by the first measure that tells."""
    for field, sign in STRENGTH:
        a, b = getattr(one, field), getattr(other, field)
        if a is not None and b is not None and not math.isclose(a, b, rel_tol=1e-3, abs_tol=1e-3):
            return (one, other) if sign * a < sign * b else (other, one)
    return None, None


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Lay out a table of text."""
    return str(tabulate(rows, header, tablefmt="github", disable_numparse=True))


RANKS = (
    "Ranks among the methods of a column that its samples leave open, all together with 95 % confidence, "
    "paired; bold where the first is among them: tied with the best. Random baselines are ranked as well."
)
SUMMARY = (
    "Mean kept: over the columns that a method is in, which need not be another's; its interval is of the "
    "samples, dense and uniform taken as they are. Better, worse: the interval of the difference to dense "
    "is on one side of zero, uncorrected; undecided: neither."
)
ALARMS = (
    "Sweeps that turn round: what compresses more scores more, beyond chance (Holm over all steps of all "
    "sweeps). Look for a fault, or for too few samples to fit on:"
)
