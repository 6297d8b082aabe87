"""Draw layers × heads as a heat map."""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence

Table = Mapping[tuple[str, int], Sequence[float]]
FEW = 200  # cells with their number written in them
PER_INCH = 14  # characters of a title


NOISE = "A head whose effect may be 0 has no colour."
NO_INTERVAL = "Means without intervals: small differences between heads may be chance."
SCALE, SIGNED = "plasma", "RdBu"  # colours of every map of heads; the second for differences, white is 0


def draw(table: Table, title: str, diverging: bool = False, certain: Table | None = None) -> bytes:
    """Return a PNG: a panel a kind of attention, layer 0 at the bottom, brighter is higher.

    `diverging`: white is 0. `table` is (kind, layer) -> one number a head; with `certain`, the same with no
    number where one may be noise, such a head has no colour.
    """
    return drawn(table, title, ("png",), diverging, certain, foot=NOISE if certain else NO_INTERVAL)["png"]


def drawn(
    table: Table, title: str, forms: Iterable[str], diverging: bool = False, certain: Table | None = None,
    digest: str = "", foot: str = "",
) -> dict[str, bytes]:  # fmt: skip
    """Return the same as bytes by form, of "png" and "svg", with a line below.

    They carry a `digest` where one is given.
    """
    import matplotlib
    import numpy as np
    from matplotlib.figure import Figure

    shown = table if certain is None else certain
    kinds = list(dict.fromkeys(kind for kind, _ in table))
    layers = [[layer for k, layer in sorted(table) if k == kind] for kind in kinds]
    panels = [[list(shown[kind, layer]) for layer in own] for kind, own in zip(kinds, layers, strict=True)]
    heads = max(len(row) for rows in panels for row in rows)
    numbers = [value for rows in panels for row in rows for value in row if np.isfinite(value)]
    low, high = min(numbers, default=0.0), max(numbers, default=1.0)
    high = high if high > low else low + 1  # all alike: the colour of little
    if diverging:
        high = max(abs(low), abs(high))
        low = -high
    few = sum(len(rows) for rows in panels) * heads <= FEW
    cell = 0.62 if few else 0.32
    size = (
        max(4.5, 1.6 + cell * heads * len(panels) + 0.6 * (len(panels) - 1)),
        max(2.2, 1.5 + 0.2 * bool(foot) + cell * max(map(len, panels))),
    )
    figure = Figure(figsize=size, dpi=120, layout="constrained")
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for axis, kind, own, rows in zip(axes, kinds, layers, panels, strict=True):
        grid = np.array([row + [np.nan] * (heads - len(row)) for row in rows], dtype=float)
        image = axis.imshow(
            grid, origin="lower", cmap=SIGNED if diverging else SCALE, vmin=low, vmax=high, aspect="auto"
        )
        axis.set_xlabel("head")
        axis.set_ylabel("layer" if len(panels) == 1 else f"{kind} layer")
        axis.set_xticks(range(heads))
        axis.set_yticks(range(len(rows)), list(map(str, own)))
        for place, row in enumerate(rows if few else []):
            for head, value in enumerate(row):
                number = table[kind, own[place]][head]
                if np.isfinite(number):
                    axis.text(
                        head, place, _short(number), ha="center", va="center", fontsize=7,
                        color=_ink((value - low) / (high - low), diverging),
                    )  # fmt: skip
    figure.colorbar(image, ax=list(axes))
    figure.suptitle(_wrapped(title, size[0]), fontsize=9)
    if foot:
        figure.supxlabel(_wrapped(foot, size[0]), x=0.01, ha="left", fontsize=7, color="#555555")
    found = {}
    with matplotlib.rc_context({"svg.hashsalt": title}):
        for form in forms:
            buffer = io.BytesIO()
            metadata: dict[str, str | None]
            metadata = {"Software": None} if form == "png" else {"Date": None, "Creator": None}
            metadata |= {"Description": digest} if digest else {}
            figure.savefig(buffer, format=form, metadata=metadata)
            found[form] = buffer.getvalue()
    return found


def _ink(share: float, diverging: bool) -> str:
    """Return the colour of a number on a colour, grey where there is none."""
    if math.isnan(share):
        return "#767676"
    return "black" if (0.15 < share < 0.85 if diverging else share > 0.6) else "white"


def _wrapped(title: str, inches: float) -> str:
    """Break a title's lines where a figure of that width ends."""
    most = int(inches * PER_INCH)
    return "\n".join(part for line in title.splitlines() for part in textwrap.wrap(line, most))


def _short(value: float) -> str:
    text = f"{value:.2f}" if abs(value) >= 0.095 or value == 0 else f"{value:.2g}"
    return text.replace("e-0", "e-")
