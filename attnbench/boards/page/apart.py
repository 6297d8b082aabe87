"""What the samples of a table can tell apart, on the page."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from attnbench.boards.board import Section
from attnbench.boards.page.markup import WIDE, safe
from attnbench.boards.tables import apart
from attnbench.boards.tables.separable import ALARMS, SUMMED
from attnbench.records.inert import clean


def of_section(section: Section) -> str:
    """Write the part below a table, empty where there is nothing to say."""
    found = apart.of_section(section, clean)
    if not found:
        return ""
    parts = [f"<h3>{apart.TITLE}</h3>", _list(found.columns)]
    parts += [f"<p>{apart.BUDGETS}</p>", _list(found.budgets)] if found.budgets else []
    parts += [f"<p>{safe(apart.LEFT_OUT, 400)}</p>"] if found.left_out else []
    if found.summary:
        shown = f"{WIDE.format(apart.SUMMARY_TITLE)}{_table(found.summary)}</div>"
        parts.append(f"<details><summary>{apart.SUMMARY_TITLE}</summary>{shown}</details>")
    parts += [f"<p>{safe(ALARMS, 400)}</p>", _list(found.alarms)] if found.alarms else []
    notes = "".join(f"<p>{safe(line, 1000)}</p>" for line in found.notes)
    return "\n".join([*parts, f'<div class="notes">{notes}</div>'])


def _list(lines: Iterable[str]) -> str:
    told = "".join(f"<li>{safe(line, 1000)}</li>" for line in lines)
    return f"<ul>{told}</ul>" if told else ""


def _table(rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f'<th scope="col"{_side(k)}>{safe(name)}</th>' for k, name in enumerate(SUMMED))
    lines = ["".join(f"<td{_side(k)}>{safe(text, 200)}</td>" for k, text in enumerate(row)) for row in rows]
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _side(place: int) -> str:
    return ' class="text"' if place == 0 else ""
