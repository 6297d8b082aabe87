"""Draw layers × heads as a heat map."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

FEW = 200  # cells with their number written in them


def draw(table: Mapping[tuple[str, int], Sequence[float]], title: str, diverging: bool = False) -> bytes:
    """Return a PNG: a panel a kind of attention, layer 0 at the bottom, brighter is higher.

    `diverging`: white is 0. `table` is (kind, layer) -> one number a head.
    """
    import numpy as np
    from matplotlib.figure import Figure

    kinds = list(dict.fromkeys(kind for kind, _ in table))
    panels = [[list(values) for (k, _), values in sorted(table.items()) if k == kind] for kind in kinds]
    heads = max(len(row) for rows in panels for row in rows)
    numbers = [value for rows in panels for row in rows for value in row if np.isfinite(value)]
    low, high = min(numbers, default=0.0), max(numbers, default=1.0)
    if diverging:
        high = max(abs(low), abs(high))
        low = -high
    cell, few = 0.62, sum(len(rows) for rows in panels) * heads <= FEW
    size = (
        max(4.5, 1.6 + cell * heads * len(panels) + 0.6 * (len(panels) - 1)),
        max(2.2, 1.5 + cell * max(map(len, panels))),
    )
    figure = Figure(figsize=size, dpi=120, layout="constrained")
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for axis, kind, rows in zip(axes, kinds, panels, strict=True):
        grid = np.array([row + [np.nan] * (heads - len(row)) for row in rows], dtype=float)
        image = axis.imshow(
            grid, origin="lower", cmap="RdBu" if diverging else "plasma", vmin=low, vmax=high, aspect="auto"
        )
        axis.set_xlabel("head")
        axis.set_ylabel("layer" if len(panels) == 1 else f"{kind} layer")
        axis.set_xticks(range(heads))
        axis.set_yticks(range(len(rows)))
        for layer, row in enumerate(rows if few else []):
            for head, value in enumerate(row):
                share = (value - low) / (high - low) if high > low else 0.5
                dark = 0.15 < share < 0.85 if diverging else share > 0.6
                axis.text(
                    head, layer, _short(value), ha="center", va="center", fontsize=7,
                    color="black" if dark else "white",
                )  # fmt: skip
    figure.colorbar(image, ax=list(axes))
    figure.suptitle(title, fontsize=9)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _short(value: float) -> str:
    text = f"{value:.2f}" if abs(value) >= 0.095 or value == 0 else f"{value:.2g}"
    return text.replace("e-0", "e-")
