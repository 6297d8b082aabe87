"""What the pictures of a board show: their points, as numbers. Pure; `draw.py` draws them."""

from __future__ import annotations

import csv
import hashlib
import io
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from attnbench.boards.board import Board
from attnbench.boards.pictures import left_out
from attnbench.boards.pictures.depths import DepthMap, maps
from attnbench.boards.pictures.grids import Grid, grids, removes_heads, scored
from attnbench.methods.controls import CONTROLS
from attnbench.methods.families import amounts, family, modifier_sweeps, name_without_seed
from attnbench.records.inert import spreadsheet
from attnbench.statistics.row import Row

LEAST = 0.005  # sparsity below this is no method's doing
DRAWING = 5  # raise by hand when the drawing changes: pictures drawn before are then stale
DIGITS = ".6g"  # of a number in a table
FLOAT = re.compile(r"-?\d+\.\d+(?:e[-+]?\d+)?|-?\d+e[-+]?\d+")


@dataclass(frozen=True)
class Point:
    """One method. `family` is its spec without amounts, `front` whether nothing beats it.

    `x_low` and `x_high` are there where x itself has an interval.
    """

    method: str
    family: str
    x: float
    y: float
    low: float
    high: float
    front: bool = False
    x_low: float | None = None
    x_high: float | None = None


@dataclass(frozen=True)
class Panel:
    """One model on one task, with the levels of dense and uniform; `note` says what is not drawn."""

    model: str
    task: str
    metric: str
    scale: str
    points: list[Point]
    dense: float | None
    uniform: float | None
    note: str = ""
    higher_is_better: bool = True


