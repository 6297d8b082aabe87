"""A study of heads as text, CSV files and heat maps."""

from __future__ import annotations

import csv
import math
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path

from attnbench.errors import UserError, require_folder
from attnbench.methods.describe import docstring
from attnbench.records import record
from attnbench.studies.importance import EFFECT, Study, Table, criteria

WIDTH = 110


def describe(found: Study) -> str:
    """Return a study as text: layers × heads for each criterion and what it is, then rank correlations."""
    lines = [f"{found.model} on {found.task}: heads by importance, higher is more important"]
    for name, table in found.tables.items():
        lines += ["", title(found, name), *_aligned(_rows(table, "{:.4f}")), *_explained(name)]
    lines += [f"{name}: not applicable: {reason}" for name, reason in found.absent.items()]
    lines += [f"{name}: failed: {reason}" for name, reason in found.failed.items()]
    if len(found.tables) > 1:
        lines += ["", "Spearman's rank correlation", *_aligned(_matrix(found, "{:.2f}"))]
    return "\n".join(lines)


def title(found: Study, name: str) -> str:
    """Say what the numbers of a table are."""
    if name != EFFECT:
        return name
    better = "higher" if found.higher_is_better else "lower"
    return (
        f"{EFFECT}: how much worse {found.metric} is without this head alone "
        f"(with every head it is {found.dense:.4f}; {better} is better)"
    )


def _explained(name: str) -> list[str]:
    """Return a criterion's first line and formula, from its docstring."""
    cls = criteria().get(name)
    if cls is None:
        return []
    first, parts = docstring(cls)
    text = [first, parts.get("formula", "")]
    wrapper = textwrap.TextWrapper(
        WIDTH, initial_indent="  ", subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
    )
    return [line for part in text for line in wrapper.wrap(part)]


def _rows(table: Table, form: str) -> list[list[str]]:
    widest = max(map(len, table.values()))
    kinds = len({kind for kind, _ in table}) > 1
    return [
        ["kind", "layer", *map(str, range(widest))][0 if kinds else 1 :],
        *(
            [kind, str(layer), *(form.format(value) for value in values)][0 if kinds else 1 :]
            for (kind, layer), values in table.items()
        ),
    ]


def _matrix(found: Study, form: str, empty: str = "–") -> list[list[str]]:
    names, values = list(found.tables), found.correlations()
    return [["", *names], *([a, *(_number(values[a, b], form, empty) for b in names)] for a in names)]


def _number(value: float, form: str, empty: str) -> str:
    return form.format(value) if math.isfinite(value) else empty


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[k]) for row in rows if k < len(row)) for k in range(max(map(len, rows)))]
    return ["  ".join(cell.rjust(widths[k]) for k, cell in enumerate(row)) for row in rows]


def prepare(folder: str | Path) -> None:
    """Make the folder that studies are written to. Raises UserError where that cannot be."""
    require_folder("--output", folder)
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--output {folder}: cannot be written: {error.strerror or error}") from error


def write(found: Study, folder: str | Path) -> Path:
    """Write a study: a CSV and a heat map a criterion, correlations.csv. Returns the folder of the files."""
    from attnbench.boards.pictures import heatmap

    target = Path(folder, record.file_name(found.model), record.file_name(found.task))
    try:
        target.mkdir(parents=True, exist_ok=True)
        for name, table in found.tables.items():
            _write_csv(target / f"{name}.csv", [["kind", *_header(table)], *_lines(table)])
            picture = heatmap.draw(
                table, f"{found.model}, {found.task}\n{title(found, name)}", diverging=name == EFFECT
            )
            (target / f"{name}.png").write_bytes(picture)
        _write_csv(target / "correlations.csv", _matrix(found, "{:.6f}", ""))
    except OSError as error:
        raise UserError(f"--output {folder}: cannot be written: {error.strerror or error}") from error
    return target


def _header(table: Table) -> list[str]:
    return ["layer", *map(str, range(max(map(len, table.values()))))]


def _lines(table: Table) -> list[list[str]]:
    return [
        [kind, str(layer), *(_number(value, "{!r}", "") for value in values)]
        for (kind, layer), values in table.items()
    ]


def _write_csv(path: Path, rows: Iterable[Sequence[str]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)
