"""Head importance as a result of its own: every head by every criterion, and what happens without it."""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attnbench import models, plan, record, spec, tasks
from attnbench.errors import NotApplicable, UserError, unknown
from attnbench.plugins import registry

if TYPE_CHECKING:
    from attnbench.bench import Bench

EFFECT = "effect"  # the column of --ablate
Table = dict[tuple[str, int], list[float]]  # (kind, layer) -> one number a head


@dataclass
class Study:
    """The heads of one model on one task: a table a criterion, higher is more important."""

    model: str
    task: str
    tables: dict[str, Table] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    metric: str = ""
    dense: float | None = None

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


def criteria() -> list[str]:
    """List what can score heads: the variants of `heads` with an importance."""
    return [
        name.removeprefix("heads:")
        for name, cls in sorted(registry().methods.items())
        if name.startswith("heads:") and hasattr(cls, "importance")
    ]


def study(
    name: str,
    task: str,
    by: Iterable[str],
    *,
    ablate: bool = False,
    limit: int | None = None,
    batch_size: int = 32,
    seed: int = 0,
    device: str = "cpu",
    calibration: str | None = None,
    include_path: str | None = None,
) -> Study:
    """Score every head of a model on a task's calibration split; `ablate`: measure it without each head.

    A criterion that fails is in `failed`, the others go on. Raises UserError and NotApplicable as a run does,
    ArithmeticError for weights that are not finite.
    """
    import torch

    from attnbench.bench import Bench, Settings

    chosen = Settings(limit, batch_size, None, seed, device, "float32", calibration, include_path)
    bench = Bench(name, task, chosen)
    model = bench.model
    torch.manual_seed(seed)
    batches = bench.calibration()
    found = Study(models.label(name), tasks.find(task, include_path).name)
    for criterion in by:
        (method,) = spec.parse(f"heads0:{criterion}")
        try:
            method.fit(model, batches)
        except (ValueError, NotApplicable) as error:
            found.failed[criterion] = str(error)
        else:
            scores: dict[tuple[str, int], Any] = vars(method)["scores_"]
            found.tables[criterion] = {key: value.tolist() for key, value in sorted(scores.items())}
    if ablate:
        found.tables[EFFECT] = _ablate(found, bench)
    return found


def _ablate(found: Study, bench: Bench) -> Table:
    """Return by how much the task's first metric falls when one head alone is removed."""
    from tqdm import tqdm

    from attnbench.attention import apply
    from attnbench.sites import discover

    model, prepared, settings = bench.model, bench.prepared, bench.settings

    def measured() -> float:
        metrics = prepared.evaluate(model, batch_size=settings.batch_size, device=settings.device).metrics
        found.metric, metric = next(iter(metrics.items()))
        return float(metric["value"]) * (1 if metric["higher_is_better"] else -1)

    best = measured()
    found.dense = abs(best)
    sites = sorted(discover(model), key=lambda site: (site.kind, site.layer))
    table: Table = {(site.kind, site.layer): [] for site in sites}
    hidden = not sys.stderr.isatty()
    with tqdm(total=sum(site.heads for site in sites), unit="head", leave=False, disable=hidden) as bar:
        for site in sites:
            for head in range(site.heads):
                with apply(model, f"heads:fixed:off={site.layer}.{head}:on={site.kind}"):
                    table[site.kind, site.layer].append(best - measured())
                bar.update()
    return table


def describe(found: Study) -> str:
    """Return a study as text: layers × heads for each criterion, then the rank correlations."""
    lines = [f"{found.model} on {found.task}: heads by importance, higher is more important"]
    for name, table in found.tables.items():
        lines += ["", title(found, name), *_aligned(_rows(table, "{:.4f}"))]
    lines += [f"{name}: failed: {reason}" for name, reason in found.failed.items()]
    if len(found.tables) > 1:
        lines += ["", "Spearman's rank correlation", *_aligned(_matrix(found, "{:.2f}"))]
    return "\n".join(lines)


