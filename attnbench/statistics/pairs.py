"""Two methods against each other on the same samples: difference, interval, and which samples flip."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from attnbench.errors import UserError, message, unknown
from attnbench.inputs import models, tasks
from attnbench.methods.families import name_without_seed
from attnbench.records.inert import clean
from attnbench.records.record import Record
from attnbench.statistics import against_dense, fidelity, inference, same_samples
from attnbench.statistics.aggregates import SAMPLES, Array, by_sample, over_seeds
from attnbench.statistics.inference import Paired
from attnbench.statistics.row import Row

LISTED = 20


class Undefined(UserError):
    """A metric that is no number on these samples, or is none without one of them."""


@dataclass(frozen=True)
class Difference:
    """A minus B by one metric: estimate and 95 % interval on the scale that is compared, two-sided p.

    `p_margin` is one-sided, of A being worse than B by the margin or more.
    """

    metric: str
    a: float
    b: float
    estimate: float
    low: float
    high: float
    p: float
    p_margin: float
    scale: str
    higher_is_better: bool
    samples: int
    only_a: list[int]  # ids of the samples that A, of its first seed, scores higher: see aggregates.by_sample
    only_b: list[int]
    kind: str = "mean"
    seeds: tuple[int, int] = (1, 1)
    how: str = inference.BOOTSTRAP

    @property
    def gain(self) -> tuple[float, float, float]:
        """Return (low, estimate, high) of how much better A is."""
        found = (self.low, self.estimate, self.high)
        return found if self.higher_is_better else (-self.high, -self.estimate, -self.low)

    @property
    def interval(self) -> str:
        return self._row.interval + ("" if self.scale == "log" else self._row.unit)

    @property
    def _row(self) -> Row:
        return Row("", "", "", difference=self.estimate, low=self.low, high=self.high, scale=self.scale)


def difference(
    a: Sequence[Record], b: Sequence[Record], metric: str | None = None, margin: float = 0.0
) -> Difference:
    """Compare two methods, each with the records of its seeds, by a metric or the primary one.

    Raises UserError where they were not measured on the same samples, or cannot be compared.
    """
    for item in (*a, *b):
        told = against_dense.problem(item)
        if told:
            raise UserError(f"{' '.join(item.cell.values())}: {told}")
    for item in (*a, *b):
        told = same_samples.other_samples(item, b[0])
        if told:
            raise UserError(f"{' '.join(item.cell.values())} {told}")
    name = metric or next(iter(a[0].metrics))
    if any(name not in item.metrics or name not in item.scores for item in (*a, *b)):
        raise UserError(
            f"not all of {a[0].cell['method']} and {b[0].cell['method']} have {name} of every sample"
        )
    kind, higher = (
        a[0].metrics[name].get("aggregate", "mean"),
        bool(a[0].metrics[name].get("higher_is_better")),
    )
    ours, theirs = ([np.asarray(item.scores[name], float) for item in items] for items in (a, b))
    for item, scores in zip((*a, *b), (*ours, *theirs), strict=True):
        if not against_dense.comparable(kind, scores):
            raise Undefined(
                f"{' '.join(item.cell.values())}: {name} is not defined {against_dense.UNDEFINED}"
            )
    found = _paired(kind, ours, theirs, margin, higher)
    samples = len(ours[0])
    one, other = (by_sample(kind, arrays[0]) for arrays in (ours, theirs))
    first = np.zeros(samples) if one is None or other is None else one - other
    ids = np.asarray(a[0].scores.get("doc_id", np.arange(samples)))
    return Difference(
        name, over_seeds(kind, ours), over_seeds(kind, theirs),
        found.estimate, found.low, found.high, found.p_zero, found.p_margin,
        against_dense.scale_of(kind, [*ours, *theirs]), higher, samples,
        [int(place) for place in ids[first > 0]], [int(place) for place in ids[first < 0]],
        kind, (len(ours), len(theirs)),
        inference.BOOTSTRAP if found.discordant is None else inference.FLIPS,
    )  # fmt: skip


def _paired(kind: str, a: Sequence[Array], b: Sequence[Array], margin: float, higher: bool) -> Paired:
    if len(a) > 1 and len(b) > 1:
        return inference.between(kind, a, b, margin, higher)
    if len(b) == 1:
        return inference.paired(kind, b[0], [a], margin, higher)[0]
    turned = inference.paired(kind, a[0], [b], margin, not higher)[0]
    return replace(turned, estimate=-turned.estimate, low=-turned.high, high=-turned.low)


def groups(records: Iterable[Record]) -> dict[tuple[str, str], dict[str, list[Record]]]:
    """Return the records of every (model, task) by method, the seeds of one draw together."""
    found: dict[tuple[str, str], dict[str, list[Record]]] = {}
    for item in records:
        cell = item.cell
        methods = found.setdefault((cell["model"], cell["task"]), {})
        base = name_without_seed(cell["method"])
        methods.setdefault(base, []).append(item)
        if base != cell["method"]:
            methods[cell["method"]] = [item]
    return found


def report(records: Iterable[Record], a: str, b: str, model: str | None, task: str | None) -> list[str]:
    """Write how A and B differ, a few lines for each model, task and metric that has both.

    A model may be named as for a run: bert is pocket-bert. Raises UserError where a name is not recorded, or
    no model and task has both.
    """
    found = groups(records)
    model = _recorded("model", model, [key[0] for key in found])
    task = _recorded("task", task, [key[1] for key in found if model in (None, key[0])])
    columns = {
        key: methods for key, methods in found.items() if model in (None, key[0]) and task in (None, key[1])
    }
    known = list(dict.fromkeys(method for methods in columns.values() for method in methods))
    for method in (a, b):
        if method not in known:
            raise unknown("recorded method", method, known, "`attnbench leaderboard` lists what is recorded.")
    lines, how, reasons = list[str](), list[str](), list[str]()
    for key, methods in columns.items():
        if a not in methods or b not in methods:
            continue
        both = False
        for metric in methods[a][0].metrics or [""]:
            try:
                one = difference(methods[a], methods[b], metric or None)
            except Undefined as reason:
                lines.append(message(reason))
                both = True
            except UserError as reason:
                reasons.append(message(reason))
            else:
                lines += lines_of(key, a, b, one)
                how.append(one.how)
                both = True
        if both:
            lines += _answers(key, {a: methods[a], b: methods[b]})
    if not lines:
        nothing = f"no model and task has both {a} and {b}. Run them with the same --models and --tasks."
        raise UserError(reasons[0] if reasons else nothing)
    return [*lines, *dict.fromkeys(reasons), *explained(how)]


def explained(how: Sequence[str]) -> list[str]:
    """Say once how differences were judged, each by what its `how` says."""
    told = "; ".join(dict.fromkeys(how))
    return (
        [f"95 % intervals and p (two-sided, of no difference) are paired by sample: {told}."] if how else []
    )


def _answers(key: tuple[str, str], methods: dict[str, list[Record]]) -> list[str]:
    """Write how far the answers of each are from dense's, and how they differ in that."""
    lines = []
    for name in fidelity.NAMES:
        found = {method: fidelity.of(members, name) for method, members in methods.items()}
        told = [f"{method} {fidelity.shown(name, each)}" for method, each in found.items() if each]
        if not told:
            continue
        line = f"{' '.join(map(clean, key))}: {name} from dense: {', '.join(told)}"
        a, b = (fidelity.as_metric(members, name) for members in methods.values())
        if a and b and len(methods) == 2:
            apart = difference(a, b, name)
            nats = f"{apart.estimate:+.2g} [{apart.low:+.2g}, {apart.high:+.2g}] nats".replace("-", "−")
            line += f": {apart.interval if name in fidelity.SHARES else nats}, p {_p(apart.p)}"
        lines.append(line)
    return lines


