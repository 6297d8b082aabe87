"""One line of a table: a method on a task of a model by one metric, how it compares, how its numbers read."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

from attnbench.methods.controls import CONTROLS
from attnbench.statistics import fidelity

if TYPE_CHECKING:
    from attnbench.records.record import Record

SEEN = 0.0005  # of a share, as a table rounds
LEVEL = 0.05
LARGEST = 700.0  # of a logarithm: a percentage of more is no float


@dataclass
class Row:
    """A method's score by one metric, and its difference to dense on the same samples; its seeds are one row.

    `difference`, `low`, `high` and `margin` are on the scale that is compared: `scale` is "fraction" (0.01
    is a point), "score" (BLEU, chrF: 1 is a point), "log" (perplexity: 0.01 is 1 %) or "raw" (all else).
    """

    model: str
    task: str
    method: str
    metric: str = ""
    primary: bool = True
    status: str = "measured"
    error: str | None = None
    samples: int = 0
    seeds: int = 1
    score: float | None = None
    stderr: float | None = None
    seed_low: float | None = None
    seed_high: float | None = None
    higher_is_better: bool = True
    scale: str = "raw"
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    margin: float | None = None
    p_margin: float | None = None
    p_holm: float | None = None
    p_better: float | None = None  # one-sided, of not being better than dense; Holm over the table
    mcnemar: float | None = None
    discordant: tuple[int, int] | None = None  # only dense right, only the method: what McNemar's test counts
    kept: float | None = None
    needed: float | None = None
    sparsity: float | None = None
    bits: float | None = None
    seconds: float | None = None
    effect: str | None = None
    heads: float | None = None
    divergence: float | None = None
    nominal: float | None = None
    entropy: float | None = None
    flops_simulated: float | None = None
    flops_realised: float | None = None
    latency: float | None = None
    latency_low: float | None = None  # of its 95 % interval; of several seeds the lowest and highest
    latency_high: float | None = None
    memory: float | None = None
    cache: float | None = None  # share of a prompt's tokens that are kept
    kv: float | None = None  # bits kept of a prompt's keys and values, over 16 bits a value
    kv_bytes: float | None = None  # that a realised cache holds, over dense's
    control_of: str | None = None
    flips: float | None = None  # shares of samples and nats, each with its 95 % interval: see fidelity
    flips_low: float | None = None
    flips_high: float | None = None
    answers_changed: float | None = None
    answers_changed_low: float | None = None
    answers_changed_high: float | None = None
    kl: float | None = None
    kl_low: float | None = None
    kl_high: float | None = None
    floor: float | None = None  # what rounding alone moves the score by, on the scale that is compared
    check: str | None = None  # "failed" or "unchecked", of a method's code by `attnbench check`

    def with_costs(self, members: Sequence[Record]) -> Row:
        """Fill in what was measured beside the score, the mean over seeds. Returns the row itself.

        Of latencies the median over seeds and their range: a mean of the seeds' intervals is none.
        """
        for field, path in MEASURED.items():
            if any(path[0] in item.measured for item in members):  # few are, of all that can be
                setattr(self, field, _mean(_numbers(members, path)))
        latencies = _numbers(members, MEASURED["latency"]) if len(members) > 1 else []
        if latencies:
            self.latency = median(latencies)
            self.latency_low, self.latency_high = min(latencies), max(latencies)
        if self.method in CONTROLS:
            self.bits = self.entropy = None
        for name in fidelity.NAMES:
            found = fidelity.of(members, name)
            for end, value in (found._asdict() if found else {}).items():
                setattr(self, name.replace("-", "_") + ("" if end == "value" else f"_{end}"), value)
        return self

    def fidelity(self, name: str) -> fidelity.Interval | None:
        """Return one of `fidelity.NAMES` with its interval, None where it is not defined."""
        field = name.replace("-", "_")
        value, low, high = (getattr(self, field + end) for end in ("", "_low", "_high"))
        return None if value is None else fidelity.Interval(value, low or 0.0, high or 0.0)

    @property
    def worse(self) -> bool:
        """Tell whether the interval lies wholly on the harmful side of zero."""
        if self.low is None or self.high is None or self.below_floor:
            return False
        return self.high < 0 if self.higher_is_better else self.low > 0

    @property
    def better(self) -> bool:
        """Tell whether the interval lies wholly on the good side of zero."""
        if self.low is None or self.high is None or self.below_floor:
            return False
        return self.low > 0 if self.higher_is_better else self.high < 0

    @property
    def below_floor(self) -> bool:
        """Tell whether the difference is no larger than what rounding alone makes of the column's scores."""
        return self.floor is not None and self.difference is not None and abs(self.difference) <= self.floor

    @property
    def least_gain(self) -> float:
        """Return the least that it is better than dense, by the interval, on the scale that is compared."""
        return (self.low or 0.0) if self.higher_is_better else -(self.high or 0.0)

    @property
    def suspicious(self) -> bool:
        """Tell whether it is better than dense beyond chance, corrected over the table: few changes are."""
        return self.p_better is not None and self.p_better <= LEVEL and not self.below_floor

    @property
    def within(self) -> bool:
        """Tell whether it is shown not to be worse by the margin or more: one-sided, Holm over the table."""
        return self.p_holm is not None and self.p_holm <= LEVEL

    @property
    def idle(self) -> str:
        """Say of a method without effect whether it acted all the same; nothing of one that has an effect."""
        if self.effect != "no effect":
            return ""
        shares = (self.heads, self.cache, self.kv)
        acted = any((value or 0) >= SEEN for value in (self.sparsity, self.divergence))
        acted |= any(value is not None and value < 1 for value in shares)
        return "no answer changed" if acted else "no effect"

    @property
    def mark(self) -> str:
        if self.low is None:
            return ""
        side = "▼" if self.worse else "!" if self.suspicious else "▲" if self.better else ""
        return ("≈" if self.within else "") + side or "?"

    @property
    def verdict(self) -> str:
        """One of within, worse, undecided, failed, not applicable, missing; empty for dense and uniform."""
        if self.status != "measured":
            return self.status
        if self.p_holm is None:
            return ""
        return "within" if self.within else "worse" if self.worse else "undecided"

    def as_dict(self) -> dict[str, Any]:
        return {**vars(self), "mark": self.mark, "verdict": self.verdict}

    def amount(self, value: float | None, digits: int = 4) -> str:
        """Write a score: percent for a fraction, `digits` significant where the scale is open."""
        if value is None:
            return "–"
        if self.scale == "fraction":
            return f"{100 * value:.1f}"
        text = f"{value:.1f}" if self.scale == "score" else f"{value:.{digits}g}"
        return text.replace("-", "−", 1) if value < 0 else text

    @property
    def interval(self) -> str:
        """The difference and its interval, in points, or in percent for a perplexity."""
        if self.difference is None or self.low is None or self.high is None:
            return ""
        low, middle, high = (self._points(value) for value in (self.low, self.difference, self.high))
        if self.scale == "raw":
            texts = [f"{value:+.3g}" for value in (middle, low, high)]
        else:
            digits = 1 if high - low > 0.6 else 2
            texts = [_signed(value, digits) for value in (middle, low, high)]
        middle_text, low_text, high_text = (text.replace("-", "−") for text in texts)
        return f"{middle_text} [{low_text}, {high_text}]" + (" %" if self.scale == "log" else "")

    @property
    def half_width(self) -> float:
        """Half the interval's width, in the unit that `interval` is written in."""
        return (self._points(self.high or 0.0) - self._points(self.low or 0.0)) / 2

    @property
    def unit(self) -> str:
        return {"raw": "", "log": " %"}.get(self.scale, " points")

    def _points(self, value: float) -> float:
        if self.scale == "log":
            return 100 * math.expm1(min(value, LARGEST))
        return 100 * value if self.scale == "fraction" else value


