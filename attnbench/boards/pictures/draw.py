"""Draw pictures as SVG and PNG: readable in black and white, the same bytes for the same points."""

from __future__ import annotations

import io
import math
from collections.abc import Iterable
from typing import Any

from attnbench.boards.pictures import draw_depths, draw_heads, labels
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
LONGEST, WHOLE = 32, 90  # of a model or task, of a spec
RANGE: dict[str, Any] = {"color": "#999999", "linewidth": 0.8, "marker": "|", "markersize": 4, "zorder": 2}
LOST = -0.5  # of what attention adds: worse than uniform by half of that is not told apart
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
        shown = {name: _wrapped(name) for name in (*families, "Pareto front")}
        legend = 0.75 + 0.07 * max(len(line) for text in shown.values() for line in text.split("\n"))
        lines_of_legend = 3 + sum(text.count("\n") + 1 for text in shown.values())
        figure = Figure(
            figsize=(
                4.4 * across + legend if across > 1 else 5.6 + legend,
                max(3.7 * down + 0.5, 0.24 * lines_of_legend),
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
        figure.draw_without_rendering()
        for place, panel in enumerate(panels):
            named = [point for point in panel.points if point.front and _seen(picture, point)]
            written = [(_wrapped(p.method), p.x, p.y * _factor(panel)) for p in named]
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


def _short(text: str) -> str:
    return clean(text, LONGEST).lstrip("_")  # matplotlib leaves a leading underscore out of a legend


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


def _panel(axes: Any, picture: Picture, panel: Panel, styles: dict[str, dict[str, Any]]) -> dict[str, Any]:
    from matplotlib.ticker import LogLocator, MultipleLocator, NullFormatter

    factor = _factor(panel)
    lines: dict[str, Any] = {}
    for name, level, style in (("dense", panel.dense, (0, (8, 2))), ("uniform", panel.uniform, (0, (1, 2)))):
        if level is not None:
            lines[name] = axes.axhline(
                level * factor, color="#555555", linewidth=1, linestyle=style, zorder=1
            )
    for family, points in _by_family(panel.points):
        xs, ys = [point.x for point in points], [point.y * factor for point in points]
        line = axes.plot(xs, ys, zorder=3, **styles[family])[0]
        if any(_seen(picture, point) for point in points):
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
            [point.x for point in front], [point.y * factor for point in front], "o", color="#d0d0d0",
            markersize=14, zorder=0.5,
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
    axes.set_title(f"{_short(panel.model)}, {_short(panel.task)}", fontsize=9, loc="left")
    axes.set_xlabel(picture.x)
    unit = " %" if panel.scale == "fraction" else ""
    score = f"{_short(panel.metric)}{unit} ± standard error"
    axes.set_ylabel("kept %" if picture.y.startswith("kept") else score)
    if panel.scale == "log":
        axes.set_yscale("log")
        low, high = axes.get_ylim()
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high < 100 * low else (1.0,)))
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:,g}")
        axes.yaxis.set_minor_formatter(NullFormatter())
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


def _factor(panel: Panel) -> int:
    return 100 if panel.scale == "fraction" else 1


def _seen(picture: Picture, point: Point) -> bool:
    return not picture.y.startswith("kept") or point.y >= LOST


def _floor(axes: Any, picture: Picture, panel: Panel, factor: int) -> None:
    """Cut a picture of what is kept where it is lost altogether, and say what lies below."""
    if not picture.y.startswith("kept"):
        return
    top, bottom = max(*(point.y for point in panel.points), 1.0), min(point.y for point in panel.points)
    below = sum(not _seen(picture, point) for point in panel.points)
    floor = LOST if below else min(bottom, 0.0) - 0.06
    axes.set_ylim(floor * factor, (top + 0.12 * (top - floor)) * factor)  # with room for names above
    if not below:
        return
    told = f"{below} below −{-LOST:.0%}"
    axes.text(
        0.01,
        0.01,
        told,
        transform=axes.transAxes,
        fontsize=7,
        va="bottom",
        ha="left",
        zorder=5,
        bbox=labels.LABEL,
    )


def _by_family(points: Iterable[Point]) -> list[tuple[str, list[Point]]]:
    found: dict[str, list[Point]] = {}
    for point in points:
        found.setdefault(point.family, []).append(point)
    return list(found.items())
