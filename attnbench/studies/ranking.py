"""Heads by importance: what a look found of criteria and of an ablation, side by side."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from attnbench.inputs.settings import Settings
from attnbench.matrix.request import split
from attnbench.methods.plugins import registry
from attnbench.methods.study import Study
from attnbench.studies.compared import by_place
from attnbench.studies.importance import criteria, require
from attnbench.studies.looking import ABSENT, FAILED, Found, Look, look_at
from attnbench.studies.opening import Opened, Progress
from attnbench.studies.passes import DENSE

if TYPE_CHECKING:
    from pandas import DataFrame

USUAL = ("entropy", "gradient", "l2")
SCORE, EFFECT, CERTAIN = "score", "effect", "certain"  # columns of the two studies
ENDS = ("low", "high", "p")  # beside an effect
Table = dict[tuple[str, int], list[float]]  # (kind, layer) -> one number a head


@dataclass
class Ranking:
    """The heads of one model on one task: a table a criterion, higher is more important.

    With an ablation the table EFFECT is among them, `certain` holds its numbers that differ from zero, and
    `whole` what was measured with every head.
    """

    model: str
    task: str
    tables: dict[str, Table] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)
    certain: Table = field(default_factory=dict)
    ends: dict[str, Table] = field(default_factory=dict)
    metric: str = ""
    whole: Mapping[str, float] = field(default_factory=dict)

    def correlations(self) -> dict[tuple[str, str], float]:
        """Return Spearman's rank correlation of every two criteria; NaN where one is constant."""
        import numpy as np

        ranks = {}
        for name, table in self.tables.items():
            values = np.concatenate([list(each.values()) for each in self.ranks(table).values()])
            ranks[name] = values - values.mean()
        return {
            (a, b): float(x @ y / np.sqrt((x @ x) * (y @ y))) if x.any() and y.any() else float("nan")
            for a, x in ranks.items()
            for b, y in ranks.items()
        }

    @staticmethod
    def ranks(table: Table) -> dict[tuple[str, int], dict[int, float]]:
        """Return which share of the other heads score less, half of those that score the same counted."""
        from scipy.stats import rankdata

        places = [(key, head) for key in sorted(table) for head in range(len(table[key]))]
        ranks = rankdata([table[key][head] for key, head in places])
        found: dict[tuple[str, int], dict[int, float]] = {}
        for (key, head), rank in zip(places, ranks, strict=True):
            found.setdefault(key, {})[head] = float((rank - 1) / max(1, len(places) - 1))
        return found

    def frame(self) -> DataFrame:
        """Return one row a head: each criterion, and an effect with its interval and p."""
        from attnbench.methods.study import by_head

        columns = dict(self.tables)
        if EFFECT in columns:
            columns |= {f"{EFFECT}_{name}": table for name, table in self.ends.items()}
        return by_head(columns)


def chosen(asked: Sequence[str]) -> list[str]:
    """Return the criteria asked for. Raises UserError for an unknown one."""
    by = list(split(asked)) or list(USUAL)
    if "all" in by:
        return list(criteria())
    for name in by:
        require(name)
    return by


def studies(by: Sequence[str], ablate: bool) -> dict[str, Study]:
    """Return the study of each criterion, and of the ablation, by the name of its table."""
    known = registry().studies
    found: dict[str, Study] = {name: known["importance"](by=name) for name in by}  # type: ignore[call-arg]
    return found | ({EFFECT: known["ablation"]()} if ablate else {})


def ranked(
    model: str,
    task: str,
    by: Sequence[str],
    settings: Settings | None = None,
    ablate: bool = False,
    records: str | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> tuple[Ranking, Look]:
    """Rank every head of a model by criteria, and by what a task loses without each, as a look does.

    A criterion that fails, or does not apply, is in `failed` or `absent`, the others go on. Raises UserError
    and NotApplicable as a run does, ArithmeticError for weights that are not finite.
    """
    asked = studies(by, ablate)
    look = look_at(
        Opened(model, task, (), settings or Settings()), list(asked.values()), {}, records, force, progress
    )
    found = Ranking(look.model, look.data)
    for name, each in zip(asked, look.found.values(), strict=True):
        if each.status == ABSENT:
            found.absent[name] = each.error
        elif each.status == FAILED:
            found.failed[name] = each.error
        else:
            _add(found, name, each)
    return found, look


def _add(found: Ranking, name: str, each: Found) -> None:
    if name != EFFECT:
        found.tables[name] = by_place(each, SCORE, DENSE)
        return
    found.tables[name] = by_place(each, EFFECT, DENSE)
    found.certain = by_place(each, CERTAIN, DENSE)
    found.ends = {end: by_place(each, end, DENSE) for end in ENDS}
    whole = each.tables[DENSE]["whole"]
    found.metric, found.whole = str(whole.index[0]), whole.iloc[0].to_dict()


def differs(table: Table) -> int:
    """Count the heads that have a number in a table."""
    return sum(math.isfinite(value) for values in table.values() for value in values)
