"""Markers side by side where one would hide another. Pure: places are points on paper."""

from __future__ import annotations

import math
from collections.abc import Sequence

from attnbench.boards.pictures.points import Panel

WIDTH = 250.0  # of a panel on paper, about
STEPS = (
    0.0,
    -5.0,
    5.0,
    -10.0,
    10.0,
    -15.0,
    15.0,
)  # how far a marker may go across: further, and it would tell another x
HIDDEN = 3.5  # a marker that is nearer than this to another, both ways, hides it


def shifts(places: Sequence[tuple[float, float]]) -> list[float]:
    """Return how far each marker goes across, the first free place, or the freest where all are taken."""
    taken: list[tuple[float, float]] = []
    found = []
    for x, y in places:
        rooms = [
            min((max(abs(x + step - u), abs(y - v)) for u, v in taken), default=math.inf) for step in STEPS
        ]
        free = [step for step, room in zip(STEPS, rooms, strict=True) if room >= HIDDEN]
        step = free[0] if free else STEPS[rooms.index(max(rooms))]
        taken.append((x + step, y))
        found.append(step)
    return found


def across(panel: Panel, span: float, height: float, lowest: float = -math.inf) -> dict[str, float]:
    """Return where each method's marker stands across, in the panel's unit of x.

    `span` is the panel's width in that unit and `height` its height on paper; what lies under `lowest` is
    not in it.
    """
    log = panel.scale == "log"
    levels = [level for level in (panel.dense, panel.uniform) if level is not None]
    seen = [point for point in panel.points if point.y >= lowest and (point.y > 0 or not log)]
    ups = [math.log(point.y) if log else point.y for point in seen]
    ends = [*ups, *(math.log(level) if log else level for level in levels if level > 0 or not log)]
    unit = height / ((max(ends) - min(ends)) or 1.0) if ends else 1.0
    places = [(point.x / span * WIDTH, up * unit) for point, up in zip(seen, ups, strict=True)]
    moved = {point.method: away / WIDTH * span for point, away in zip(seen, shifts(places), strict=True)}
    return {point.method: point.x + moved.get(point.method, 0.0) for point in panel.points}
