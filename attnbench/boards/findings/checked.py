"""Whether the records of a board of looks can be believed. Reads, writes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from attnbench.boards.checks import LARGEST, PRIVATE
from attnbench.boards.findings.asked import Asked, Findings
from attnbench.records import provenance
from attnbench.studies import looks
from attnbench.studies.looks import Kept
from attnbench.studies.passes import DENSE


def problems(findings: Findings, folder: Path) -> Iterator[str]:
    """Yield one line for everything that is wrong with the records under a folder."""
    wanted = {
        looks.path_of(folder, asked.cell(study, method)): asked
        for asked in findings.looks
        for study in asked.studies
        for method in (DENSE, *asked.methods)
    }
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = path.relative_to(folder).as_posix()
        if path.suffix not in LARGEST or path.name.startswith("."):
            yield f"{name}: no record, left over"
        elif path.stat().st_size > LARGEST[path.suffix]:
            yield f"{name}: {path.stat().st_size:,} bytes, at most {LARGEST[path.suffix]:,}"
        elif path.suffix == ".npz":
            if not path.with_suffix(".json").exists():
                yield f"{name}: arrays without a record"
        elif path not in wanted:
            yield f"{name}: is of no look of {findings.path.name}"
        else:
            try:
                kept = looks.read(path)
            except ValueError as error:
                yield f"{name}: {str(error).removeprefix(f'{path}: ')}"
                continue
            yield from (f"{name}: {told}" for told in _of(kept, path, folder, wanted[path]))


def _of(kept: Kept, path: Path, folder: Path, asked: Asked) -> Iterator[str]:
    source = kept.provenance
    if looks.path_of(folder, kept.cell) != path:
        yield f"holds the cell {' '.join(kept.cell.values())!r}, which has another file name"
    if kept.status not in looks.HOLDS or bool(kept.error) != (kept.status != looks.HOLDS[0]):
        yield f"is {kept.status}, with the error {kept.error!r}"
    found = provenance.identity(kept.cell, source.get("fingerprints", {}), kept.settings, source.get("code"))
    if source.get("identity") != found:
        yield "its identity is of other settings, data or weights, or of older numerics: look again"
    if kept.settings.get("limit") != asked.limit:
        yield f"looked at with limit {kept.settings.get('limit')}, the board says {asked.limit}"
    if PRIVATE.search(str(source.get("command", ""))):
        yield "its command names a path of one machine: look by the board's file, with ATTNBENCH_MODELS"
