"""Boards for other programs: comma-separated values for analysis, LaTeX for a paper. Pure."""

from __future__ import annotations

import csv
import dataclasses
import io
import math
import re
from collections.abc import Sequence

from attnbench.boards.board import Board, Section
from attnbench.boards.tables import cells, footnotes, setting, summary
from attnbench.boards.tables.legend import legend
from attnbench.records.inert import LONGEST, clean, spreadsheet
from attnbench.statistics.row import Row

PAGE = 40  # rows that one page holds
CAPTION = "Scores with standard errors; differences to dense on the same samples with their 95 % intervals."
# a size of type, whether the page lies on its side, points of a letter, between two columns and across
LAYOUTS = (
    ("", False, 4.9, 12.0, 345.0), (r"\footnotesize", False, 4.2, 6.0, 345.0),
    (r"\scriptsize", False, 3.7, 6.0, 345.0), (r"\scriptsize", True, 3.7, 6.0, 700.0),
    (r"\tiny", True, 2.9, 6.0, 700.0),
)  # fmt: skip
CENTRED = (
    r"\setlength{\LTleft}{0pt plus 1fill minus 1fill}\setlength{\LTright}{\LTleft}"
    r"\setlength{\LTcapwidth}{\linewidth}"
)
SIDE = (r"\begin{landscape}", r"\end{landscape}")
NO_ENDS = (
    "To fit the page, scores of several seeds stand without their range, and flips, changed answers and KL "
    "without their intervals; the other formats have them."
)
PLAIN = re.compile(r"\\(?:text[a-z]+\{\}|[a-zA-Z]+ ?|.)")  # what is one letter when set
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

    Of more than a page's rows it is a longtable, and of more than its width it lies on its side. Verdicts and
    settings follow as comments.
    """
    tables = []
    for section in board.sections:
        titles = [*([board.suite.title] if board.suite else []), section.title]
        tables.append(_table(section, ". ".join(title.rstrip(".") for title in titles) + "."))
    packages = ",".join(["booktabs", "longtable", *["pdflscape"] * any(SIDE[0] in table for table in tables)])
    parts = [f"% needs \\usepackage{{{packages}}} and, with pdflatex, \\usepackage[T1]{{fontenc}}", *tables]
    if board.absent:
        parts.append("\n".join(["% Not measured:", *(f"% {clean(line, 400)}" for line in board.absent)]))
    return "\n\n".join(parts)


def _table(section: Section, title: str) -> str:
    rows = section.rows
    found = [cells.of(row, clean) for row in rows]
    dropped = cells.left_out(rows, found)
    names = ["score", cells.DIFFERENCE, "", *(name for name in cells.COSTS if name not in dropped)]
    header = ["method", "score", r"$\Delta$ dense [95\,\%]", *names[2:]]
    table = [
        [_method(row), *(tex(line.get(name, "")) for name in names)]
        for row, line in zip(rows, found, strict=True)
    ]
    size, side = _fitted([header, *table])
    cut = size == LAYOUTS[-1][0]
    if cut:
        short = [_short(row) for row in rows]
        table = [
            [
                text if name not in line else tex(line[name])
                for name, text in zip(("", *names), texts, strict=True)
            ]
            for line, texts in zip(short, table, strict=True)
        ]
        size, _ = _fitted([header, *table])
    columns, heading = f"{{lrrl{'r' * (len(header) - 4)}}}", " & ".join(header) + r" \\"
    caption = tex(f"{title} {CAPTION}" if any(row.low is not None for row in rows) else title, 400)
    told = [*legend(rows), *(f"{line}." for line in footnotes.reasons(rows, clean)), *[NO_ENDS] * cut]
    note = tex(" ".join(told), 8000)
    if side or len(rows) > PAGE:
        lines = [rf"\begin{{longtable}}{columns}", rf"\caption{{{caption}}} \\", r"\toprule", heading]
        lines += [r"\endfirsthead", r"\toprule", heading, r"\endhead"]
        end = [r"\bottomrule", r"\end{longtable}", *_note(note)]
    else:
        lines = [r"\begin{table}", r"\centering", rf"\caption{{{caption}}}"]
        lines += [rf"\begin{{tabular}}{columns}", r"\toprule", heading]
        end = [r"\bottomrule", r"\end{tabular}", *_note(note), r"\end{table}"]
    begun = (
        [*SIDE[:side], r"\begingroup", size, r"\setlength{\tabcolsep}{3pt}", *[CENTRED] * side]
        if size
        else []
    )
    end = [*end, *([r"\endgroup", *SIDE[1:][:side]] if size else [])]
    group = ("", "")
    for row, texts in zip(rows, table, strict=True):
        if (row.model, row.task) != group:
            group = (row.model, row.task)
            unit = r", \%" if row.scale == "fraction" else ""
            where = f"{tex(row.model)}, {cells.task_of(row, tex)}: {tex(row.metric) or 'score'}{unit}"
            lines += [r"\midrule", rf"\multicolumn{{{len(header)}}}{{l}}{{{where}}} \\"]
        lines.append(" & ".join(texts) + r" \\")
    notes = [*summary.of_methods(rows, clean), *footnotes.remarks(rows, section.records, clean)]
    notes += setting.whole(setting.commands(section.records), section.records, clean)
    return "\n".join([*begun, *lines, *end, *(f"% {line}" for line in notes)])


def _short(row: Row) -> dict[str, str]:
    """Write the cells that can do with one number, without the ends of intervals and the range of seeds."""
    if row.status != "measured":
        return {}
    return {"score": cells.score(row)} | (cells.answers(row, ends=False) if row.primary else {})


def _fitted(table: Sequence[Sequence[str]]) -> tuple[str, bool]:
    """Return the size of type in which a table fits a page, "" for the usual, and whether on its side."""
    plain = [[PLAIN.sub("x", text) for text in texts] for texts in table]
    widest = [max(map(len, column)) for column in zip(*plain, strict=True)]
    fits = (
        (size, side)
        for size, side, letter, between, across in LAYOUTS
        if sum(widest) * letter + len(widest) * between <= across
    )
    return next(fits, LAYOUTS[-1][:2])


def _note(text: str) -> list[str]:
    """Set a note under a table, as wide as the text is."""
    begun = r"\par\smallskip\noindent\begin{minipage}{\linewidth}\footnotesize"
    return [begun, text, r"\end{minipage}"] if text else []


def _method(row: Row) -> str:
    """Write a row's method with what is to be said of it, and its metric where that is not the first."""
    told = cells.notes(row)
    metric = "" if row.primary else f", {tex(row.metric)}"
    return (
        (r"\quad " if row.control_of else "") + tex(row.method) + metric + (f" ({tex(told)})" if told else "")
    )
