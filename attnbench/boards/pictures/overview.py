"""Draw all criteria side by side: which share of the other heads a head outranks, one scale for all."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence

from attnbench.boards.pictures.heatmap import SCALE

Shares = Mapping[tuple[str, int], Mapping[int, float]]  # (kind, layer) -> head -> 0 to 1
ACROSS = 4


def draw(
    tables: Mapping[str, Shares],
    title: str,
    certain: Mapping[str, Mapping[tuple[str, int], Sequence[float]]],
) -> bytes:
    """Return a PNG: a panel a criterion, layer 0 at the bottom, brighter outranks more of the other heads.

    Of a table that `certain` has too a head without a number there has no colour.
    """
    from matplotlib.figure import Figure

    across, lines = min(ACROSS, len(tables)), -(-len(tables) // ACROSS)
    first = next(iter(tables.values()))
    heads, layers = max(len(row) for row in first.values()), len(first)
    size = (max(5.0, (0.24 * heads + 0.9) * across + 0.9), max(2.0, 0.24 * layers + 0.7) * lines + 0.4)
    figure = Figure(figsize=size, dpi=120, layout="constrained")
    places = figure.subplots(lines, across, squeeze=False).flatten().tolist()
    for axes in places[len(tables) :]:
        axes.set_visible(False)
    for axes, (name, table) in zip(places, tables.items(), strict=False):
        rows = _rows(table, heads, certain.get(name))
        image = axes.imshow(
            [row for _, row in rows], origin="lower", cmap=SCALE, vmin=0, vmax=1, aspect="auto"
        )
        kinds = {kind for kind, _ in table}
        names = [f"{kind} {layer}" if len(kinds) > 1 else str(layer) for (kind, layer), _ in rows]
        axes.set_yticks(range(len(rows)), names, fontsize=6)
        axes.set_xticks(range(0, heads, max(1, heads // 4)))
        axes.tick_params(labelsize=6, length=2)
        axes.set_title(name, fontsize=8, loc="left")
    for axes in places[::across]:
        axes.set_ylabel("layer", fontsize=7)
    for axes in places[max(0, len(tables) - across) : len(tables)]:
        axes.set_xlabel("head", fontsize=7)
    bar = figure.colorbar(image, ax=places)
    bar.set_label("share of the other heads that it outranks", fontsize=7)
    bar.ax.tick_params(labelsize=6)
    blank = ", no colour where an effect may be 0" if certain else ""
    figure.suptitle(f"{title}: heads by every criterion{blank}", fontsize=9)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _rows(
    table: Shares, heads: int, certain: Mapping[tuple[str, int], Sequence[float]] | None
) -> list[tuple[tuple[str, int], list[float]]]:
    """Return the layers of each kind in turn, each as long as the longest."""
    found = []
    for key in sorted(table):
        row = [table[key].get(head, math.nan) for head in range(heads)]
        for head, value in enumerate(certain[key] if certain else ()):
            row[head] = row[head] if math.isfinite(value) else math.nan
        found.append((key, row))
    return found
