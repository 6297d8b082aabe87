"""Names beside points: where they cover least, joined to a point further off by a thin line."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

DISTANCES = (9, 16, 26, 40, 58, 80)  # points on paper
ANGLES = tuple(range(0, 360, 30))
STEP, APART = 4.0, 1.5  # points along a line, points of room around a name: widths differ between SVG and PNG
CLEAR = 5.0  # points from a name to the marker of another
STRUCK = 60.0  # what it costs that one name's thin line crosses another name
MARKER, LINE, FAR = 12.0, 3.0, 0.12  # what it costs to cover a marker, to cover a step, to be a point away
LABEL = {"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 0.3}
RELATIVE = {"left": (0.0, 0.5), "center": (0.5, 0.5), "right": (1.0, 0.5)}  # where on a name its line begins
TICK = {"arrowstyle": "-", "color": "#888888", "linewidth": 0.6, "shrinkA": 0, "shrinkB": 4}


def place(axes: Any, names: Sequence[tuple[str, float, float]], **style: Any) -> None:
    """Write names at points given in the axes' data, in a figure that has been laid out.

    A name that nowhere keeps clear of the others, inside the axes, is left out: the table has them all.
    """
    pixels, frame = axes.figure.dpi / 72, axes.get_window_extent()
    frame = frame.padded(-APART * pixels)
    marks, along = _drawn(axes, STEP * pixels)
    taken = [text.get_window_extent() for text in axes.texts]
    ticks = np.empty((0, 2))
    for text, x, y in names:
        centre = axes.transData.transform((x, y))
        others = marks[np.hypot(*(marks - centre).T) > 1]
        label = axes.annotate(
            text, (x, y), (0, 0), textcoords="offset points", va="center", zorder=4, **style
        )
        size = label.get_window_extent().padded(APART * pixels).size
        found: list[tuple[float, float, tuple[float, float]]] = []
        for distance, angle in itertools.product(DISTANCES, ANGLES):
            turn = math.radians(angle)
            offset = distance * math.cos(turn), distance * math.sin(turn)
            box = _box(centre, offset, size, pixels)
            if not _inside(box, frame) or any(map(box.overlaps, taken)):
                continue
            tick = _tick(centre, offset, distance, pixels)
            struck = bool(_covered(box, ticks, 0)) + sum(bool(_covered(other, tick, 0)) for other in taken)
            cost = (
                STRUCK * struck
                + MARKER * _covered(box, others, CLEAR * pixels)
                + LINE * _covered(box, along, 0)
            )
            found.append(
                (cost + MARKER * _passed(tick, others, 4 * pixels) + FAR * distance, distance, offset)
            )
        label.remove()
        if found:
            _, away, offset = min(found)
            joined = TICK | {"relpos": RELATIVE[_side(offset)]}
            axes.annotate(
                text, (x, y), offset, textcoords="offset points", va="center", ha=_side(offset), zorder=4,
                bbox=LABEL, arrowprops=joined if away > DISTANCES[1] else None, **style,
            )  # fmt: skip
            taken.append(_box(centre, offset, size, pixels))
            ticks = np.concatenate([ticks, _tick(centre, offset, away, pixels)])


def _tick(centre: Any, offset: tuple[float, float], distance: float, pixels: float) -> NDArray[np.float64]:
    """Return places along the thin line that joins a name to its point, none where there is no such line."""
    if distance <= DISTANCES[1]:
        return np.empty((0, 2))
    return np.asarray(centre) + np.linspace(0.1, 0.95, 20)[:, None] * np.array(offset) * pixels


def _passed(tick: NDArray[np.float64], marks: NDArray[np.float64], around: float) -> int:
    """Count the markers that a thin line passes: it would seem to be theirs."""
    if not len(tick) or not len(marks):
        return 0
    return int((np.hypot(*(tick[:, None] - marks).transpose(2, 0, 1)).min(0) < around).sum())


def _side(offset: tuple[float, float]) -> str:
    return "left" if offset[0] > 1 else "right" if offset[0] < -1 else "center"


def _box(centre: Any, offset: tuple[float, float], size: Any, pixels: float) -> Any:
    from matplotlib.transforms import Bbox

    x, y = (float(middle) + shift * pixels for middle, shift in zip(centre, offset, strict=True))
    room = {"left": -APART, "center": 0.0, "right": APART}[_side(offset)] * pixels
    x += room - {"left": 0.0, "center": 0.5, "right": 1.0}[_side(offset)] * float(size[0])
    return Bbox.from_bounds(x, y - size[1] / 2, *size)


def _inside(box: Any, frame: Any) -> bool:
    return bool(box.x0 >= frame.x0 and box.x1 <= frame.x1 and box.y0 >= frame.y0 and box.y1 <= frame.y1)


def _covered(box: Any, places: NDArray[np.float64], around: float) -> int:
    if not len(places):
        return 0
    x, y = places.T
    inside = (x > box.x0 - around) & (x < box.x1 + around) & (y > box.y0 - around) & (y < box.y1 + around)
    return int(inside.sum())


def _drawn(axes: Any, step: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the pixels of all markers, and of places every few pixels along all lines."""
    marks, along = [np.empty((0, 2))], [np.empty((0, 2))]
    for line in axes.lines:
        path = line.get_transform().transform(np.column_stack(line.get_data()).astype(float))
        if line.get_marker() not in ("None", None, ""):
            marks.append(path)
        if line.get_linestyle() == "None" or line.get_drawstyle() != "default":
            continue  # a front lies beneath all else
        for start, end in itertools.pairwise(path):
            steps = max(2, int(np.hypot(*(end - start)) / step) + 1)
            along.append(start + (end - start) * np.linspace(0, 1, min(steps, 1000))[:, None])
    return np.concatenate(marks), np.concatenate(along)
