"""A table as text, for a screen's columns or for a file.

What a row says of itself first is written first: method, score, difference and verdict always, then, in the
order of KEEP, each column for which there is room. What there is none for is named under the table.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from attnbench.boards.board import Section
from attnbench.boards.tables import cells, footnotes, setting, summary
from attnbench.boards.tables.legend import legend, marks
from attnbench.errors import PARAGRAPH, wrap
from attnbench.records.inert import clean
from attnbench.statistics.row import Row

RANGE = "range of seeds"
KEEP = (
    "kept", "latency", "sparsity", "bits", "kv", "heads", "FLOPs", "memory", "KV bytes", "flips", RANGE,
    "sim. FLOPs", "KL", "cache", "answers changed", "divergence",
)  # fmt: skip
GAP = "  "
NAMES = 0.4  # of a screen at most: a longer name stands on a line of its own
NARROWEST = 16  # columns of a text that is broken into several lines


@dataclass(frozen=True)
class Screen:
    """What text is written for: so many columns, or a file, which is as wide as its tables are.

    `legend` explains the columns; `whole` tells settings, versions and hardware, and by which command,
    which is `made_by` where it is known better than records know it. `shown` writes a text in the characters
    that the terminal has.
    """

    width: int | None = None
    legend: bool = True
    whole: bool = True
    made_by: str | None = None
    shown: Callable[[str], str] = str

    def wrap(self, line: str) -> str:
        return wrap(self.shown(line), self.width or PARAGRAPH)


FILE = Screen()


@dataclass(frozen=True)
class _Line:
    """A row's name, its cells by column, and what stands in their place where it has no number."""

    name: str
    cells: Mapping[str, str]
    instead: str = ""


def section(found: Section, screen: Screen = FILE) -> str:
    """Write a section: its table, what came of each method, notes."""
    rows = found.rows
    shown, missing, room = _table(rows, screen)
    if screen.width is None:
        verdicts = summary.of_methods(rows, clean)
        notes = [*legend(rows), *footnotes.remarks(rows, found.records, clean, room)]
        notes += setting.whole(setting.commands(found.records), found.records, clean)
    else:
        verdicts = summary.in_short(rows, clean)
        notes = legend(rows, missing) if screen.legend else marks(rows)
        notes += footnotes.remarks(rows, found.records, clean, room, missing)
        if missing:
            told = f"No room at {screen.width} columns for {', '.join(missing)}"
            notes.append(f"{told}: a wider terminal and files have them.")
    parts = [found.title, shown, *("\n".join(map(screen.wrap, each)) for each in (verdicts, notes) if each)]
    text = "\n\n".join(parts)
    if screen.width is None:
        return text
    if not screen.whole:
        more = "-v shows the rest" + ("" if screen.legend else ", --legend explains the columns")
        return "\n".join([text, screen.shown(setting.in_short(found.records, screen.width, more))])
    commands = [screen.made_by] if screen.made_by else setting.commands(found.records)
    facts = setting.on_screen(commands, found.records, screen.width)
    return "\n".join([text, *(line if line.startswith(" ") else screen.wrap(line) for line in facts)])


def _table(rows: Sequence[Row], screen: Screen) -> tuple[str, list[str], int]:
    """Return a table, the columns for which it has no room, and how long a reason it holds."""
    lines = [_line(row, before, screen) for row, before in zip(rows, [None, *rows], strict=False)]
    title = {name: screen.shown(name) for name in (cells.DIFFERENCE, *KEEP)}
    title |= {"score": screen.shown(clean(cells.score_title(rows))), RANGE: ""}
    drop = cells.left_out(rows, [line.cells for line in lines])
    if not any(RANGE in line.cells for line in lines):
        drop.add(RANGE)
    fixed = [name for name in ("metric", "score", cells.DIFFERENCE, "") if name not in drop]

    def width_of(name: str) -> int:
        return max([len(title.get(name, name)), *(len(line.cells.get(name, "")) for line in lines)])

    widths = {name: width_of(name) for name in (*fixed, *KEEP)}
    named, chosen, missing = _chosen([line.name for line in lines], widths, fixed, drop, screen.width)
    if RANGE in chosen:  # stands in the score's own column
        chosen.remove(RANGE)
        lines = [_with_range(line) for line in lines]
        widths["score"] = width_of("score")
    room = sum(widths[name] + len(GAP) for name in chosen) - len(GAP)
    room = max(room, screen.width - named - len(GAP)) if screen.width else room
    heads = GAP.join([f"{'method':{named}}", *(_aligned(title.get(n, n), n, widths[n]) for n in chosen)])
    shown, before = [heads.rstrip()], ("", "")
    for row, line in zip(rows, lines, strict=True):
        if (row.model, row.task) != before:
            before = (row.model, row.task)
            shown += [
                *([""] if shown[1:] else []),
                screen.shown(f"{clean(row.model)} {cells.task_of(row, clean)}"),
            ]
        shown += _written(line, named, [(name, widths[name]) for name in chosen], room)
    ruled = max(len(text) for text in shown)
    rule = screen.shown("─") * min(ruled, screen.width or ruled)
    return "\n".join([shown[0], rule, *shown[1:]]), missing, room


