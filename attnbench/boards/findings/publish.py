"""The files of a board of looks: written together, and whether those that lie there are still true."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attnbench.boards.findings import asked, checked, document
from attnbench.boards.findings.asked import Findings
from attnbench.boards.findings.drawn import FORMS, pictures
from attnbench.boards.findings.kept import Seen, seen
from attnbench.errors import UserError, require_folder

STANDARD = ("md", "plots")  # what --output DIR writes
ON_SCREEN = "md"  # there is no other text


@dataclass(frozen=True)
class Board:
    """A file of looks, and what is recorded of each."""

    findings: Findings
    looks: Sequence[Seen]


def load(path: str | Path, records: str | Path | None = None, sort: str = "") -> Board:
    """Read a file of looks and their records, which lie beside it, in its own order. Raises UserError."""
    findings = asked.load(path)
    return Board(findings, list(seen(findings, records or findings.records)))


def text(found: Board, format: str, folder: str | None = None, screen: Any = None) -> str:
    """Write the board as markdown. Raises UserError for another format."""
    if format != "md":
        raise UserError(f"--format {format}: a board of looks is md; with --output DIR md,plots")
    return document.write(found.findings, found.looks)


def files(found: Board, wanted: Sequence[str], name: str) -> dict[str, bytes]:
    """Return the files of a board by their path under the output folder."""
    out: dict[str, bytes] = {}
    for format in wanted:
        if format != STANDARD[1]:
            out[f"{name}.md"] = text(found, format).encode()
            continue
        for each in pictures(found.looks):
            out |= {f"{name}/{each.file}.{form}": content for form, content in each.draw().items()}
    return out


def problems(path: str | Path, records: str | Path | None = None) -> Iterator[str]:
    """Yield what is wrong with the records of a file of looks, and what is stale beside it."""
    findings = asked.load(path)
    folder = Path(records or findings.records)
    require_folder("--records", folder)
    found = [f"{folder}: {line}" for line in checked.problems(findings, folder)] if folder.is_dir() else []
    yield from found
    if not found:
        yield from _stale(load(path, folder))


def _stale(found: Board) -> Iterator[str]:
    findings = found.findings
    remedy = f"attnbench leaderboard {findings.path} --output {findings.path.parent}"
    page = findings.path.with_suffix(".md")
    if not page.exists():
        if any(look.records for look in found.looks):
            yield f"{page}: not rendered. {remedy}"
    elif page.read_text("utf-8") != text(found, "md"):
        yield f"{page}: stale. {remedy}"
    folder = findings.path.with_suffix("")
    known = {f"{each.file}.{form}": each for each in pictures(found.looks) for form in FORMS}
    for name, each in known.items():
        file = folder / name
        if not file.is_file():
            yield f"{file}: not rendered. {remedy}"
        elif each.digest.encode() not in file.read_bytes():
            yield f"{file}: stale. {remedy}"
    if folder.is_dir():
        yield from (f"{each}: stale. {remedy}" for each in sorted(folder.iterdir()) if each.name not in known)
