"""Draw maps of depth and length: a column a length, the beginning of the text on top, darker is better."""

from __future__ import annotations

import math
from typing import Any

from attnbench.boards.pictures.depths import DepthMap
from attnbench.boards.pictures.draw_heads import foot, wrapped
from attnbench.boards.pictures.points import Picture
from attnbench.records.inert import clean

ACROSS = 6
DARK = 0.55  # of the scale: what stands on it is white


def draw(picture: Picture) -> Any:
    """Return a figure: lines of maps for each model and task, a score written in each field."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    groups: dict[tuple[str, str], list[DepthMap]] = {}
    for each in picture.depths:
        groups.setdefault((each.model, each.task), []).append(each)
    lines = [maps[k : k + ACROSS] for maps in groups.values() for k in range(0, len(maps), ACROSS)]
    across = max(map(len, lines))
    titles = [[wrapped(clean(each.method, 90)) for each in line] for line in lines]
    deepest = max(text.count("\n") for line in titles for text in line)
    columns = max(len(each.lengths) for each in picture.depths)
    rows = max(len(each.depths) for each in picture.depths)
    width = (max(1.3, 0.42 * columns + 0.3) + 0.35) * across + 0.7
    height = (0.2 * rows + 0.75 + 0.14 * deepest) * len(lines) + 0.7
    figure = Figure(figsize=(max(width, 4.8), height), layout="constrained")
    FigureCanvasAgg(figure)
    places = figure.subplots(len(lines), across, squeeze=False)
    for axes_of_line, maps, texts in zip(places, lines, titles, strict=True):
        for axes in axes_of_line[len(maps) :]:
            axes.set_visible(False)
        low, high = _ends(groups[maps[0].model, maps[0].task])
        for axes, each, text in zip(axes_of_line, maps, texts, strict=False):
            _map(axes, each, low, high)
            axes.set_title(text, fontsize=8, loc="left")
            axes.set_xlabel(picture.x, fontsize=7)
        first = maps[0]
        axes_of_line[0].set_ylabel(
            f"{clean(first.model)}\n{clean(first.task)}, {clean(first.metric)}\n{picture.y}", fontsize=7
        )
    figure.suptitle(picture.title, x=0.01, ha="left", fontsize=11, fontweight="bold")
    taken = foot(figure, picture.foot)
    figure.set_layout_engine("constrained", rect=(0, taken, 1, 1 - taken))
    return figure


def _ends(maps: list[DepthMap]) -> tuple[float, float]:
    """Return the ends of the scale: a fraction's are 0 and 1."""
    values = [value for each in maps for row in each.scores for value in row if value is not None]
    low, high = min(values), max(values)
    return (0.0, 1.0) if low >= 0 and high <= 1 else (low, high if high > low else low + 1)


def _map(axes: Any, each: DepthMap, low: float, high: float) -> None:
    shades = [[math.nan if value is None else value for value in row] for row in each.scores]
    axes.imshow(shades, cmap="Greys", vmin=low, vmax=high, aspect="auto", interpolation="nearest")
    fraction = (low, high) == (0.0, 1.0)
    for down, row in enumerate(each.scores):
        for across, value in enumerate(row):
            if value is not None:
                text = f"{100 * value:.0f}" if fraction else f"{value:.2g}"
                color = "white" if (value - low) / (high - low) > DARK else "black"
                axes.text(across, down, text, ha="center", va="center", fontsize=6, color=color)
    axes.set_xticks(range(len(each.lengths)))
    axes.set_xticklabels([f"{length:,}" for length in each.lengths])
    axes.set_yticks(range(len(each.depths)))
    axes.set_yticklabels([f"{100 * depth:.0f}" for depth in each.depths])
    axes.tick_params(labelsize=6, length=2)
    for side in ("top", "right"):
        axes.spines[side].set_visible(True)
