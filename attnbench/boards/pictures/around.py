"""What stands around the points of a panel: its title, the words and ticks of its axes, what lies below."""

from __future__ import annotations

import textwrap
from typing import Any

from attnbench.boards.pictures import labels
from attnbench.boards.pictures.points import Panel, Picture, Point
from attnbench.records.inert import clean

LONGEST = 32  # characters of a model or task
NOTE = 68  # characters of a line below a panel's title
SHARES = ("sparsity", "heads", "kv")  # what goes from 0 to 1
LOST = -0.5  # of what attention adds: worse than uniform by half of that is not told apart


def write(axes: Any, picture: Picture, panel: Panel, times: int) -> None:
    """Write a panel's title and what it leaves out, name its axes and set their ends and ticks."""
    from matplotlib.ticker import LogLocator, MultipleLocator, NullFormatter

    note = textwrap.fill(panel.note, NOTE)
    title = f"{short(panel.model)}, {short(panel.task)}"
    axes.set_title(title, fontsize=9, loc="left", pad=8 + 9.5 * (note.count("\n") + 1) * bool(note))
    axes.annotate(note, (0, 1), (0, 5), "axes fraction", "offset points", fontsize=7, color="#555555")
    axes.set_xlabel(picture.x, fontsize=8)
    unit = ", %" if panel.scale == "fraction" else ""
    less = "" if panel.higher_is_better else "\n(less is better)"
    score = f"{short(panel.metric)}{unit} ± standard error{less}"
    axes.set_ylabel(picture.y if picture.y.startswith("kept") else score, fontsize=8)
    if panel.scale == "log":
        axes.set_yscale("log")
        low, high = axes.get_ylim()
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high < 100 * low else (1.0,)))
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:,g}")
        axes.yaxis.set_minor_formatter(NullFormatter())
    _floor(axes, picture, panel, times)
    kind = picture.name.rpartition("-")[2]
    if kind == "bits":
        axes.xaxis.set_major_locator(MultipleLocator(1))
        axes.margins(x=0.12)
    elif kind in ("latency", "amount"):
        axes.margins(x=0.12)
        if kind == "latency":
            axes.axvline(1, color="#555555", linewidth=1, linestyle=(0, (8, 2)), zorder=1)
    else:
        axes.xaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f}")
        axes.set_xlim(-0.03, 1.03)
    axes.grid(axis="y", color="#e5e5e5", linewidth=0.6)
    axes.set_axisbelow(True)


def short(text: str) -> str:
    """Cut the name of a model or task to what a title holds."""
    return clean(text, LONGEST).lstrip("_")  # matplotlib leaves a leading underscore out of a legend


def factor(panel: Panel) -> int:
    """Return what scores are multiplied by to be shown."""
    return 100 if panel.scale == "fraction" else 1


def seen(picture: Picture, point: Point) -> bool:
    """Tell whether a point lies in its picture."""
    return not picture.y.startswith("kept") or point.y >= LOST


def _floor(axes: Any, picture: Picture, panel: Panel, times: int) -> None:
    """Cut a picture of what is kept where it is lost altogether, and say what lies below."""
    if not picture.y.startswith("kept"):
        return
    top, bottom = max(*(point.y for point in panel.points), 1.0), min(point.y for point in panel.points)
    below = sum(not seen(picture, point) for point in panel.points)
    floor = LOST if below else min(bottom, 0.0) - 0.06
    axes.set_ylim(floor * times, (top + 0.12 * (top - floor)) * times)  # with room for names above
    if not below:
        return
    told = f"{below} {'method lies' if below == 1 else 'methods lie'} below −{-100 * LOST:.0f} %"
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
