"""Draw pictures as SVG and PNG: readable in black and white, the same bytes for the same points."""

from __future__ import annotations

import io
import math
from collections.abc import Iterable
from typing import Any

from attnbench.footnotes import clean
from attnbench.grids import Grid
from attnbench.pictures import Panel, Picture, Point

# eight colours that stay apart for colour-blind readers; marker and line tell families apart without them
COLOURS = ("#0072b2", "#d55e00", "#000000", "#009e73", "#cc79a7", "#56b4e9", "#8c6d00", "#666666")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "h", "*", "p")
LINES = ("-", "--", "-.", (0, (5, 1, 1, 1, 1, 1)))
CONTROL_LINE = ":"
LONGEST = 32
ACROSS = 4  # grids of heads
LABEL = {"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0.5}
LOST = -0.5  # of what attention adds: worse than uniform by half of that is not told apart
STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "svg.fonttype": "path",
    "figure.dpi": 100,
    "path.simplify": False,
    "text.parse_math": False,
}


def draw(picture: Picture) -> dict[str, bytes]:
    """Return a picture's bytes as "svg" and "png"; each carries the picture's digest."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context({**STYLE, "svg.hashsalt": picture.name}):
        if picture.grids:
            return _saved(_heads(picture), picture)
        panels = picture.panels
        across = min(len(panels), 3)
        down = math.ceil(len(panels) / across)
        families = list(dict.fromkeys(point.family for panel in panels for point in panel.points))
        styles = {name: _style(place, name) for place, name in enumerate(sorted(families))}
        legend = 0.75 + 0.07 * max(len("Pareto front"), *(len(_short(name)) for name in families))
        figure = Figure(
            figsize=(
                4.4 * across + legend if across > 1 else 5.6 + legend,
                max(3.7 * down + 0.5, 0.24 * (len(families) + 4)),
            )
        )
        FigureCanvasAgg(figure)
        grid = figure.subplots(down, across, squeeze=False)
        lines: dict[str, Any] = {}
        for place, panel in enumerate(panels):
            lines |= _panel(grid[place // across][place % across], picture, panel, styles)
        for place in range(len(panels), down * across):
            grid[place // across][place % across].set_visible(False)
        figure.suptitle(picture.title, x=0.01, ha="left", fontsize=11, fontweight="bold")
        figure.tight_layout(rect=(0, 0, 1 - legend / figure.get_figwidth(), 0.98))
        _hide_crossing(figure)
        names = [name for name in ("Pareto front", *sorted(styles), "dense", "uniform") if name in lines]
        figure.legend(
            [lines[name] for name in names], [_short(name) for name in names], loc="center left",
            bbox_to_anchor=(1 - legend / figure.get_figwidth() + 0.005, 0.5), frameon=False,
            handlelength=3.6, fontsize=8, labelspacing=0.7,
        )  # fmt: skip
        return _saved(figure, picture)


def _saved(figure: Any, picture: Picture) -> dict[str, bytes]:
    out = {}
    for kind, metadata in (("svg", {"Date": None, "Creator": None}), ("png", {"Software": None})):
        buffer = io.BytesIO()
        figure.savefig(buffer, format=kind, dpi=150, metadata={**metadata, "Description": picture.digest})
        out[kind] = buffer.getvalue()
    return out


def _heads(picture: Picture) -> Any:
    """Draw grids of heads, a line of them for each model and task."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns: dict[tuple[str, str], list[Grid]] = {}
    for grid in picture.grids:
        columns.setdefault((grid.model, grid.task), []).append(grid)
    lines = [
        (names, grids[start : start + ACROSS])
        for names, grids in columns.items()
        for start in range(0, len(grids), ACROSS)
    ]
    across = max(len(grids) for _, grids in lines)
    heads = max(len(row) for grid in picture.grids for row in grid.rows)
    layers = max(len(grid.rows) for grid in picture.grids)
    size = ((max(1.5, 0.19 * heads) + 0.9) * across, (max(0.8, 0.19 * layers) + 0.75) * len(lines) + 0.4)
    figure = Figure(figsize=(max(size[0], 4.5), size[1]), layout="constrained")
    FigureCanvasAgg(figure)
    grid_of_axes = figure.subplots(len(lines), across, squeeze=False)
    for axes_of_line, (names, grids) in zip(grid_of_axes, lines, strict=True):
        for axes in axes_of_line[len(grids) :]:
            axes.set_visible(False)
        for axes, grid in zip(axes_of_line, grids, strict=False):
            _grid(axes, grid)
        axes_of_line[0].set_ylabel("\n".join(map(_short, names)), fontsize=7)
    figure.suptitle(picture.title, x=0.01, ha="left", fontsize=11, fontweight="bold")
    return figure


