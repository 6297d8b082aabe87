"""Between which two bounds attention should be quantised, by what is lost of its distribution or values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from attnbench import Study, by_head, hookimpl
from attnbench_plugins.studies._histograms import Sums, bins_of, edges, visible, wide

if TYPE_CHECKING:
    import numpy as np

CELLS = 160  # of a histogram, 20 a decade
STEP = 4  # a bound lies at every fourth edge: five a decade


@dataclass
class Clamp(Study):
    """Find the two bounds between which 2^bits levels, of equal steps of log p, lose least.

    Visible probabilities are counted in 160 log cells from 1e-8 to 1, the first with all that is less. For
    bounds low < high at every fourth edge, with 2^bits cells or more between them, each cell belongs
    to one of 2^bits equal parts. kl: P is the counts in [low, high], those outside added to its end cells; Q
    has each part's own counts, spread alike over its cells that hold any; the loss is sum P ln(P / Q), both
    over the number of all, infinite where Q = 0 < P. mse: the mean of (x - y)^2, where x is a cell's
    geometric middle (0 in the first) and y that of its part, of the first and the last part for what lies
    outside. `heads` has the bounds with the
    least loss of each kind and that loss, the lowest bounds first where two are equal; `curve` the least
    loss over high for each low, of the counts of a layer's heads together. Shapes: probs (batch, heads,
    queries, keys). Source: https://aclanthology.org/2021.findings-acl.363/, its code's F23, after the
    entropy calibration of https://docs.nvidia.com/deeplearning/tensorrt/. Differs: bounds on a log scale and
    at both ends; theirs makes Q sum to 1, so that clipping all but one cell loses nothing.
    """

    name, examples = "clamp", ("clamp4", "clamp3")
    shown = ("kl_low", "mse_low", "kl")
    bits: int

    def __post_init__(self) -> None:
        if not 1 <= self.bits <= 6:
            raise ValueError("bits are 1 to 6")

    def begin(self, model: Any, sites: Any) -> None:
        self.sums = Sums()

    def probs(self, probs: Any, site: Any) -> None:
        import torch

        seen, _ = visible(probs, site)
        heads = torch.arange(probs.shape[1], device=probs.device)[:, None, None]
        where = bins_of(wide(probs), bins=CELLS) + heads * CELLS
        kept = where.flatten() if seen is None else where[seen.expand_as(where)]
        counts = torch.bincount(kept, minlength=probs.shape[1] * CELLS)
        self.sums.add(site, counts=counts.view(-1, CELLS))

    def tables(self) -> Any:
        import numpy as np
        import pandas as pd

        columns: dict[str, Any] = {}
        curve = []
        for place, counts in sorted(self.sums.column("counts").items()):
            rows = np.vstack([counts, counts.sum(0)])  # the last is the layer's
            lows = {}
            for kind in ("kl", "mse"):
                low, high, loss = searched(rows, self.bits, kind)
                choice = loss.argmin(0)
                for name, values in ((f"{kind}_low", low[choice]), (f"{kind}_high", high[choice])):
                    columns.setdefault(name, {})[place] = values[:-1]
                columns.setdefault(kind, {})[place] = loss.min(0)[:-1]
                lows[kind] = pd.Series(loss[:, -1]).groupby(low).min()
            curve += [(*place, low, lows["kl"][low], lows["mse"][low]) for low in lows["kl"].index]
        table = pd.DataFrame(curve, columns=["kind", "layer", "low", "kl", "mse"])
        return {"heads": by_head(columns), "curve": table.set_index(["kind", "layer", "low"])}

    def draw(self, tables: Any, arrays: Any) -> Any:
        from matplotlib.figure import Figure

        figure = Figure(figsize=(9, 3), layout="constrained")
        for axes, kind in zip(figure.subplots(1, 2), ("kl", "mse"), strict=True):
            for (where, layer), part in tables["curve"].groupby(["kind", "layer"]):
                low = part.index.get_level_values("low")
                axes.plot(low, part[kind], linewidth=1, label=f"{where} {layer}")
            axes.set(xscale="log", yscale="log", xlabel="low bound", ylabel=f"least {kind}")
        axes.legend(fontsize=6)
        return {"curve": figure}


def searched(counts: np.ndarray, bits: int, kind: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the lows and highs (pairs,) that are tried and what each row of counts loses (pairs, rows)."""
    import numpy as np

    bounds, levels = edges(bins=CELLS), 2**bits
    ends = range(0, CELLS + 1, STEP)
    pairs = [(first, last) for first in ends for last in ends if last - first >= levels]
    loss = _kl if kind == "kl" else _mse
    found = np.array([loss(counts, first, last, levels) for first, last in pairs])
    return bounds[[first for first, _ in pairs]], bounds[[last for _, last in pairs]], found


def _parts(first: int, last: int, levels: int) -> np.ndarray:
    """Return which part each cell from `first` to `last` belongs to: (cells, levels), 1 there and else 0."""
    import numpy as np

    return np.eye(levels)[(np.arange(last - first) * levels) // (last - first)]


def _kl(counts: np.ndarray, first: int, last: int, levels: int) -> np.ndarray:
    import numpy as np

    inside, parts = counts[:, first:last], _parts(first, last, levels)
    clipped = inside.copy()
    clipped[:, 0] += counts[:, :first].sum(1)
    clipped[:, -1] += counts[:, last:].sum(1)
    held = inside > 0
    spread = (inside @ parts / np.maximum(held @ parts, 1)) @ parts.T * held
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(clipped > 0, clipped * np.log(clipped / spread), 0)
    return np.maximum(terms.sum(1), 0) / counts.sum(1)


def _mse(counts: np.ndarray, first: int, last: int, levels: int) -> np.ndarray:
    import numpy as np

    bounds = np.log10(edges(bins=CELLS))
    middles = 10 ** ((bounds[:-1] + bounds[1:]) / 2)
    middles[0] = 0.0
    width = (bounds[last] - bounds[first]) / levels
    values = _parts(first, last, levels) @ 10 ** (bounds[first] + width * (np.arange(levels) + 0.5))
    near = np.clip(np.arange(CELLS) - first, 0, last - first - 1)
    found: np.ndarray = counts @ (middles - values[near]) ** 2 / counts.sum(1)
    return found


@hookimpl
def register_studies(register: Callable[[type[Study]], None]) -> None:
    register(Clamp)