def _recorded(kind: str, name: str | None, known: Sequence[str]) -> str | None:
    """Return a name as records have it."""
    if name is None or name in known:
        return name
    with contextlib.suppress(UserError):
        shown = models.label(name) if kind == "model" else tasks.find(name).name
        if shown in known:
            return shown
    names = list(dict.fromkeys(map(clean, known)))
    raise unknown(f"recorded {kind}", name, names, f"Recorded: {', '.join(names) or 'none'}.")


def lines_of(key: tuple[str, ...], a: str, b: str, found: Difference) -> list[str]:
    """Write a difference of A and B in a few lines, which begin with what `key` names."""
    row = Row("", "", "", scale=found.scale)
    name = " ".join(map(clean, (*key, found.metric)))
    lines = [
        f"{name}: {a} {row.amount(found.a)}, {b} {row.amount(found.b)}: {found.interval}, p {_p(found.p)}, "
        f"{found.samples:,} samples"
    ]
    if found.kind not in SAMPLES:
        kind = clean(found.kind) if found.kind == "ratio" else f"{clean(found.kind)} correlation"
        return [*lines, f"  no list of samples: a {kind} is of all of them together"]
    words = SAMPLES[found.kind][1]
    for method, ids in ((a, found.only_a), (b, found.only_b)):
        shown = ", ".join(map(str, ids[:LISTED])) + (", …" if len(ids) > LISTED else "")
        lines.append(
            f"  {method} {words} on {len(ids)} sample{'' if len(ids) == 1 else 's'}"
            + (f": {shown}" if ids else "")
        )
    sides = zip((a, b), found.seeds, strict=True)
    drawn = [f"the first of {seeds} seeds of {method}" for method, seeds in sides if seeds > 1]
    return [*lines, f"  (these by {' and '.join(drawn)})"] if drawn else lines


def _p(value: float) -> str:
    return f"= {value:.2g}" if value >= 0.001 else "< 0.001"