def _grid(axes: Any, grid: Grid) -> None:
    widest = max(map(len, grid.rows))
    finite = [value for row in grid.rows for value in row if math.isfinite(value)]
    low, spread = min(finite, default=0.0), (max(finite, default=1.0) - min(finite, default=0.0)) or 1.0
    shades = [[(value - low) / spread for value in row] + [0.0] * (widest - len(row)) for row in grid.rows]
    across, down = ([place - 0.5 for place in range(count + 1)] for count in (widest, len(shades)))
    axes.pcolormesh(across, down, shades, cmap="Greys", vmin=0, vmax=1, edgecolors="#bbbbbb", linewidth=0.3)
    axes.invert_yaxis()
    for layer, head in sorted(grid.gone):
        dark = shades[layer][head] > 0.5
        axes.plot(head, layer, "x", color="white" if dark else "black", markersize=5, markeredgewidth=1.2)
    axes.set_title(_short(grid.method), fontsize=8, loc="left")
    axes.set_xticks(range(0, widest, max(1, widest // 4)))
    axes.set_yticks(range(len(grid.layers)))
    kinds = {name.partition(" ")[0] for name in grid.layers}
    shown = [name if len(kinds) > 1 else name.rpartition(" ")[2] for name in grid.layers]
    axes.set_yticklabels([_short(name) for name in shown])
    axes.tick_params(labelsize=6, length=2)
    for side in ("top", "right"):
        axes.spines[side].set_visible(True)


def _short(text: str) -> str:
    return clean(text, LONGEST).lstrip("_")  # matplotlib leaves a leading underscore out of a legend


def _style(place: int, name: str) -> dict[str, Any]:
    control = any("random" in term.split(":") for term in name.split("+"))
    colour = COLOURS[place % len(COLOURS)]
    return {
        "color": colour,
        "marker": MARKERS[place % len(MARKERS)],
        "linestyle": CONTROL_LINE if control else LINES[place % len(LINES)],
        "markerfacecolor": "white" if control else colour,
        "markersize": 6,
        "linewidth": 1.2,
    }


def _panel(axes: Any, picture: Picture, panel: Panel, styles: dict[str, dict[str, Any]]) -> dict[str, Any]:
    from matplotlib.ticker import MultipleLocator

    percent = panel.scale == "fraction"
    factor = 100 if percent else 1
    lines: dict[str, Any] = {}
    for name, level, style in (("dense", panel.dense, (0, (8, 2))), ("uniform", panel.uniform, (0, (1, 2)))):
        if level is not None:
            lines[name] = axes.axhline(
                level * factor, color="#555555", linewidth=1, linestyle=style, zorder=1
            )
    for family, points in _by_family(panel.points):
        xs, ys = [point.x for point in points], [point.y * factor for point in points]
        line = axes.plot(xs, ys, zorder=3, **styles[family])[0]
        lines[family] = line
        if picture.y.startswith("score"):
            bars = [[(p.y - p.low) * factor for p in points], [(p.high - p.y) * factor for p in points]]
            axes.errorbar(
                xs, ys, yerr=bars, fmt="none", ecolor=styles[family]["color"], elinewidth=0.8, capsize=2
            )
    front = sorted((point for point in panel.points if point.front), key=lambda point: point.x)
    if front:
        # at least as good as a point: everything to its left, or right where less is better
        steps = "steps-pre" if picture.name.endswith("sparsity") else "steps-post"
        lines["Pareto front"] = axes.plot(
            [point.x for point in front], [point.y * factor for point in front], drawstyle=steps,
            color="#d0d0d0", linewidth=6, solid_capstyle="round", zorder=0.5,
        )[0]  # fmt: skip
        left = picture.name.endswith("sparsity")
        for point in front:
            if picture.y.startswith("kept") and point.y < LOST:
                continue
            before = left and point.x > 0.3
            axes.annotate(
                _short(point.method), (point.x, point.y * factor), (-5 if before else 7, -6),
                textcoords="offset points", ha="right" if before else "left", va="top", fontsize=7, zorder=4,
                bbox=LABEL,
            )  # fmt: skip
    axes.set_title(f"{_short(panel.model)}, {_short(panel.task)}", fontsize=9, loc="left")
    axes.set_xlabel(picture.x)
    unit = " %" if percent else ""
    axes.set_ylabel("kept %" if picture.y.startswith("kept") else f"{_short(panel.metric)}{unit}")
    if panel.scale == "log":
        axes.set_yscale("log")
    _floor(axes, picture, panel, factor)
    kind = picture.name.rpartition("-")[2]
    if kind == "bits":
        axes.xaxis.set_major_locator(MultipleLocator(1))
        axes.margins(x=0.12)
    elif kind in ("latency", "amount"):
        axes.margins(x=0.12)
        if kind == "latency":
            axes.axvline(1, color="#555555", linewidth=1, linestyle=(0, (8, 2)), zorder=1)
    else:
        axes.xaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f}%")
        axes.set_xlim(-0.03, 1.03)
    axes.grid(axis="y", color="#e5e5e5", linewidth=0.6)
    axes.set_axisbelow(True)
    return lines


def _floor(axes: Any, picture: Picture, panel: Panel, factor: int) -> None:
    """Cut a picture of what is kept where it is lost altogether, and say what lies below."""
    below = sum(point.y < LOST for point in panel.points)
    if not picture.y.startswith("kept") or not below:
        return
    top = max(*(point.y for point in panel.points), 1.0)
    axes.set_ylim(LOST * factor, (top + 0.08) * factor)
    told = f"{below} below {LOST:.0%}"
    axes.text(0.01, 0.01, told, transform=axes.transAxes, fontsize=7, va="bottom", ha="left", zorder=5)


def _hide_crossing(figure: Any) -> None:
    """Hide labels that would lie on one already there: the table beside the picture has them all."""
    figure.canvas.draw()
    for axes in figure.axes:
        placed: list[Any] = []
        for label in reversed(axes.texts):
            box = label.get_window_extent()
            if any(box.overlaps(other) for other in placed):
                label.set_visible(False)
            else:
                placed.append(box)


def _by_family(points: Iterable[Point]) -> list[tuple[str, list[Point]]]:
    found: dict[str, list[Point]] = {}
    for point in points:
        found.setdefault(point.family, []).append(point)
    return list(found.items())
