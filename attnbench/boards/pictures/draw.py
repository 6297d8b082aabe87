"""Draw pictures as SVG and PNG: readable in black and white, the same bytes for the same points."""

from __future__ import annotations

import io
import math
from collections.abc import Iterable
from typing import Any

from attnbench.boards.pictures import apart, around, draw_depths, draw_heads, labels
from attnbench.boards.pictures.points import Panel, Picture, Point
from attnbench.methods.controls import DRAWN
from attnbench.records.inert import clean

# eight colours that stay apart for colour-blind readers; marker, fill and line tell families apart without
# them: no two of the counts have a common divisor, so all three come together again only after their product
COLOURS = ("#0072b2", "#d55e00", "#000000", "#009e73", "#cc79a7", "#56b4e9", "#8c6d00", "#666666")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "*", "d")
FILLS = ("full", "left", "bottom")  # changes when the markers are used up: a lone point has no line
LINES = ("-", "--", "-.", (0, (5, 1, 1, 1, 1, 1)))
CONTROL_LINES = (":", (0, (1, 3)))  # and no fill
WHOLE = 90  # characters of a spec
RANGE: dict[str, Any] = {"color": "#999999", "linewidth": 0.8, "marker": "|", "markersize": 4, "zorder": 2}
SIDE = "Markers that would hide each other stand side by side: the table of points has their true places."
STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "svg.fonttype": "path",
    "figure.dpi": 150,
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
            return _saved(draw_heads.draw(picture), picture)
        if picture.depths:
            return _saved(draw_depths.draw(picture), picture)
        panels = picture.panels
        across = min(len(panels), 3)
        down = math.ceil(len(panels) / across)
        families = list(dict.fromkeys(point.family for panel in panels for point in panel.points))
        styles = _styles(families)
        lone = {name for name in families if not any(_swept(panel, name) for panel in panels)}
        shown = {name: _wrapped(name + " (one point)" * (name in lone)) for name in families}
        shown["Pareto front"] = "Pareto front"
        legend = 0.75 + 0.07 * max(len(line) for text in shown.values() for line in text.split("\n"))
        lines_of_legend = 3 + sum(text.count("\n") + 1 for text in shown.values())
        figure = Figure(
            figsize=(
                4.4 * across + legend if across > 1 else 5.6 + legend,
                max(4.0 * down + 0.5, 0.24 * lines_of_legend),
            )
        )
        FigureCanvasAgg(figure)
        grid = figure.subplots(down, across, squeeze=False)
        lines: dict[str, Any] = {}
        places = []
        for place, panel in enumerate(panels):
            found, marked = _panel(grid[place // across][place % across], picture, panel, styles)
            lines |= found
            places.append(marked)
        for place in range(len(panels), down * across):
            grid[place // across][place % across].set_visible(False)
        figure.suptitle(picture.title, x=0.01, ha="left", fontsize=11, fontweight="bold")
        moved = any(
            marked[p.method] != p.x
            for panel, marked in zip(panels, places, strict=True)
            for p in panel.points
        )
        foot = draw_heads.foot(figure, f"{picture.foot} {SIDE if moved else ''}".strip())
        figure.tight_layout(rect=(0, foot, 1 - legend / figure.get_figwidth(), 0.98))
        figure.draw_without_rendering()
        for place, panel in enumerate(panels):
            named = [point for point in panel.points if point.front and around.seen(picture, point)]
            written = [
                (_wrapped(p.method), places[place][p.method], p.y * around.factor(panel)) for p in named
            ]
            labels.place(grid[place // across][place % across], written, fontsize=7)
        names = [name for name in ("Pareto front", *sorted(styles), "dense", "uniform") if name in lines]
        figure.legend(
            [lines[name] for name in names], [shown.get(name, name) for name in names], loc="center left",
            bbox_to_anchor=(1 - legend / figure.get_figwidth() + 0.005, 0.5), frameon=False,
            handlelength=3.6, fontsize=8, labelspacing=0.7,
        )  # fmt: skip
        return _saved(figure, picture)


def _saved(figure: Any, picture: Picture) -> dict[str, bytes]:
    out = {}
    for kind, metadata in (("svg", {"Date": None, "Creator": None}), ("png", {"Software": None})):
        buffer = io.BytesIO()
        figure.savefig(buffer, format=kind, metadata={**metadata, "Description": picture.digest})
        out[kind] = buffer.getvalue()
    return out


def _wrapped(name: str) -> str:
    """Write a family on as many lines as it needs: half of a long spec says nothing."""
    return draw_heads.wrapped(clean(name, WHOLE).lstrip("_"))


def _styles(families: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Give each family a style, controls counted apart."""
    found: dict[str, dict[str, Any]] = {}
    counts = {True: 0, False: 0}
    for name in sorted(families):
        control = _is_control(name)
        found[name] = _style(counts[control], name)
        counts[control] += 1
    return found


def _is_control(name: str) -> bool:
    return any(DRAWN in term.split(":") for term in name.split("+"))


def _style(place: int, name: str) -> dict[str, Any]:
    control = _is_control(name)
    lines = CONTROL_LINES if control else LINES
    return {
        "color": COLOURS[(place + 4 * control) % len(COLOURS)],
        "marker": MARKERS[place % len(MARKERS)],
        "fillstyle": "none" if control else FILLS[place // len(MARKERS) % len(FILLS)],
        "markerfacecoloralt": "white",
        "linestyle": lines[place % len(lines)],
        "markersize": 6,
        "linewidth": 1.2,
    }


def _swept(panel: Panel, family: str) -> bool:
    return sum(point.family == family for point in panel.points) > 1


def _span(picture: Picture, panel: Panel) -> float:
    """Return how wide a panel is, in the unit of its x."""
    if picture.name.rpartition("-")[2] in around.SHARES:
        return 1.06
    xs = [point.x for point in panel.points]
    return 1.24 * (max(xs) - min(xs)) or 1.0


def _panel(
    axes: Any, picture: Picture, panel: Panel, styles: dict[str, dict[str, Any]]
) -> tuple[dict[str, Any], dict[str, float]]:
    """Draw a panel; return what the legend names, and where each method's marker stands across."""
    factor = around.factor(panel)
    lines: dict[str, Any] = {}
    for name, level, style in (("dense", panel.dense, (0, (8, 2))), ("uniform", panel.uniform, (0, (1, 2)))):
        if level is not None:
            lines[name] = axes.axhline(
                level * factor, color="#555555", linewidth=1, linestyle=style, zorder=1
            )
    lowest = around.LOST if picture.y.startswith("kept") else -math.inf
    height = 50 * axes.figure.get_figheight() / axes.get_gridspec().nrows  # points, without titles and labels
    marked = apart.across(panel, _span(picture, panel), height, lowest)
    for family, points in _by_family(panel.points):
        xs, ys = [marked[point.method] for point in points], [point.y * factor for point in points]
        drawn = styles[family] | ({} if len(points) > 1 else {"linestyle": "none"})
        line = axes.plot(xs, ys, zorder=3, **drawn)[0]
        if any(around.seen(picture, point) for point in points):
            lines[family] = line
        if picture.y.startswith("score"):
            bars = [[(p.y - p.low) * factor for p in points], [(p.high - p.y) * factor for p in points]]
            axes.errorbar(
                xs, ys, yerr=bars, fmt="none", ecolor=styles[family]["color"], elinewidth=0.8, capsize=2
            )
    front = sorted((point for point in panel.points if point.front), key=lambda point: point.x)
    if front and front[0].x_high is not None:
        # no staircase: which of two intervals that overlap comes first is not known
        lines["Pareto front"] = axes.plot(
            [marked[point.method] for point in front], [point.y * factor for point in front], "o",
            color="#d0d0d0", markersize=14, zorder=0.5,
        )[0]  # fmt: skip
        for point in front:
            if point.x_low is not None and point.x_high is not None:
                axes.plot([point.x_low, point.x_high], [point.y * factor] * 2, **RANGE)
    elif front:
        # at least as good as a point: everything to its left, or right where less is better
        steps = "steps-pre" if picture.name.endswith("sparsity") else "steps-post"
        lines["Pareto front"] = axes.plot(
            [point.x for point in front], [point.y * factor for point in front], drawstyle=steps,
            color="#d0d0d0", linewidth=6, solid_capstyle="round", zorder=0.5,
        )[0]  # fmt: skip
    around.write(axes, picture, panel, factor)
    return lines, marked


def _by_family(points: Iterable[Point]) -> list[tuple[str, list[Point]]]:
    found: dict[str, list[Point]] = {}
    for point in points:
        found.setdefault(point.family, []).append(point)
    return list(found.items())
