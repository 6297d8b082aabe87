"""A board as plain HTML tables: what a notebook shows, without a script."""

from __future__ import annotations

import html

from attnbench.boards.board import Board, Section
from attnbench.boards.tables import cells, footnotes, summary
from attnbench.boards.tables.legend import marks
from attnbench.records.inert import clean
from attnbench.statistics.row import Row

LEFT = ("method", "metric", "")


class Table(str):
    """A table as text, which a prompt shows as it is and a notebook as HTML."""

    html = ""

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        return self.html


def of(board: Board) -> str:
    """Write a board's tables, with what came of each method and the meaning of the marks below."""
    return "\n".join(map(_section, board.sections)) or "<p>No records.</p>"


def _section(section: Section) -> str:
    rows = section.rows
    lines = [{"method": cells.method(row, clean), **cells.of(row, clean)} for row in rows]
    dropped = cells.left_out(rows, lines)
    names = [name for name in ("method", "metric", "score", cells.DIFFERENCE, "", *cells.COSTS)]
    names = [name for name in names if name not in dropped]
    titles = {"score": clean(cells.score_title(rows))}
    head = "".join(f"<th{_style(name)}>{_safe(titles.get(name, name))}</th>" for name in names)
    body, before = [], ("", "")
    for row, line in zip(rows, lines, strict=True):
        if (row.model, row.task) != before:
            before = (row.model, row.task)
            told = _safe(f"{row.model} {cells.task_of(row, str)}")
            body.append(f'<tr><th colspan="{len(names)}" style="text-align: left">{told}</th></tr>')
        body.append(f"<tr>{''.join(_cell(row, line, name) for name in names)}</tr>")
    notes = [*summary.in_short(rows, clean), *marks(rows), *footnotes.remarks(rows, section.records, clean)]
    told = "<br>".join(map(_safe, notes))
    return (
        f'<div style="overflow-x: auto"><table><caption style="text-align: left">{_safe(section.title)}'
        f"</caption><thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table></div><p>{told}</p>"
    )


def _cell(row: Row, line: dict[str, str], name: str) -> str:
    indent = " padding-left: 2em" if name == "method" and row.control_of else ""
    return f"<td{_style(name, indent)}>{_safe(line.get(name, ''))}</td>"


def _style(name: str, more: str = "") -> str:
    wrap = "min-width: 11.5em" if name == "score" else "white-space: nowrap"  # a range may stand below
    return f' style="text-align: {"left" if name in LEFT else "right"}; {wrap};{more}"'


def _safe(text: str) -> str:
    return html.escape(clean(text, 2000), quote=True)
