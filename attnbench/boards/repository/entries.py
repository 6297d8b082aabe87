"""The files that a repository of results is made of: suites, and boards of looks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from attnbench.boards import checks, publish, suite
from attnbench.boards.findings import asked, checked
from attnbench.boards.findings import publish as findings
from attnbench.boards.findings.asked import Findings
from attnbench.boards.suite import Suite
from attnbench.errors import UserError
from attnbench.records import merging
from attnbench.studies import merging as looked

Entry = Suite | Findings
FORMATS = ("md", "csv", "html", publish.PLOTS, "parquet", "ranks")  # of a suite


def load(path: str | Path) -> Entry:
    """Read a file, whichever it is. Raises UserError."""
    return asked.load(path) if asked.is_of_looks(path) else suite.load(path)


def problems(entry: Entry) -> Iterator[str]:
    """Yield why what is recorded cannot be believed. Raises UserError where nothing is."""
    found = entry.records
    if isinstance(entry, Findings):
        if not any(found.rglob("*.json")):
            raise UserError(f"{entry.path}: nothing is measured. `attnbench look {entry.path}` does it.")
        told = checked.problems(entry, found)
    else:
        if not any(found.glob("*/*/*.json")):
            raise UserError(f"{entry.path}: nothing is measured. `attnbench run {entry.path}` does it.")
        told = checks.problems(found, entry)
    yield from (f"{found}: {line}" for line in told)


def bring(entry: Entry, into: Path) -> list[str]:
    """Copy the records of a file into a folder; return a line for each that contradicts one there."""
    merge = looked.merge if isinstance(entry, Findings) else merging.merge
    return merge([entry.records], into).problems


def rendered(entry: Entry) -> dict[str, bytes]:
    """Return the files of a board, with its pictures and tables."""
    if isinstance(entry, Findings):
        return findings.files(findings.load(entry.path), findings.STANDARD, entry.name)
    return publish.files(publish.load(str(entry.path), entry.records), FORMATS, entry.name)