MEASURED = {field: path.split() for field, path in {
    "sparsity": "sparsity", "nominal": "nominal", "bits": "bits", "entropy": "entropy", "heads": "heads",
    "divergence": "divergence", "flops_simulated": "flops simulated", "flops_realised": "flops realised",
    "latency": "latency ratio", "latency_low": "latency low", "latency_high": "latency high",
    "memory": "memory ratio", "cache": "cache", "kv": "kv", "kv_bytes": "held ratio",
}.items()}  # fmt: skip


def _numbers(members: Sequence[Record], keys: Sequence[str]) -> list[float]:
    """Return what stands at a path of keys of each record's measurements, where it is a number."""
    values = [at(item.measured, keys) for item in members]
    return [float(value) for value in values if isinstance(value, (int, float))]


def _mean(numbers: Sequence[float]) -> float | None:
    return sum(numbers) / len(numbers) if numbers else None


def inside(values: Any, path: str) -> Any:
    """Return what stands in nested tables at a path of keys, None where there is nothing."""
    return at(values, path.split())


def at(values: Any, keys: Sequence[str]) -> Any:
    for key in keys:
        values = values.get(key) if isinstance(values, dict) else None
    return values


def _signed(value: float, digits: int) -> str:
    if abs(value) >= 1e7:
        return f"{value:+.1e}"
    text = f"{value:+.{digits}f}" if abs(value) < 1000 else f"{value:+,.0f}"
    if float(text.replace(",", "")) == 0 and abs(value) >= 1e-4:
        text = f"{value:+.1g}"  # which side of zero it is on decides the verdict
    return text[1:] if float(text.replace(",", "")) == 0 else text
