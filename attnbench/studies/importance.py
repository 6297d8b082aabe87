"""How heads are ranked: the scores that criteria give them, and what a task loses without each."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from attnbench.engine.applicable import require_sites
from attnbench.engine.learning.fit import available
from attnbench.errors import unknown
from attnbench.methods.code import code_of
from attnbench.methods.fields import amount_field
from attnbench.methods.plugins import registry
from attnbench.methods.protocol import SCORED, Method, Site, fitted

if TYPE_CHECKING:
    from torch import nn

    from attnbench.methods.views import Data, Measured

PART_OF_METHODS = True  # what is found here is found by a study: its records' identity covers this file

__all__ = ["Effects", "code", "criteria", "effects", "require", "scores"]

LEVEL = 0.05


def criteria() -> dict[str, type[Method]]:
    """List what can score heads, under the variant of its name: "entropy" of `heads:entropy`."""
    found: dict[str, type[Method]] = {}
    for name, cls in sorted(registry().methods.items()):
        if cls.criterion:
            short = name.partition(":")[2] or name
            found[name.replace(":", "-") if short in found else short] = cls
    return found


def require(name: str) -> None:
    """Raise UserError for a criterion that is not known."""
    known = criteria()
    if name not in known:
        raise unknown("criterion", name, known, f"There are {', '.join(known)}.")


def code(name: str) -> str:
    """Hash a criterion's code."""
    return code_of([_method(name)])


def scores(model: nn.Module, name: str, data: Data) -> dict[tuple[str, int], np.ndarray]:
    """Score every head by a criterion, on the samples that methods learn from: (kind, layer) -> (heads,).

    Raises what the criterion raises, NotApplicable where it reads samples and there are none.
    """
    import torch

    method = _method(name)
    torch.manual_seed(data.seed)
    require_sites(model, [method])
    method.fit(model, available(data.calibration))
    learned = fitted(method)
    found = next(learned[key] for key in SCORED if key in learned)
    return {place: value.double().cpu().numpy() for place, value in found.items()}


def _method(name: str) -> Method:
    cls: Any = criteria()[name]
    method: Method = cls(0) if amount_field(cls) else cls()
    return method


@dataclass(frozen=True)
class Effects:
    """What a task loses without each head alone, (kind, layer) -> (heads,), in the metric's unit.

    `low` and `high` are the ends of a 95 % interval over the same samples, `p` two-sided of no difference,
    by Holm's correction for that many heads. `whole` is measured with every head, `one` what one sample of it
    is worth.
    """

    whole: Measured
    one: float
    effect: dict[tuple[str, int], np.ndarray]
    low: dict[tuple[str, int], np.ndarray]
    high: dict[tuple[str, int], np.ndarray]
    p: dict[tuple[str, int], np.ndarray]

    def certain(self) -> dict[tuple[str, int], np.ndarray]:
        """Return the effects that differ from zero, not a number elsewhere."""
        return {key: np.where(self.p[key] < LEVEL, each, np.nan) for key, each in self.effect.items()}


def effects(model: nn.Module, sites: Sequence[Site], data: Data) -> Effects:
    """Measure a task with every head, and without each of them alone, on the same samples.

    Raises NotApplicable where no task is given.
    """
    from tqdm import tqdm

    from attnbench.engine.learning.gates import Silenced
    from attnbench.engine.serving.attention import apply

    whole = data.measured()
    places = sorted({(site.kind, site.layer, head) for site in sites for head in range(site.heads)})
    found = []
    for kind, layer, head in tqdm(places, "ablation", unit="head", leave=False, disable=_hidden()):
        with apply(model, Silenced(head, on=(kind,), layers=(str(layer),))):
            found.append(data.measured())
    columns = np.array(list(_compared(whole, found)))  # (heads of all places, effect low high p)
    keys: list[tuple[str, int]] = [(kind, layer) for kind, layer, _ in places]
    tables = [
        {key: column[[each == key for each in keys]] for key in dict.fromkeys(keys)} for column in columns.T
    ]
    return Effects(whole, _one(whole), *tables)


def _hidden() -> bool:
    return not sys.stderr.isatty()


def _compared(whole: Measured, found: Sequence[Measured]) -> list[tuple[float, float, float, float]]:
    """Return effect, low, high and corrected p of each; no interval where a sample can decide all."""
    from attnbench.statistics.against_dense import comparable
    from attnbench.statistics.inference import holm, paired

    sign = 1 if whole.higher_is_better else -1
    gaps = [sign * (whole.value - each.value) for each in found]
    kind, dense = whole.aggregate, np.asarray(whole.scores, float)
    arrays = [np.asarray(each.scores, float) for each in found]
    if not all(comparable(kind, each) for each in (dense, *arrays)):
        return [(gap, np.nan, np.nan, 1.0) for gap in gaps]
    tests = paired(kind, dense, [[each] for each in arrays], 0.0, whole.higher_is_better)
    rows = []
    for gap, test, p in zip(gaps, tests, holm([test.p_zero for test in tests]), strict=True):
        ends = (test.low, test.high)
        if kind == "perplexity":  # compared on its logarithm
            ends = (whole.value * np.expm1(test.low), whole.value * np.expm1(test.high))
        low, high = sorted(-sign * end for end in ends)
        rows.append((gap, low, high, p))
    return rows


def _one(whole: Measured) -> float:
    """Return how far one sample moves the metric: of right and wrong answers 1/n, else without it."""
    from attnbench.statistics.aggregates import aggregate, influence, spare
    from attnbench.statistics.inference import binary

    kind, rows = whole.aggregate, np.asarray(whole.scores, float)
    if kind == "mean" and binary([rows]):
        return 1 / len(rows)
    if spare(kind, rows) < 1:
        return np.nan
    largest = float(np.abs(influence(kind, rows)).max()) / (len(rows) - 1)
    return float(aggregate(kind, rows) * np.expm1(largest)) if kind == "perplexity" else largest
