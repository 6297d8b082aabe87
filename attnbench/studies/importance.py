"""Head importance as a result of its own: every head by every criterion, and what happens without it."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from attnbench.engine.applicable import require_sites
from attnbench.engine.learning.fit import Absent, available
from attnbench.errors import NotApplicable, described, said, unknown
from attnbench.inputs import models, tasks
from attnbench.inputs.settings import Settings
from attnbench.matrix.request import split
from attnbench.methods.fields import amount_field
from attnbench.methods.plugins import registry
from attnbench.methods.protocol import SCORED, Method, fitted

if TYPE_CHECKING:
    from torch import Tensor, nn

    from attnbench.matrix.bench import Bench

EFFECT = "effect"  # the column of --ablate
Table = dict[tuple[str, int], list[float]]  # (kind, layer) -> one number a head


@dataclass
class Study:
    """The heads of one model on one task: a table a criterion, higher is more important."""

    model: str
    task: str
    tables: dict[str, Table] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)
    metric: str = ""
    dense: float = math.nan
    higher_is_better: bool = True

    def correlations(self) -> dict[tuple[str, str], float]:
        """Return Spearman's rank correlation of every two criteria; NaN where one is constant."""
        import numpy as np
        from scipy.stats import rankdata

        ranks = {}
        for name, table in self.tables.items():
            values = rankdata(np.concatenate([table[key] for key in sorted(table)]))
            ranks[name] = values - values.mean()
        return {
            (a, b): float(x @ y / np.sqrt((x @ x) * (y @ y))) if x.any() and y.any() else float("nan")
            for a, x in ranks.items()
            for b, y in ranks.items()
        }


def criteria() -> dict[str, type[Method]]:
    """List what can score heads, under the variant of its name: "entropy" of `heads:entropy`."""
    found: dict[str, type[Method]] = {}
    for name, cls in sorted(registry().methods.items()):
        if cls.criterion:
            short = name.partition(":")[2] or name
            found[name if short in found else short] = cls
    return found


def study(
    name: str,
    task: str,
    by: Iterable[str],
    settings: Settings | None = None,
    ablate: bool = False,
) -> Study:
    """Score every head of a model on a task's calibration split; `ablate`: measure it without each head.

    A criterion that fails, or does not apply, is in `failed` or `absent`, the others go on. Raises UserError
    and NotApplicable as a run does, ArithmeticError for weights that are not finite.
    """
    import torch

    from attnbench.matrix.bench import Bench

    chosen = settings or Settings()
    bench = Bench(name, task, chosen)
    model = bench.model
    torch.manual_seed(chosen.seed)
    batches = available(bench.calibration)
    found = Study(models.label(name), tasks.find(task, chosen.include_path).name)
    for criterion in by:
        try:
            scores = _scores(criteria()[criterion], model, batches)
        except NotApplicable as reason:
            found.absent[criterion] = str(reason)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            found.failed[criterion] = said(error) if isinstance(error, ValueError) else described(error)
        else:
            found.tables[criterion] = {key: value.tolist() for key, value in sorted(scores.items())}
    if isinstance(batches, Absent) and not (found.tables or found.failed or ablate):
        raise batches.reason
    if ablate:
        found.tables[EFFECT] = _ablate(found, bench)
    return found


def _scores(cls: Any, model: nn.Module, batches: list[dict[str, Tensor]]) -> dict[tuple[str, int], Tensor]:
    method: Method = cls(0) if amount_field(cls) else cls()
    require_sites(model, [method])
    method.fit(model, batches)
    learned = fitted(method)
    return next(learned[key] for key in SCORED if key in learned)


def _ablate(found: Study, bench: Bench) -> Table:
    """Return by how much worse the task's first metric is when one head alone is removed."""
    from tqdm import tqdm

    from attnbench.engine.learning.gates import Silenced
    from attnbench.engine.places.sites import discover
    from attnbench.engine.serving.attention import apply

    model, prepared = bench.model, bench.prepared

    def measured() -> float:
        metrics = prepared.evaluate(model, **bench.serving).metrics
        found.metric, metric = next(iter(metrics.items()))
        found.higher_is_better = bool(metric["higher_is_better"])
        return float(metric["value"])

    found.dense = measured()
    sign = 1 if found.higher_is_better else -1
    sites = sorted(discover(model), key=lambda site: (site.kind, site.layer))
    table: Table = {(site.kind, site.layer): [] for site in sites}
    hidden = not sys.stderr.isatty()
    with tqdm(total=sum(site.heads for site in sites), unit="head", leave=False, disable=hidden) as bar:
        for site in sites:
            for head in range(site.heads):
                with apply(model, Silenced(head, on=(site.kind,), layers=(str(site.layer),))):
                    table[site.kind, site.layer].append(sign * (found.dense - measured()))
                bar.update()
    return table


def chosen(asked: Iterable[str]) -> list[str]:
    """Return the criteria asked for. Raises UserError for an unknown one."""
    known, by = criteria(), list(split(asked)) or ["entropy", "gradient", "l2"]
    if "all" in by:
        return list(known)
    for name in by:
        if name not in known:
            raise unknown("criterion", name, known, f"--by takes {', '.join(known)}, or all.")
    return by
