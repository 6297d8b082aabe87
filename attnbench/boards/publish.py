"""The files of a board: written together, and whether those that lie there are still true."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from attnbench.boards import board, checks, suite
from attnbench.boards.board import Board
from attnbench.boards.formats import eee, exports, lm_eval, parquet
from attnbench.boards.pictures.points import pictures
from attnbench.boards.tables import leaderboard, separable
from attnbench.boards.tables.text import FILE, Screen
from attnbench.errors import UserError, near_file, require_folder, unknown
from attnbench.records import record
from attnbench.statistics import ordering

ENDINGS = {"md": ".md", "html": ".html", "csv": ".csv", "latex": ".tex", "text": ".txt"}
PLOTS = "plots"  # SVG, PNG and CSV of every picture, in a folder of the board's name
# formats of files of their own, most for other programs
SETS = {
    "eee": eee.files, "parquet": parquet.files, "lm-eval": lm_eval.files, "ranks": separable.files,
}  # fmt: skip
ON_SCREEN = "text"  # what a terminal shows
FORMATS = (*ENDINGS, PLOTS, *SETS)
STANDARD = ("md", "csv", PLOTS)  # what --output DIR writes for a suite
NO_FOLDER = f"--format: several files and {', '.join((PLOTS, *SETS))} need --output DIR"


def formats(text: str | None) -> list[str] | None:
    """Read --format, a comma list; None where it names nothing."""
    wanted = [part.strip() for part in (text or "").split(",") if part.strip()]
    for name in wanted:
        if name not in FORMATS:
            raise unknown("format", name, FORMATS, f"--format takes {', '.join(FORMATS)}.")
    return wanted or None


def of_several_files(formats: Sequence[str]) -> bool:
    """Tell whether formats are more than one text: these need a folder."""
    return len(formats) > 1 or not set(formats) <= set(ENDINGS)


def format_of(file: Path, asked: Sequence[str] | None) -> str:
    """Return the format of a single file: that of its ending, or the one asked for, if these agree.

    Raises UserError where they do not, or nothing tells.
    """
    if asked is not None and of_several_files(asked):
        raise UserError(NO_FOLDER)
    by_ending = {".latex": "latex", **{ending: format for format, ending in ENDINGS.items()}}.get(
        file.suffix.lower()
    )
    if asked is None:
        if by_ending is None:
            endings = ", ".join(ENDINGS.values())
            raise UserError(f"--output {file}: its ending tells no format: {endings}. Or give --format.")
        return by_ending
    if by_ending not in (None, asked[0]):
        raise UserError(f"--output {file} is for {by_ending}, --format says {asked[0]}. Leave one out.")
    return asked[0]


def load(path: str | None, records: str | Path | None, sort: str = ordering.FAMILY) -> Board:
    """Read a suite (or none) and records into a board, a suite's own where no folder is given.

    Raises UserError where there is nothing to show.
    """
    asked = suite.load(path) if path else None
    folder = Path(records) if records else asked.records if asked else Path()
    if asked is not None and not folder.is_dir():
        return board.build([], asked)
    items = list(record.read_all(folder))
    if not items and asked is None:
        raise UserError(
            f"--records {records}: no record there. `attnbench run --records DIR ...` makes them."
        )
    return board.build(items, asked, sort=sort)


def text(found: Board, format: str, folder: str | None = None, screen: Screen = FILE) -> str:
    """Write a board in one of the formats that are a single text; markdown shows the pictures in a folder.

    `screen` is what "text" is written for.
    """
    if format == "csv":
        return exports.to_csv(found)
    if format == "html":
        from attnbench.boards.page import document
        from attnbench.boards.pictures import draw

        return document.to_html(found, [(each, draw.draw(each)["svg"]) for each in pictures(found)]) + "\n"
    if format == "latex":
        return exports.to_latex(found) + "\n"
    shown = [(each.title, f"{folder}/{each.name}.svg") for each in pictures(found)] if folder else []
    return leaderboard.write(found, format, shown, screen) + "\n"


def files(found: Board, wanted: Sequence[str], name: str) -> dict[str, bytes]:
    """Return the files of a board by their path under the output folder."""
    folder = name if PLOTS in wanted or found.suite else None
    out: dict[str, bytes] = {}
    for format in wanted:
        if format == PLOTS:
            out |= _plots(found, name)
        elif format in SETS:
            out |= SETS[format](found, name)
        else:
            out[name + ENDINGS[format]] = text(found, format, folder).encode()
    return out


def _plots(found: Board, folder: str) -> dict[str, bytes]:
    from attnbench.boards.pictures import draw

    out = {}
    for each in pictures(found):
        out[f"{folder}/{each.name}.csv"] = each.table.encode()
        out |= {f"{folder}/{each.name}.{kind}": content for kind, content in draw.draw(each).items()}
    return out


def write(found: dict[str, bytes], folder: Path) -> None:
    """Write files, each by temporary file and rename. Raises UserError where that cannot be."""
    try:
        for name, content in found.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = path.with_name(f".{path.name}.part")
            temporary.write_bytes(content)
            os.replace(temporary, path)
    except OSError as error:
        file = next((each for each in (folder, *folder.parents) if each.is_file()), None)
        why = f"{file} is a file" if file else error.strerror or error
        raise UserError(f"--output {folder}: cannot be written: {why}") from error


def problems(path: str | None, records: str | Path | None) -> Iterator[str]:
    """Yield what is wrong with the records of a suite or a folder, and what is stale beside the suite."""
    asked = suite.load(path) if path else None
    folder = Path(records) if records else asked.records if asked else Path()
    require_folder("--records", folder)
    if asked is None and not folder.is_dir():
        raise UserError(f"--records {folder}: no such folder.{near_file(folder)} `attnbench run` makes one.")
    found = [f"{folder}: {line}" for line in checks.problems(folder, asked)] if folder.is_dir() else []
    yield from found
    if asked is not None and not found:
        yield from _stale(load(path, folder), asked)


def _stale(found: Board, asked: suite.Suite) -> Iterator[str]:
    """Yield what --output would write otherwise, and what of a suite with records is not there at all."""
    remedy = f"attnbench leaderboard {asked.path} --output {asked.path.parent}"
    for format, ending in ENDINGS.items():
        path = asked.path.with_suffix(ending)
        if not path.exists():
            if format in STANDARD and found.records:
                yield f"{path}: not rendered. {remedy}"
        elif _bare(path.read_text("utf-8")) != _bare(text(found, format, asked.name)):
            yield f"{path}: stale. {remedy}" + ("" if format in STANDARD else f" --format {format}")
    data = asked.path.parent / f"{asked.name}-parquet" / parquet.FILE
    if data.exists() and not parquet.holds(data.read_bytes(), found):
        yield f"{data}: stale. {remedy} --format parquet"
    ranks = asked.path.parent / f"{asked.name}-ranks.md"
    if ranks.exists() and ranks.read_bytes() != separable.files(found, asked.name)[ranks.name]:
        yield f"{ranks}: stale. {remedy} --format ranks"
    folder = asked.path.with_suffix("")
    yield from (f"{folder / name}: {told}. {remedy}" for name, told in _wrong_pictures(found, folder))


def _bare(html: str) -> str:
    """Leave out the pictures: their bytes differ between versions of matplotlib."""
    return re.sub(r"<svg.*?</svg>", "", html, flags=re.S)


def _wrong_pictures(found: Board, folder: Path) -> Iterator[tuple[str, str]]:
    """Name the pictures that are not there, or that were drawn from other points: bytes differ by version."""
    known = {each.name: each for each in pictures(found)}
    for name, each in known.items():
        for kind, mark in (("csv", each.table), ("svg", each.digest), ("png", each.digest)):
            path = folder / f"{name}.{kind}"
            if not path.is_file():
                yield path.name, "not rendered"
            elif mark.encode() not in path.read_bytes():
                yield path.name, "stale"
    if folder.is_dir():
        yield from ((path.name, "stale") for path in sorted(folder.iterdir()) if path.stem not in known)
