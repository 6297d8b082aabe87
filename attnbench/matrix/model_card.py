"""What a Hub repository says of an exported checkpoint: its card, and its score as the Hub reads it.

The score is that of the checkpoint itself, measured as everybody gets it who loads the folder: what a method
does to a model in simulation is no score of any model's, and is never offered as one.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attnbench.inputs.settings import Settings
from attnbench.statistics import against_dense, pairs
from attnbench.statistics.row import Row

if TYPE_CHECKING:
    from attnbench.inputs.tasks import TaskFile
    from attnbench.records.record import Record

RESULTS = ".eval_results"  # the folder that the Hub reads: https://huggingface.co/docs/hub/eval-results
LOCAL = ("csv", "json", "parquet", "text", "arrow", "pandas", "webdataset")  # readers of files, no data set

HEAD = """---
library_name: transformers
tags:
- attention-heads
- attnbench
{base}---

"""
BODY = """# {model}, {method}

Made by `attnbench export` from {source} on {task}{samples}, seed {seed}: {left} of {total} heads are left.

* `attnbench run --models` with this folder, or `attnbench.sidecar.load(model, folder)` after
  `from_pretrained`, cuts the other heads out of the weights, as `{name}` lists them: the same answers in
  less time.
* Plain transformers loads the folder as it is. The output weights of the heads that go are zero, so it gives
  the same answers, at the speed and size of the whole model: its configuration cannot say which heads a layer
  has.

## Scores

{scores}
"""
UNMEASURED = "Not measured: `attnbench export --records DIR` does it."


@dataclass(frozen=True)
class Score:
    """The records of an exported checkpoint and of the model it was made from, on one task."""

    own: Record
    source: Record
    task: TaskFile


def measure(folder: str, source: str, task: str, settings: Settings, records: str) -> Score:
    """Measure an exported checkpoint and its source on a task, and keep both records.

    Raises UserError where one has no number.
    """
    from attnbench.errors import UserError
    from attnbench.inputs import tasks
    from attnbench.matrix import runner
    from attnbench.matrix.plan import Cell

    cells = [Cell(name, task, "dense") for name in (folder, source)]
    own, whole = runner.run(cells, settings, records)
    for item in (own, whole):
        told = against_dense.problem(item)
        if told:
            raise UserError(f"{item.cell['model']} on {item.cell['task']}: {told}")
    return Score(own, whole, tasks.find(task, settings.include_path))


def write(
    folder: Path, content: dict[str, Any], source: str, hub: bool, score: Score | None, file: str
) -> None:
    """Write the card, and the file of the score where its data set is one of the Hub."""
    counts = {"left": sum(map(len, content["heads"].values())), "total": sum(content["of"].values())}
    base = f"base_model: {source}\n" if hub else ""
    scores = UNMEASURED if score is None else _told(score)
    samples = f", calibrated on {content['calibration']}" if content["calibration"] else ""
    told = {**content, **counts, "source": source, "name": file, "scores": scores, "samples": samples}
    (folder / "README.md").write_text(HEAD.format(base=base) + BODY.format(**told), encoding="utf-8")
    entries = [] if score is None else results(score, content["method"])
    if entries:
        import yaml

        place = folder / RESULTS / "attnbench.yaml"
        place.parent.mkdir(exist_ok=True)
        place.write_text(yaml.safe_dump(entries, sort_keys=False, allow_unicode=True), encoding="utf-8")


def _told(score: Score) -> str:
    """Write a table: each metric of the checkpoint and of its source, and the paired difference."""
    lines = ["| task | metric | this checkpoint | its source | difference [95 %] |", "|---|---|---|---|---|"]
    for metric, entry in score.own.metrics.items():
        row = Row("", "", "", scale=_scale(score, metric))
        values = [
            row.amount(each["value"]) + (f" ± {row.amount(each['stderr'], 2)}" if each.get("stderr") else "")
            for each in (entry, score.source.metrics[metric])
        ]
        try:
            apart = pairs.difference([score.own], [score.source], metric).interval
        except pairs.Undefined:
            apart = "not defined"
        lines.append(f"| {' | '.join([score.task.name, metric, *values, apart])} |")
    samples = len(score.own.scores["doc_id"])
    return "\n".join([
        *lines, "",
        f"Both on the same {samples:,} samples, in {score.own.settings.get('dtype')}, measured by attnbench "
        f"{score.own.environment['versions']['attnbench']}; ± is a standard error.",
    ])  # fmt: skip


def _scale(score: Score, metric: str) -> str:
    kind = score.own.metrics[metric].get("aggregate", "mean")
    return against_dense.scale_of(kind, [each.scores[metric] for each in (score.own, score.source)])


def results(score: Score, method: str) -> list[dict[str, Any]]:
    """Return the checkpoint's score as the Hub's `.eval_results` has it: the task's first metric.

    There is none for data that are not of the Hub, or where not all samples were measured.
    """
    from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml

    from attnbench.inputs.task_yaml import read_yaml

    asked = read_yaml(Path(score.task.path))
    data = str(asked.get("dataset_path") or "")
    if "/" not in data or data.startswith((".", "/", "~")) or data in LOCAL:
        return []
    if score.own.settings.get("limit") is not None:
        return []
    metric, entry = next(iter(score.own.metrics.items()))
    error = "" if entry.get("stderr") is None else f", standard error {entry['stderr']:.4g}"
    samples = len(score.own.scores["doc_id"])
    notes = f"{metric}{error}, {samples} samples; heads removed by {method} (attnbench export)"
    return eval_result_entries_to_yaml([
        EvalResultEntry(
            dataset_id=data, task_id=str(asked.get("dataset_name") or "default"), value=entry["value"],
            date=score.own.date, notes=notes,
        )
    ])  # fmt: skip
