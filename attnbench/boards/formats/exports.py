"""Boards for other programs: comma-separated values for analysis, LaTeX for a paper. Pure."""

from __future__ import annotations

import csv
import dataclasses
import io
import math
from collections.abc import Sequence

from attnbench.boards.board import Board, Section
from attnbench.boards.tables import cells, footnotes, setting, summary
from attnbench.boards.tables.legend import legend
from attnbench.records.inert import LONGEST, clean, spreadsheet
from attnbench.statistics.row import Row

PAGE = 40  # rows that one page holds
CAPTION = "Scores with standard errors; differences to dense on the same samples with their 95 % intervals."
SPECIAL = {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}",
    ">": r"\textgreater{}", "|": r"\textbar{}", "−": "$-$", "±": r"$\pm$", "≈": r"$\approx$",
    "▼": r"$\downarrow$", "▲": r"$\uparrow$", "–": "--", "…": r"\ldots{}", "└": r"\quad", "Δ": r"$\Delta$",
    **{character: "\\" + character for character in "&%$#_{}"},
}  # fmt: skip


def to_csv(board: Board) -> str:
    """Write one line a method, metric, model and task: everything a row holds, unrounded."""
    names = [item.name for item in dataclasses.fields(Row)]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*names, "mark", "verdict"])
    for section in board.sections:
        for row in section.rows:
            cells = row.as_dict()
            cells["discordant"] = " ".join(map(str, row.discordant or ()))
            writer.writerow([_cell(cells[name]) for name in (*names, "mark", "verdict")])
    return out.getvalue()


def _cell(value: object) -> object:
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.6g}"
    return spreadsheet(value) if isinstance(value, str) else value


def tex(text: str, longest: int = LONGEST) -> str:
    """Make any text plain in LaTeX."""
    return "".join(SPECIAL.get(character, character) for character in clean(text, longest))


def to_latex(board: Board) -> str:
    """Write a table a section, with the rules of booktabs; what its marks mean stands in a note below it.

    Of more than a page's rows it is a longtable. Verdicts and settings follow as comments.
    """
    parts = ["% needs \\usepackage{booktabs,longtable}"]
    for section in board.sections:
        titles = [*([board.suite.title] if board.suite else []), section.title]
        parts.append(_table(section, ". ".join(title.rstrip(".") for title in titles) + "."))
    if board.absent:
        parts.append("\n".join(["% Not measured:", *(f"% {clean(line, 400)}" for line in board.absent)]))
    return "\n\n".join(parts)


def _table(section: Section, title: str) -> str:
    rows = section.rows
    found = [cells.costs(row) for row in rows]
    dropped = cells.left_out(rows, found)
    names = [name for name in cells.COSTS if name not in dropped]
    header = ["method", "score", r"$\Delta$ dense [95\,\%]", "", "kept", *names]
    columns, heading = f"{{lrrl{'r' * (len(header) - 4)}}}", " & ".join(header) + r" \\"
    caption = tex(f"{title} {CAPTION}" if any(row.low is not None for row in rows) else title, 400)
    note = tex(" ".join([*legend(rows), *(f"{line}." for line in footnotes.reasons(rows, clean))]), 8000)
    if len(rows) > PAGE:
        lines = [rf"\begin{{longtable}}{columns}", rf"\caption{{{caption}}} \\", r"\toprule", heading]
        lines += [r"\endfirsthead", r"\toprule", heading, r"\endhead"]
        end = [r"\bottomrule", r"\end{longtable}", *_note(note)]
    else:
        lines = [r"\begin{table}", r"\centering", rf"\caption{{{caption}}}"]
        lines += [rf"\begin{{tabular}}{columns}", r"\toprule", heading]
        end = [r"\bottomrule", r"\end{tabular}", *_note(note), r"\end{table}"]
    group = ("", "")
    for row in rows:
        if (row.model, row.task) != group:
            group = (row.model, row.task)
            unit = r", \%" if row.scale == "fraction" else ""
            told = f"{tex(row.model)}, {cells.task_of(row, tex)}: {tex(row.metric) or 'score'}{unit}"
            lines += [r"\midrule", rf"\multicolumn{{{len(header)}}}{{l}}{{{told}}} \\"]
        lines.append(" & ".join(_cells(row, names)) + r" \\")
    notes = [*summary.of_methods(rows, clean), *footnotes.remarks(rows, section.records, clean)]
    notes += setting.whole(setting.commands(section.records), section.records, clean)
    return "\n".join([*lines, *end, *(f"% {line}" for line in notes)])


def _note(text: str) -> list[str]:
    """Set a note under a table, as wide as the text is."""
    begun = r"\par\smallskip\begin{minipage}{\linewidth}\footnotesize"
    return [begun, text, r"\end{minipage}"] if text else []


def _cells(row: Row, names: Sequence[str]) -> list[str]:
    seeds = f", {row.seeds} seeds" if row.seeds > 1 else ""
    metric = "" if row.primary else f", {tex(row.metric)}"
    method = (r"\quad " if row.control_of else "") + tex(row.method) + metric + seeds
    if row.status != "measured":
        return [method, "--", footnotes.in_cell(row, tex), *[""] * (len(names) + 2)]
    score = row.amount(row.score) + (f" ± {row.amount(row.stderr, 2)}" if row.stderr is not None else "")
    kept = "" if row.kept is None else cells.kept(row)
    found = cells.costs(row)
    costs = [found[name] if row.primary else "" for name in names]
    return [method, *map(tex, (score, row.interval, row.mark, kept, *costs))]