@dataclass(frozen=True)
class Picture:
    """One file: a panel for every model and task, or grids of heads, or maps of depth and length.

    `foot` says below them what is not there.
    """

    name: str
    title: str
    x: str
    y: str
    panels: list[Panel] = field(default_factory=list)
    grids: list[Grid] = field(default_factory=list)
    depths: list[DepthMap] = field(default_factory=list)
    foot: str = ""

    @property
    def table(self) -> str:
        """Return the points, or the heads, as comma-separated values."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        if self.grids:
            writer.writerow(["model", "task", "method", "layer", "head", "score", "removed"])
            writer.writerows(line for grid in self.grids for line in grid.lines())
            return out.getvalue()
        if self.depths:
            writer.writerow(["model", "task", "metric", "method", "length", "depth", "score", "samples"])
            writer.writerows(line for each in self.depths for line in each.lines())
            return out.getvalue()
        ranged = any(point.x_high is not None for panel in self.panels for point in panel.points)
        across = ["x", "x low", "x high"] if ranged else ["x"]
        writer.writerow(["model", "task", "metric", "method", "family", *across, "y", "low", "high", "front"])
        for panel in self.panels:
            for point in panel.points:
                xs = (point.x, point.x_low, point.x_high) if ranged else (point.x,)
                values = (*xs, point.y, point.low, point.high)
                numbers = [
                    "" if value is None or math.isnan(value) else f"{value:{DIGITS}}" for value in values
                ]
                names = (panel.model, panel.task, panel.metric, point.method, point.family)
                writer.writerow([*map(spreadsheet, names), *numbers, int(point.front)])
        return out.getvalue()

    @property
    def digest(self) -> str:
        """Hash all that is drawn: a picture carries it, so that a stale one is told without drawing it.

        Numbers count to the digits of the table: beyond them processors differ.
        """
        content = repr((self.name, self.title, self.x, self.y, self.table, self.panels, self.foot))
        rounded = FLOAT.sub(lambda found: f"{float(found[0]):{DIGITS}}", content)
        return hashlib.sha256(f"{DRAWING} {rounded}".encode()).hexdigest()


def _sparsity(row: Row) -> float | None:
    return row.sparsity if row.sparsity is not None and row.sparsity >= LEAST else None


def _bits(row: Row) -> float | None:
    return row.bits


def _heads(row: Row) -> float | None:
    return row.heads if row.heads is not None and row.heads < 1 else None


def _kv(row: Row) -> float | None:
    return row.kv


def _latency(row: Row) -> float | None:
    return row.latency


def _amount(row: Row) -> float | None:
    return amounts(row.method)[0] or None


X: dict[str, tuple[Callable[[Row], float | None], str, bool]] = {
    "sparsity": (_sparsity, "sparsity: share of attention values that are zero, %", True),
    "bits": (_bits, "bits: log2 of how many levels attention takes", False),
    "heads": (_heads, "heads kept, % of all heads", False),
    "kv": (_kv, "kv: size of a prompt's keys and values, % of 16 bits for each", False),
    "latency": (_latency, "latency: realised time over that of dense attention (SDPA), with interval", False),
    "amount": (_amount, "amount of the first method, as in its name", False),
}
Y = {"kept": "kept, %: (score − uniform) / (dense − uniform)", "score": "score ± standard error"}
TITLES = {
    ("kept", "sparsity"): "What survives of what attention adds, against sparsity",
    ("kept", "bits"): "What survives of what attention adds, against bits",
    ("score", "sparsity"): "Score against sparsity",
    ("score", "bits"): "Score against bits",
    ("kept", "kv"): "What survives of what attention adds, against what is kept of the cache",
    ("score", "kv"): "Score against what is kept of the cache",
    ("kept", "latency"): "What survives of what attention adds, against latency",
    ("score", "heads"): "Score against heads kept",
    ("score", "amount"): "Score against the amount, alone and with what follows",
}


def pictures(board: Board) -> list[Picture]:
    """Return every picture that the board has points for."""
    by_place: dict[tuple[str, str], list[Row]] = {}
    for row in (row for section in board.sections for row in section.rows if row.primary):
        by_place.setdefault((row.model, row.task), []).append(row)
    removing = {
        (model, task, name)
        for section in board.sections
        for item in section.records
        if removes_heads(item)
        for model, task, method in [item.cell.values()]
        for name in (method, name_without_seed(method))
    }
    found = []
    for (y, x), title in TITLES.items():
        read, label, more_is_better = X[x]
        panels = []
        for (model, task), every in by_place.items():
            rows = [row for row in every if row.status == "measured"]
            if x == "heads":  # not of a method that silences some by the way
                rows = [r for r in rows if r.method in CONTROLS or (model, task, r.method) in removing]
            panel = _panel(rows, y, read, more_is_better)
            if panel is not None:
                drawn = {point.method for point in panel.points}
                placed = {row.method for row in rows if read(row) is not None} if x != "amount" else drawn
                panels.append(replace(panel, note=left_out.of_panel(every, drawn, x, placed)))
        if panels:
            foot = left_out.of_board(by_place, {(panel.model, panel.task) for panel in panels})
            found.append(Picture(f"{y}-{x}", title, label, Y[y], panels, foot=foot))
    shown = [grid for section in board.sections for grid in grids(section.records)]
    if shown:
        title = "Head scores, brighter is higher, × removed"
        foot = left_out.of_grids(board.records, shown, scored)
        found.append(Picture("head-scores", title, "head", "layer", grids=shown, foot=foot))
    deep = [each for section in board.sections for each in maps(section.records)]
    if deep:
        title = "Score by depth of what is asked for and length, darker is better"
        across, down = "length of the text, tokens", "depth in the text, %"
        found.append(Picture("depth-length", title, across, down, depths=deep, foot=left_out.of_depths(deep)))
    return found


def _panel(
    rows: Sequence[Row], y: str, read: Callable[[Row], float | None], more_is_better: bool
) -> Panel | None:
    points = []
    for row in rows:
        across, up = read(row), row.kept if y == "kept" else row.score
        if row.method not in CONTROLS and across is not None and up is not None:
            error = (row.stderr or 0.0) if y == "score" else 0.0
            ends = (row.latency_low, row.latency_high) if read is _latency else (None, None)
            points.append(
                Point(row.method, family(row.method), across, up, up - error, up + error, False, *ends)
            )
    swept = modifier_sweeps({point.method: point.x for point in points})
    points = [replace(p, family=swept[p.method][0]) if p.method in swept else p for p in points]
    if read is _amount:
        points = _combined(points)
    if not points:
        return None
    along = {method: value for method, (_, value) in swept.items()}
    points.sort(key=lambda p: (p.family, amounts(p.method), along.get(p.method, 0.0), p.x))
    if y == "kept":
        points = [_with_front(point, points, more_is_better) for point in points]
    level = {row.method: row.kept if y == "kept" else row.score for row in rows}
    first = rows[0]
    scale = "fraction" if y == "kept" else first.scale
    return Panel(
        first.model, first.task, first.metric, scale, points, level.get("dense"), level.get("uniform"),
        higher_is_better=first.higher_is_better,
    )  # fmt: skip


def _combined(points: Sequence[Point]) -> list[Point]:
    """Keep the sweeps of methods that are there alone and followed by another."""
    firsts = [re.split(r"[:+]", point.family)[0] for point in points]
    alone = {first for first, point in zip(firsts, points, strict=True) if "+" not in point.family}
    followed = {first for first, point in zip(firsts, points, strict=True) if "+" in point.family}
    return [point for first, point in zip(firsts, points, strict=True) if first in alone & followed]


def _with_front(point: Point, points: Sequence[Point], more_is_better: bool) -> Point:
    """Mark a point that no other beats on one axis while being as good on the other.

    Where x has an interval, less of it alone counts only beyond the other's interval.
    """
    sign = 1 if more_is_better else -1

    def beats(other: Point) -> bool:
        if sign * other.x < sign * point.x or other.y < point.y:
            return False
        if other.x_high is None or point.x_low is None:
            return (other.x, other.y) != (point.x, point.y)
        return other.y > point.y or other.x_high < point.x_low

    return replace(point, front=not any(map(beats, points)))
