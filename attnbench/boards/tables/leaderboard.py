"""Records to a table that reads in a terminal and on a code host, with its verdict and footnotes. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from tabulate import tabulate

from attnbench.boards import board, choice, decisions
from attnbench.boards.board import Board, Section
from attnbench.boards.tables import footnotes
from attnbench.boards.tables.cells import COSTS, answers, costs, kept, left_out, score_title, task_of
from attnbench.errors import UserError
from attnbench.methods.families import name_without_seed
from attnbench.records.inert import Show, clean, escape, wrap
from attnbench.statistics import against_dense
from attnbench.statistics.row import Row

if TYPE_CHECKING:
    from attnbench.records.record import Record

DIFFERENCE = "Δ dense [95 %]"
CHECKS = {"failed": "fails check", "unchecked": "unchecked"}
FOLDED = 12  # verdicts: more are folded
LEFT = ("model", "task", "method", "metric", "")
# no room for these in a terminal
WIDE = ("answers changed", "KL", "heads", "sim. FLOPs", "FLOPs", "memory", "KV bytes", "divergence")


def render(records: Iterable[Record], format: str = "md", margin: float = against_dense.MARGIN) -> str:
    """Render records for a terminal ("text") or as markdown ("md"), pocket models in a table of their own.

    Raises UserError where records contradict each other: see against_dense.rows.
    """
    return write(board.build(records, margin=margin), format)


def write(found: Board, format: str = "md", pictures: Iterable[tuple[str, str]] = ()) -> str:
    """Write a board as text or markdown; `pictures` are (title, path) to show in markdown."""
    if format not in ("md", "text"):
        raise UserError(f"unknown format '{format}'. Tables are md or text.")
    markdown, suite = format == "md", found.suite
    show = escape if markdown else clean
    parts = []
    if suite is not None:
        parts.append(("# " if markdown else "") + show(suite.title, 200))
        parts += [show(paragraph, 2000) for paragraph in suite.about.split("\n\n") if paragraph.strip()]
    parts += [_section(section, markdown) for section in found.sections]
    parts += [*_choices(found, markdown), *_claims(found, markdown)]
    if found.absent:
        lines = [f"- {show(line, 400)}" for line in found.absent]
        parts.append("\n".join([*(["## Not measured", ""] if markdown else ["Not measured"]), *lines]))
    if markdown:
        parts += [f"![{escape(title, 200)}]({path})" for title, path in pictures]
    if suite is not None:
        file = f"{suite.path.resolve().parent.name}/{suite.path.name}"
        lines = [f"attnbench run {file}", f"attnbench leaderboard {file} --output {file.partition('/')[0]}"]
        told = " and ".join(f"`{clean(line, 200).replace('`', '')}`" for line in lines)
        parts.append(f"Made by {told if markdown else told.replace('`', '')}.")
    return "\n\n".join(parts) or "No records."


def _choices(found: Board, markdown: bool) -> list[str]:
    choices = choice.choose(found)
    if not choices:
        return []
    return [*_titled("How far each can go", *choice.table(choices), markdown), choice.NOTE]


def _claims(found: Board, markdown: bool) -> list[str]:
    outcomes = decisions.evaluate(found)
    if not outcomes:
        return []
    return [*_titled("Claims", *decisions.table(outcomes), markdown), "\n".join(decisions.notes(outcomes))]


def _titled(title: str, header: list[str], rows: list[list[str]], markdown: bool) -> list[str]:
    show = escape if markdown else clean
    body = [[show(cell, 200) for cell in row] for row in rows]
    table = tabulate(body, header, tablefmt="github" if markdown else "plain", disable_numparse=True)
    return [f"## {title}" if markdown else title, table]


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
        body = item.body()
        model, task, method = board.cell_of(item)
        names = (method, name_without_seed(method))
        rows = next((found[model, task, name] for name in names if (model, task, name) in found), {})
        out.append(_plain({**body, "comparison": {name: row for name, row in rows.items() if name}}))
    return out


def _section(section: Section, markdown: bool) -> str:
    show = escape if markdown else clean
    verdicts = footnotes.verdicts(section.rows, show)
    hidden = () if markdown else WIDE
    notes = footnotes.footnotes(section.rows, section.records, show, hidden)
    if markdown:
        listed = [f"- {line}" for line in verdicts]
        if len(listed) > FOLDED:
            summary = "<details><summary>Verdict of each method</summary>"
            listed = [footnotes.counts(section.rows), "", summary, "", *listed, "", "</details>"]
        body = [f"## {section.title}", "", _markdown(section.rows), "", *listed]
        return "\n".join([*body, "", *(f"<sub>{line}</sub><br>" for line in notes)]).rstrip()
    lines = [*verdicts, "", *notes] if verdicts else notes
    return "\n".join([section.title, "", _text(section.rows), "", *map(wrap, lines)]).rstrip()


def _markdown(rows: Sequence[Row]) -> str:
    lines, before = [], ("", "", "")
    for row in rows:
        here = (row.model, row.task, row.method)
        names = [escape(row.model), task_of(row, escape), _method(row, escape)]
        blank = [here[: k + 1] == before[: k + 1] for k in range(3)]
        shown = ["" if same else name for same, name in zip(blank, names, strict=True)]
        lines.append({**dict(zip(("model", "task", "method"), shown, strict=True)), **cells(row, escape)})
        before = here
    return _tabulate(lines, rows, "github", escape)


def _text(rows: Sequence[Row]) -> str:
    # at 120 columns there is no room for model and task beside the rest: they stand above their methods
    lines: list[dict[str, str]] = []
    group, method = ("", ""), ""
    for row in rows:
        if (row.model, row.task) != group:
            group, method = (row.model, row.task), ""
            if lines:
                lines.append({})
            lines.append({"model, task, method": f"{clean(row.model)} {task_of(row, clean)}"})
        name = "" if row.method == method else f"  {_method(row, clean)}"
        method = row.method
        short = answers(row, ends=False) if row.primary else {}
        lines.append({"model, task, method": name, **cells(row, clean), **short})
    return _tabulate(lines, rows, "plain", clean)


def _tabulate(lines: Sequence[dict[str, str]], rows: Sequence[Row], style: str, show: Show) -> str:
    """Lay cells out by column, leaving out those that tell nothing; a single metric goes into the header."""
    header = {name: name for line in lines for name in line}
    header["score"] = show(score_title(rows))
    drop = left_out(rows, lines) | (set(WIDE) if style == "plain" else set())
    names = [name for name in header if name not in drop]
    body = [[header[name] for name in names], *([line.get(name, "") for name in names] for line in lines)]
    text = tabulate(
        body,
        "firstrow" if style == "github" else (),
        tablefmt=style,
        disable_numparse=True,
        preserve_whitespace=True,
        colalign=["left" if name in LEFT or name.endswith("method") else "right" for name in names],
    )
    if style == "github":
        return text
    first, *rest = (line.rstrip() for line in text.split("\n"))
    return "\n".join([first, "─" * max(map(len, (first, *rest))), *rest])


def _method(row: Row, show: Show) -> str:
    told = notes(row)
    return ("└ " if row.control_of else "") + show(row.method) + (f" ({told})" if told else "")


def notes(row: Row) -> str:
    """Say how many seeds a row is of, whether the method changed nothing and whether its code was checked."""
    seeds = f"{row.seeds} seeds" if row.seeds > 1 and "seeds" not in (row.effect or "") else ""
    return ", ".join(filter(None, (seeds, row.effect, CHECKS.get(row.check or ""))))


def cells(row: Row, show: Show) -> dict[str, str]:
    """Write the numbers of a row: what a method costs stands beside its first metric only."""
    if row.status != "measured":
        return {
            "metric": "",
            "score": "–",
            DIFFERENCE: show(footnotes.reason(row), footnotes.CUT),
        }
    score = row.amount(row.score)
    if row.stderr is not None and math.isfinite(row.stderr):
        score += f" ± {row.amount(row.stderr, 2)}"
    if row.seed_low is not None:
        score += f" ({row.amount(row.seed_low)}–{row.amount(row.seed_high)})"
    cells = {
        "metric": show(row.metric),
        "score": score,
        DIFFERENCE: row.interval,
        "": row.mark,
        "kept": kept(row),
        **costs(row),
        "divergence": "" if row.divergence is None else f"{row.divergence:.3f}",
        "seconds": "" if row.seconds is None else f"{row.seconds:.1f}",
    }
    return cells if row.primary else cells | dict.fromkeys(COSTS, "")


def _plain(value: Any) -> Any:
    """Return JSON's types only: no NaN, no tuple, no numpy."""
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    return None if isinstance(value, float) and not math.isfinite(value) else value
