"""Records to a table that reads on a code host, or in a terminal, with its verdict and footnotes. Pure."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from tabulate import tabulate

from attnbench.boards import board, choice, decisions
from attnbench.boards.board import Board, Section
from attnbench.boards.tables import anchors, apart, cells, footnotes, glossary, summary, text
from attnbench.boards.tables.text import FILE, Screen
from attnbench.errors import UserError
from attnbench.methods.families import name_without_seed
from attnbench.records.inert import clean, escape
from attnbench.statistics import against_dense, ordering
from attnbench.statistics.row import Row

if TYPE_CHECKING:
    from attnbench.records.record import Record

FOLDED = 12  # verdicts: more are folded
SWEEPS = (
    "In pictures of scores a family that was measured at a single amount is one point without a line; above "
    "each panel stands what it leaves out."
)
LEFT = ("model", "task", "method", "metric", "")


def render(
    records: Iterable[Record],
    format: str = "md",
    margin: float = against_dense.MARGIN,
    sort: str = ordering.FAMILY,
    screen: Screen = FILE,
) -> str:
    """Render records as text or as markdown ("md"), pocket models in a table of their own.

    Raises UserError where records contradict each other: see against_dense.rows.
    """
    return write(board.build(records, margin=margin, sort=sort), format, screen=screen)


def write(
    found: Board, format: str = "md", pictures: Iterable[tuple[str, str]] = (), screen: Screen = FILE
) -> str:
    """Write a board as text for a screen or as markdown; `pictures` are (title, path) to show in markdown."""
    if format not in ("md", "text"):
        raise UserError(f"unknown format '{format}'. Tables are md or text.")
    markdown, suite = format == "md", found.suite
    show = escape if markdown else clean
    parts = []
    if suite is not None:
        parts.append(("# " if markdown else "") + show(suite.title, 200))
        about = [show(paragraph, 2000) for paragraph in suite.about.split("\n\n") if paragraph.strip()]
        parts += about if markdown else map(screen.wrap, about)
    parts += [_section(each) if markdown else text.section(each, screen) for each in found.sections]
    parts += (
        _titled("How far each can go", *choice.table(choices), [choice.NOTE], markdown, screen)
        if (choices := choice.choose(found))
        else []
    )
    parts += (
        _titled("Claims", *decisions.table(outcomes), decisions.notes(outcomes), markdown, screen)
        if (outcomes := decisions.evaluate(found))
        else []
    )
    if found.absent:
        lines = [f"- {show(line, 400)}" for line in found.absent]
        lines = lines if markdown else list(map(screen.wrap, lines))
        parts.append("\n".join([*(["## Not measured", ""] if markdown else ["Not measured"]), *lines]))
    if markdown:
        drawn = list(pictures)
        parts += [f"![{escape(title, 200)}]({path})" for title, path in drawn]
        parts += [SWEEPS] if any("/score-" in path for _, path in drawn) else []
    if suite is not None:
        file, folder = str(suite.path), str(suite.path.parent)
        if screen.width is None:  # a file is read elsewhere, from the folder that holds the suite's
            folder = suite.path.resolve().parent.name
            file = f"{folder}/{suite.path.name}"
        written = shlex.join(["attnbench", "leaderboard", file, "--output", folder])
        lines = [shlex.join(["attnbench", "run", file]), written]
        told = [clean(line, 200).replace("`", "") for line in lines]
        code = " and ".join(f"`{line}`" for line in told)
        parts.append(f"Made by {code}." if markdown else "\n  ".join(["Made by:", *told]))
        parts += [glossary.link(suite.path)] if markdown else []
    return "\n\n".join(parts) or "No records."


def _titled(
    title: str, header: list[str], rows: list[list[str]], notes: Iterable[str], markdown: bool, screen: Screen
) -> list[str]:
    show = escape if markdown else clean
    body = [[show(cell, 200) for cell in row] for row in rows]
    if not markdown:
        return [title, text.table(header, body, screen), "\n".join(map(screen.wrap, notes))]
    return [f"## {title}", tabulate(body, header, "github", disable_numparse=True), "\n".join(notes)]


def to_json(records: Iterable[Record], margin: float = against_dense.MARGIN) -> list[dict[str, Any]]:
    """Return the records as plain dicts, each with `comparison`: metric -> its row of the table."""
    return [body for section in board.build(records, margin=margin).sections for body in bodies(section)]


def bodies(section: Section) -> list[dict[str, Any]]:
    """Return a section's records as plain dicts with their rows."""
    out = []
    found: dict[tuple[str, ...], dict[str, Any]] = {}
    for row in section.rows:
        found.setdefault((row.model, row.task, row.method), {})[row.metric] = row.as_dict()
    for item in section.records:
        model, task, method = board.cell_of(item)
        names = (method, name_without_seed(method))
        rows = next((found[model, task, name] for name in names if (model, task, name) in found), {})
        compared = {name: row for name, row in rows.items() if name}
        out.append({**plain_body(item), "comparison": _plain(compared)})
    return out


def plain_body(item: Record) -> dict[str, Any]:
    """Return a record as JSON's types only."""
    return {key: _plain(value) for key, value in item.body().items()}


def _section(section: Section) -> str:
    listed = [f"- {line}" for line in summary.of_methods(section.rows, escape)]
    if len(listed) > FOLDED:
        told = "<details><summary>Verdict of each method</summary>"
        listed = [summary.counts(section.rows), "", told, "", *listed, "", "</details>"]
    notes = footnotes.footnotes(section.rows, section.records, escape)
    body = [f"## {section.title}", "", _table(section.rows), "", *listed]
    text = "\n".join([*body, "", *(f"<sub>{line}</sub><br>" for line in notes)]).rstrip()
    return "\n\n".join(filter(None, (text, apart.markdown(section))))


def _table(rows: Sequence[Row]) -> str:
    """Lay cells out by column, leaving out those that tell nothing; a single metric goes into the header."""
    lines, before = [], ("", "", "")
    for row in rows:
        here = (row.model, row.task, row.method)
        names = [escape(row.model), cells.task_of(row, escape), cells.method(row, escape)]
        blank = [here[: k + 1] == before[: k + 1] for k in range(3)]
        shown = ["" if same else name for same, name in zip(blank, names, strict=True)]
        lines.append({**dict(zip(("model", "task", "method"), shown, strict=True)), **cells.of(row, escape)})
        before = here
    header = {name: name for line in lines for name in line}
    header["score"] = escape(cells.score_title(rows))
    drop = cells.left_out(rows, lines)
    names = [name for name in header if name not in drop]
    text = tabulate(
        [[header[name] for name in names], *([line.get(name, "") for name in names] for line in lines)],
        "firstrow",
        tablefmt="github",
        disable_numparse=True,
        preserve_whitespace=True,
        colalign=["left" if name in LEFT else "right" for name in names],
    )
    head, rule, *body = text.splitlines()
    return "\n".join([head, rule, *map(_linked, body, rows)])


def _linked(line: str, row: Row) -> str:
    """Put a row's anchor at the end of its line, where it does not widen the columns of the text."""
    anchor = anchors.of(row)
    return line.removesuffix("|") + f'<a id="{anchor}"></a> |' if anchor else line


def _plain(value: Any) -> Any:
    """Return JSON's types only: no NaN, no tuple, no numpy."""
    if value is None or type(value) in (str, int, bool):
        return value
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    return None if isinstance(value, float) and not math.isfinite(value) else value
