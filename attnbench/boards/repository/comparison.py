"""Two versions of a repository of results against each other: which rows are new, changed or gone."""

from __future__ import annotations

from pathlib import Path

from attnbench.boards import publish
from attnbench.boards.findings import document
from attnbench.boards.findings import publish as findings
from attnbench.boards.findings.asked import Findings
from attnbench.boards.repository import entries
from attnbench.boards.repository.layout import BOARDS
from attnbench.errors import UserError
from attnbench.records.inert import escape
from attnbench.statistics.row import Row

SHOWN = 100  # rows of the comparison
Key = tuple[str, str, str, str, str]


def against(folder: str | Path, base: str | Path) -> str:
    """Write in markdown how the rows of a repository differ from those of an older version of it.

    Raises UserError where one is no such repository.
    """
    now, before = rows(folder), rows(base)
    lines = []
    for key in dict.fromkeys([*now, *before]):
        new, old = now.get(key), before.get(key)
        if new == old:
            continue
        word = "new" if old is None else "gone" if new is None else "changed"
        shown = [escape(part) for part in (*key[:4], key[4] or "–")]
        cells = ["–" if each is None else escape(each, 120) for each in (old, new)]
        lines.append(f"| {word} | {' | '.join([*shown, *cells])} |")
    if not lines:
        return "No row of any board differs.\n"
    header = [
        "| | board | model | task | method | metric | before | now |",
        "|---|---|---|---|---|---|---|---|",
    ]
    more = [f"\n… and {len(lines) - SHOWN:,} more."] if lines[SHOWN:] else []
    count = f"{len(lines):,} of {len({*now, *before}):,} rows differ:"
    return "\n".join([count, "", *header, *lines[:SHOWN], *more]) + "\n"


def rows(folder: str | Path) -> dict[Key, str]:
    """Return what rows say, by board, model, task, method and metric; of looks what each claim found."""
    home = Path(folder) / BOARDS
    paths = sorted(home.glob("*.toml"))
    if not paths:
        raise UserError(f"{folder}: no suite in {home}: not what `attnbench publish` lays out")
    found = {}
    for path in paths:
        entry = entries.load(path)
        if isinstance(entry, Findings):
            for look in findings.load(path).looks:
                model, task = (look.asked.cell("", "")[key] for key in ("model", "task"))
                for each in document.decided(entry, look):
                    found[path.stem, model, task, each.claim.text, "claim"] = f"{each.found}: {each.verdict}"
            continue
        for section in publish.load(str(path), entry.records).sections:
            for row in section.rows:
                found[path.stem, row.model, row.task, row.method, row.metric] = _told(row)
    return found


def _told(row: Row) -> str:
    """Write a row's score and its difference to dense, or why there is none."""
    if row.status != "measured":
        return f"{row.status}: {row.error}" if row.error else row.status
    return " ".join(filter(None, (row.amount(row.score), row.interval, row.mark)))
