"""Lists, tables and commands laid out for the columns of a terminal.

A table keeps its first columns, which name a row, and of the others in their order as many as there is room
for; what there is none for is returned by name. Where the names alone take too much they stand on a line of
their own. No word is cut: a name or a path that is longer than a line is one line.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence

from attnbench.errors import say, screen_width, wrap
from attnbench.records.inert import command_lines

GAP = "  "
NAMES = 0.4  # of a screen at most: a longer name stands on a line of its own


def listed(rows: Sequence[tuple[str, str]], width: int) -> list[str]:
    """Write names and what they are beside them, that text broken between words."""
    named = max((len(name) for name, _ in rows if len(name) <= NAMES * width), default=0)
    lines: list[str] = []
    for name, text in rows:
        fits = len(name) <= named
        lines += [] if fits else [name]
        beside = f"{name if fits else '':{named}}{GAP}{text}".rstrip()
        lines += wrap(beside, width, named + len(GAP)).splitlines()
    return lines


def table(
    rows: Sequence[Sequence[str]], fixed: int, width: int, left: int = 0, indent: str = ""
) -> tuple[list[str], list[str]]:
    """Lay out rows, titles first, whose first `fixed` columns name them; `left` of these are to the left.

    Returns lines, and the titles of columns for which there is no room.
    """
    widths = [max(map(len, texts)) for texts in zip(*rows, strict=True)]
    named = sum(widths[:fixed]) + len(GAP) * (fixed - 1) + len(indent)
    above = len(widths) > fixed and named + len(GAP) + max(widths[fixed:]) > width
    room = width - (len(indent) if above else named)
    chosen: list[int] = []
    for k in range(fixed, len(widths)):
        if (room := room - len(GAP) - widths[k]) >= 0:
            chosen.append(k)
        else:
            break
    missing = [rows[0][k] for k in range(fixed, len(widths)) if k not in chosen]

    def cells(row: Sequence[str], columns: Sequence[int]) -> str:
        return GAP.join(row[k].ljust(widths[k]) if k < left else row[k].rjust(widths[k]) for k in columns)

    lines: list[str] = []
    for row in rows:
        if above:
            lines += [f"{indent}{GAP.join(row[:fixed])}", f"{indent}{GAP}{cells(row, chosen)}"]
        else:
            lines.append(f"{indent}{cells(row, [*range(fixed), *chosen])}")
    return [line.rstrip() for line in lines], missing


def blocks(rows: Sequence[Sequence[str]], fixed: int, width: int) -> Iterator[list[str]]:
    """Lay out rows in as many tables below each other as their columns take, each with the first `fixed`."""
    widest = max(len(row) for row in rows)
    whole = [[*row, *[""] * (widest - len(row))] for row in rows]
    while True:
        lines, missing = table(whole, fixed, width)
        yield lines
        if not missing or len(missing) == len(whole[0]) - fixed:
            return
        rest = len(whole[0]) - len(missing)
        whole = [[*row[:fixed], *row[rest:]] for row in whole]


def follow(*commands: str, before: str = "next: ") -> None:
    """Say on stderr which commands may follow: on one line or, where a terminal is too narrow, one a line."""
    line = f"{before}{'   '.join(commands)}"
    width = screen_width(sys.stderr) if sys.stderr is not None and sys.stderr.isatty() else len(line)
    if len(line) <= width:
        say(line)
        return
    say(before.rstrip())
    for command in commands:
        *first, last = (command_lines(part, width) for part in command.split(" && "))
        for part in first:
            part[-1] += " &&"
        for text in (text for part in (*first, last) for text in part):
            say(text, hang=0) if len(text) <= width else print(text, file=sys.stderr)
