"""What is recorded of a file's looks, as tables. Reads, measures nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from attnbench.boards.findings.asked import Asked, Findings
from attnbench.boards.findings.selection import Tables
from attnbench.methods import spec
from attnbench.methods.plugins import registry
from attnbench.studies import looks
from attnbench.studies.compared import compared
from attnbench.studies.looking import MEASURED, Found
from attnbench.studies.looks import Kept
from attnbench.studies.passes import DENSE


@dataclass
class Seen:
    """One look: what its studies found, by their names, and a line for each that found nothing."""

    asked: Asked
    number: int
    records: dict[tuple[str, str], Kept] = field(default_factory=dict)  # (study, method)
    found: dict[str, Found] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)

    @property
    def tables(self) -> Tables:
        """Return study -> table -> all methods and their differences to dense."""
        return {name: compared(each.tables) for name, each in self.found.items()}


def seen(findings: Findings, folder: str | Path) -> Iterator[Seen]:
    """Yield each look with its records in a folder, numbered from 1."""
    for number, asked in enumerate(findings.looks, 1):
        one = Seen(asked, number)
        for name, text in asked.names.items():
            _read(one, name, text, folder)
        yield one


def _read(one: Seen, name: str, text: str, folder: str | Path) -> None:
    study = spec.parse_study(text)
    made = Found(text, registry().studies[study.name].shown)
    told = {}
    for method in (DENSE, *one.asked.methods):
        path = looks.path_of(folder, one.asked.cell(text, method))
        try:
            kept = looks.read(path) if path.is_file() else None
        except ValueError as error:
            told[method] = f"cannot be read: {error}"
            continue
        if kept is None:
            told[method] = "not measured"
        elif kept.status != MEASURED:
            told[method] = f"{kept.status}: {kept.error}"
        else:
            one.records[name, method] = kept
            made.tables[method], made.arrays[method] = kept.tables, kept.arrays
    if DENSE in made.tables:
        one.found[name] = made
    else:
        told = {DENSE: told[DENSE]}
    for method, why in told.items():
        one.missing[name if method == DENSE else f"{name} with {method}"] = why