def _line(row: Row, before: Row | None, screen: Screen) -> _Line:
    here = (row.model, row.task, row.method)
    same = before is not None and here == (before.model, before.task, before.method)
    name = "" if same else screen.shown(f"{GAP}{cells.method(row, clean)}")
    if row.status != "measured":
        told = footnotes.reason(row)
        if before is not None and here[:2] == (before.model, before.task) and before.status == row.status:
            told = f"{told.partition(':')[0]}: as above" if told == footnotes.reason(before) else told
        return _Line(name, {"score": screen.shown("–")}, screen.shown(told))
    own = cells.of(row, clean) | {"score": cells.score(row)}
    if row.primary:
        own |= cells.answers(row, ends=False)
    if found := cells.seed_range(row):
        own[RANGE] = found.strip()
    return _Line(name, {column: screen.shown(text) for column, text in own.items()})


def _with_range(line: _Line) -> _Line:
    score = " ".join(filter(None, (line.cells["score"], line.cells.get(RANGE, ""))))
    return _Line(line.name, {**line.cells, "score": score}, line.instead)


def _chosen(
    names: Sequence[str], widths: Mapping[str, int], fixed: Sequence[str], drop: set[str], width: int | None
) -> tuple[int, list[str], list[str]]:
    """Return the width of names, the columns that fit beside them in the order of a table, and the others.

    A name for which there is no room stands on a line of its own.
    """
    wanted = [name for name in KEEP if name not in drop]
    if width is None:
        return max(map(len, names)), _ordered([*fixed, *wanted]), []
    left = width - sum(widths[name] + len(GAP) for name in fixed)
    most = min(left, int(NAMES * width))
    named = max((len(name) for name in names if len(name) <= most), default=NARROWEST)
    left -= named
    chosen: list[str] = []
    missing: list[str] = []
    for name in wanted:
        needed = widths[name] + (1 if name == RANGE else len(GAP))
        (chosen if needed <= left else missing).append(name)
        left -= needed if needed <= left else 0
    return named, _ordered([*fixed, *chosen]), missing


def _ordered(names: Sequence[str]) -> list[str]:
    order = ("metric", "score", RANGE, cells.DIFFERENCE, "", *cells.COSTS)
    return [name for name in order if name in names]


def _aligned(text: str, name: str, width: int) -> str:
    return f"{text:<{width}}" if name in ("metric", "") else f"{text:>{width}}"


def _written(line: _Line, named: int, columns: Sequence[tuple[str, int]], room: int) -> list[str]:
    """Write a row, its name above it where that is too long."""
    above = [line.name] if len(line.name) > named else []
    if line.instead:
        told = line.instead if len(line.instead) <= room else f"{line.instead.partition(':')[0]}: see notes"
        return [*above, f"{'' if above else line.name:{named}}{GAP}{clean(told, room)}"]
    texts = [_aligned(line.cells.get(name, ""), name, width) for name, width in columns]
    return [*above, GAP.join([f"{'' if above else line.name:{named}}", *texts]).rstrip()]


def table(header: Sequence[str], rows: Sequence[Sequence[str]], screen: Screen = FILE) -> str:
    """Lay out texts in columns; where they are too wide the widest are broken between words."""
    found = [[screen.shown(text) for text in row] for row in (header, *rows)]
    widths = [max(len(text) for text in column) for column in zip(*found, strict=True)]
    over = sum(widths) + len(GAP) * (len(widths) - 1) - (screen.width or 10**9)
    while over > 0 and (widest := max(widths)) > NARROWEST:
        widths[widths.index(widest)] -= 1
        over -= 1
    out = []
    for row in found:
        parts = [
            textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False) or [""]
            for text, width in zip(row, widths, strict=True)
        ]
        for k in range(max(map(len, parts))):
            texts = [f"{part[k] if k < len(part) else '':{w}}" for part, w in zip(parts, widths, strict=True)]
            out.append(GAP.join(texts).rstrip())
    return "\n".join(out)
