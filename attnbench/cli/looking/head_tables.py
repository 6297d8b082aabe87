"""A ranking of heads as text, CSV files and heat maps."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path

from attnbench.cli.screen import laid_out
from attnbench.errors import PARAGRAPH, UserError, require_folder, wrap
from attnbench.methods.describe import docstring
from attnbench.records import record
from attnbench.studies.compared import heads_file
from attnbench.studies.importance import criteria
from attnbench.studies.looking import Look
from attnbench.studies.ranking import EFFECT, Ranking, Table, differs

MARK, KIND = "*", "kind"


def describe(found: Ranking, width: int = PARAGRAPH) -> str:
    """Return a ranking as text: layers × heads for each criterion and what it is, then rank correlations.

    Layer 0 is the lowest line, as in pictures.
    """
    lines = [wrap(f"{found.model} on {found.task}: heads by importance, higher is more important", width)]
    for name, table in found.tables.items():
        rows = _rows(table, found.certain if name == EFFECT else {})
        fixed = 2 if rows[0][0] == KIND else 1
        lines += ["", wrap(title(found, name), width), *_aligned(rows, fixed, width)]
        lines += _explained(found, name, width)
    lines += [wrap(f"{name}: not applicable: {reason}", width) for name, reason in found.absent.items()]
    lines += [wrap(f"{name}: failed: {reason}", width) for name, reason in found.failed.items()]
    if len(found.tables) > 1:
        lines += ["", "Spearman's rank correlation", *_aligned(_matrix(found, "{:.2f}"), 1, width)]
    return "\n".join(lines)


def title(found: Ranking, name: str) -> str:
    """Say what the numbers of a table are."""
    if name != EFFECT:
        return name
    better = "higher" if found.whole["higher_is_better"] else "lower"
    return (
        f"{EFFECT}: how much worse {found.metric} is without this head alone "
        f"(with every head it is {found.whole['value']:.4f}; {better} is better)"
    )


def sure(found: Ranking) -> str:
    """Say which effects differ from zero, and what a sample is worth."""
    heads = sum(map(len, found.certain.values()))
    one = found.whole["one"]
    worth = f", one of them is worth {one:.2g}" if math.isfinite(one) else ""
    return (
        f"{differs(found.certain)} of {heads} heads differ from 0 (p < 0.05, paired over samples, Holm over "
        f"heads); {found.whole['samples']:,.0f} samples{worth}"
    )


def _explained(found: Ranking, name: str, width: int) -> list[str]:
    """Return a criterion's first line and formula, from its docstring; of an effect how sure it is."""
    cls = criteria().get(name)
    if name == EFFECT:
        text = [f"{MARK} {sure(found)}"]
    elif cls is None:
        return []
    else:
        first, parts = docstring(cls)
        text = [first, parts.get("formula", "")]
    return [line for part in text if part for line in wrap(f"  {part}", width, 2).splitlines()]


def _rows(table: Table, certain: Table) -> list[list[str]]:
    """Return a line a layer, the highest first; with a mark behind what is certain, where that is told."""
    kinds = list(dict.fromkeys(kind for kind, _ in table))
    marks = {
        key: [MARK if math.isfinite(value) else " " for value in values] for key, values in certain.items()
    }
    head = [str(number) + (" " if marks else "") for number in range(max(map(len, table.values())))]
    rows = [[KIND, "layer", *head]]
    for kind, layer in sorted(table, key=lambda key: (kinds.index(key[0]), -key[1])):
        values = table[kind, layer]
        ends = marks.get((kind, layer), [""] * len(values))
        shown = [_number(value, "{:.4f}", "–") + end for value, end in zip(values, ends, strict=True)]
        rows.append([kind, str(layer), *shown])
    return [row[0 if len(kinds) > 1 else 1 :] for row in rows]


def _matrix(found: Ranking, form: str, empty: str = "–") -> list[list[str]]:
    names, values = list(found.tables), found.correlations()
    return [["", *names], *([a, *(_number(values[a, b], form, empty) for b in names)] for a in names)]


def _number(value: float, form: str, empty: str) -> str:
    return form.format(value) if math.isfinite(value) else empty


def _aligned(rows: Sequence[Sequence[str]], fixed: int, width: int) -> list[str]:
    """Lay out a table, its columns in several parts where they are more than a screen has room for."""
    parts = [*laid_out.blocks(rows, fixed, width)]
    return [line for k, part in enumerate(parts) for line in ([""] if k else []) + part]


def prepare(folder: str | Path) -> None:
    """Make the folder that rankings are written to. Raises UserError where that cannot be."""
    require_folder("--output", folder)
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--output {folder}: cannot be written: {error.strerror or error}") from error


def write(found: Ranking, look: Look, folder: str | Path) -> Path:
    """Write a ranking: a CSV and a heat map a criterion, all heads as one table and picture, correlations.

    Returns the folder of the files.
    """
    from attnbench.boards.pictures import heatmap, overview

    target = Path(folder, record.file_name(found.model), record.file_name(found.task))
    where = f"{found.model}, {found.task}"
    try:
        target.mkdir(parents=True, exist_ok=True)
        for name, table in found.tables.items():
            _write_csv(target / f"{name}.csv", [["kind", *_header(table)], *_lines(table)])
            told = f"{title(found, name)}\n{sure(found)}" if name == EFFECT else name
            sure_of = found.certain if name == EFFECT else None
            picture = heatmap.draw(table, f"{where}\n{told}", name == EFFECT, sure_of)
            (target / f"{name}.png").write_bytes(picture)
        _write_csv(target / "correlations.csv", _matrix(found, "{:.6f}", ""))
        (target / "heads.csv").write_text(found.frame().to_csv(lineterminator="\n"), encoding="utf-8")
        heads = json.dumps(heads_file(look), indent=1, ensure_ascii=False) + "\n"
        (target / "heads.json").write_text(heads, encoding="utf-8")
        ranks = {name: found.ranks(table) for name, table in found.tables.items()}
        certain = {EFFECT: found.certain} if found.certain else {}
        (target / "overview.png").write_bytes(overview.draw(ranks, where, certain))
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