def title(found: Study, name: str) -> str:
    """Say what the numbers of a table are."""
    if name == EFFECT:
        return f"effect: by how much {found.metric} falls from {found.dense:.4f} without this head alone"
    return name


def _rows(table: Table, form: str) -> list[list[str]]:
    widest = max(map(len, table.values()))
    kinds = len({kind for kind, _ in table}) > 1
    return [
        ["kind", "layer", *map(str, range(widest))][0 if kinds else 1 :],
        *(
            [kind, str(layer), *(form.format(value) for value in values)][0 if kinds else 1 :]
            for (kind, layer), values in table.items()
        ),
    ]


def _matrix(found: Study, form: str) -> list[list[str]]:
    names, values = list(found.tables), found.correlations()
    return [["", *names], *([a, *(form.format(values[a, b]) for b in names)] for a in names)]


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[k]) for row in rows if k < len(row)) for k in range(max(map(len, rows)))]
    return ["  ".join(cell.rjust(widths[k]) for k, cell in enumerate(row)) for row in rows]


def write(found: Study, folder: str | Path) -> Path:
    """Write a study: a CSV and a heat map a criterion, correlations.csv. Returns the folder of the files."""
    from attnbench import heatmap

    target = Path(folder, record.file_name(found.model), record.file_name(found.task))
    try:
        target.mkdir(parents=True, exist_ok=True)
        for name, table in found.tables.items():
            _write_csv(target / f"{name}.csv", [["kind", *_header(table)], *_lines(table)])
            picture = heatmap.draw(
                table, f"{found.model}, {found.task}\n{title(found, name)}", diverging=name == EFFECT
            )
            (target / f"{name}.png").write_bytes(picture)
        _write_csv(target / "correlations.csv", _matrix(found, "{:.6f}"))
    except OSError as error:
        raise UserError(f"--output {folder}: cannot be written: {error.strerror or error}") from error
    return target


def _header(table: Table) -> list[str]:
    return ["layer", *map(str, range(max(map(len, table.values()))))]


def _lines(table: Table) -> list[list[str]]:
    return [[kind, str(layer), *map(repr, values)] for (kind, layer), values in table.items()]


def _write_csv(path: Path, rows: Iterable[Sequence[str]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)


def add_arguments(parser: argparse.ArgumentParser, positive: Any) -> None:
    """Declare the options of `attnbench heads`."""
    many: dict[str, Any] = {"nargs": "+", "action": "extend", "default": []}
    parser.add_argument("--models", **many, metavar="NAME", help="as in a run")
    parser.add_argument("--tasks", **many, metavar="TASK", help="default: the tasks a model names itself")
    parser.add_argument(
        "--by",
        **many,
        metavar="NAME",
        help="criteria, as in entropy,gradient,l2 (the default); all: every one",
    )
    parser.add_argument("--ablate", action="store_true", help="measure the task without each head alone")
    parser.add_argument(
        "--output", default="attnbench-heads", metavar="DIR", help="for CSV and PNG (attnbench-heads)"
    )
    parser.add_argument("--limit", type=positive, metavar="N", help="ablate on the first N samples only")
    parser.add_argument(
        "--batch-size", type=positive, default=32, metavar="N", help="samples a forward pass (32)"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the calibration samples (0)")
    parser.add_argument("--device", default=None, metavar="NAME", help="cpu, cuda (cuda where there is one)")
    parser.add_argument("--calibration", metavar="DATASET:SPLIT", help="samples to score on, as in a run")


def chosen(asked: Iterable[str]) -> list[str]:
    """Return the criteria asked for. Raises UserError for an unknown one."""
    known, by = criteria(), plan.split(asked) or ["entropy", "gradient", "l2"]
    if "all" in by:
        return known
    for name in by:
        if name not in known:
            raise unknown("criterion", name, known, f"--by takes {', '.join(known)}, or all.")
    return by
