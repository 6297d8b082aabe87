"""Draw grids of heads: a row a layer, 0 at the bottom, brighter is higher, a cross on what is removed."""

from __future__ import annotations

import math
import re
import textwrap
from typing import Any

from attnbench.boards.pictures.grids import Grid
from attnbench.boards.pictures.heatmap import SCALE
from attnbench.boards.pictures.points import Picture
from attnbench.records.inert import clean

ACROSS = 4
BRIGHT = 0.6  # of the scale, from where black stands out
PER_INCH = 17  # characters of a foot
BOTTOM = 0.06  # inches under a foot
LINE = 30  # characters of a title, which breaks before : and +


def draw(picture: Picture) -> Any:
    """Return a figure: a line of grids for each model and task, or all in turn where each has only one."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns: dict[tuple[str, str], list[Grid]] = {}
    for grid in picture.grids:
        columns.setdefault((grid.model, grid.task), []).append(grid)
    single = all(len(grids) == 1 for grids in columns.values())
    groups = [picture.grids] if single else list(columns.values())
    lines = [grids[start : start + ACROSS] for grids in groups for start in range(0, len(grids), ACROSS)]
    titles = [[_title(grid, single) for grid in grids] for grids in lines]
    across = max(map(len, lines))
    heads = max(len(row) for grid in picture.grids for row in grid.rows)
    layers = max(len(grid.rows) for grid in picture.grids)
    deepest = max(text.count("\n") for line in titles for text in line)
    width = (max(1.5, 0.19 * heads) + 0.9) * across
    height = (max(0.8, 0.19 * layers) + 0.85 + 0.14 * deepest) * len(lines) + 0.6
    figure = Figure(figsize=(max(width, 4.5), height), layout="constrained")
    FigureCanvasAgg(figure)
    places = figure.subplots(len(lines), across, squeeze=False)
    for axes_of_line, grids, texts in zip(places, lines, titles, strict=True):
        for axes in axes_of_line[len(grids) :]:
            axes.set_visible(False)
        for axes, grid, text in zip(axes_of_line, grids, texts, strict=False):
            _grid(axes, grid)
            axes.set_title(text, fontsize=8, loc="left")
            axes.set_xlabel(picture.x, fontsize=7)
        where = "" if single else f"{clean(grids[0].model)}\n{clean(grids[0].task)}\n"
        axes_of_line[0].set_ylabel(where + picture.y, fontsize=7)
    figure.suptitle(picture.title, x=0.01, ha="left", fontsize=11, fontweight="bold")
    taken = foot(figure, picture.foot)
    figure.set_layout_engine("constrained", rect=(0, taken, 1, 1 - taken))
    return figure


def _title(grid: Grid, single: bool) -> str:
    where = f"{clean(grid.model, LINE)}\n{clean(grid.task, LINE)}\n" if single else ""
    return where + wrapped(clean(grid.method, 3 * LINE))


def wrapped(text: str) -> str:
    """Break a spec into lines before : and +."""
    lines = [""]
    for part in re.split(r"(?=[:+])", text):
        if lines[-1] and len(lines[-1]) + len(part) > LINE:
            lines.append("  ")
        lines[-1] += part
    return "\n".join(lines)


def foot(figure: Any, text: str) -> float:
    """Write a text along the bottom of a figure; return the share of the height that it takes."""
    lines = textwrap.wrap(text, int(figure.get_figwidth() * PER_INCH))
    if not lines:
        return 0.0
    figure.text(
        0.01, BOTTOM / figure.get_figheight(), "\n".join(lines), fontsize=7, color="#555555", va="bottom"
    )
    return float((0.135 * len(lines) + 0.06) / figure.get_figheight())


def _grid(axes: Any, grid: Grid) -> None:
    widest = max(map(len, grid.rows))
    finite = [value for row in grid.rows for value in row if math.isfinite(value)]
    low, spread = min(finite, default=0.0), (max(finite, default=1.0) - min(finite, default=0.0)) or 1.0
    shades = [[(value - low) / spread for value in row] + [0.0] * (widest - len(row)) for row in grid.rows]
    across, down = ([place - 0.5 for place in range(count + 1)] for count in (widest, len(shades)))
    axes.pcolormesh(across, down, shades, cmap=SCALE, vmin=0, vmax=1, edgecolors="#bbbbbb", linewidth=0.3)
    for layer, head in sorted(grid.gone):
        bright = shades[layer][head] > BRIGHT
        axes.plot(head, layer, "x", color="black" if bright else "white", markersize=5, markeredgewidth=1.2)
    axes.set_xticks(range(0, widest, max(1, widest // 4)))
    axes.set_yticks(range(len(grid.layers)))
    kinds = {name.partition(" ")[0] for name in grid.layers}
    shown = [name if len(kinds) > 1 else name.rpartition(" ")[2] for name in grid.layers]
    axes.set_yticklabels([clean(name) for name in shown])
    axes.tick_params(labelsize=6, length=2)
    for side in ("top", "right"):
        axes.spines[side].set_visible(True)
