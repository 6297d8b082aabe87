"""Results as lm-evaluation-harness writes them, one file a model and method, for what reads its output. Pure.

The keys are those of its `results_*.json`: https://github.com/EleutherAI/lm-evaluation-harness, in
`lm_eval/result_schema.py`. Per-sample files are not written: records keep no texts.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from attnbench.boards.formats.numbers import Measured, measured

if TYPE_CHECKING:
    from attnbench.boards.board import Board

FILTER = "none"  # no answer is filtered: the name that lm-eval has for it
NONE_THERE = "N/A"  # what it writes where there is no standard error


def files(found: Board, name: str) -> dict[str, bytes]:
    """Return a file for each model and method with a number: NAME-lm-eval/MODEL/results_DATE.json."""
    groups: dict[tuple[str, str], list[Measured]] = {}
    for cell in measured(found):
        if cell.metrics:
            groups.setdefault((cell.record.cell["model"], cell.record.cell["method"]), []).append(cell)
    out: dict[str, bytes] = {}
    for (_, method), cells in groups.items():
        text = json.dumps(_results(method, cells), indent=2, ensure_ascii=False, allow_nan=False)
        date = max(cell.record.date for cell in cells)[:19].replace(":", "-")
        folder = cells[0].subject.replace("/", "__")
        out[f"{name}-lm-eval/{folder}/results_{date}.json"] = text.encode()
    return out


def _results(method: str, cells: list[Measured]) -> dict[str, Any]:
    first = cells[0].record
    versions = first.environment.get("versions", {})
    tasks = {cell.record.cell["task"]: cell for cell in cells}
    samples = {task: _samples(cell) for task, cell in tasks.items()}
    return {
        "results": {task: _metrics(task, cell) for task, cell in tasks.items()},
        "group_subtasks": {},
        "configs": {task: _config(task, cell) for task, cell in tasks.items()},
        "versions": {task: _version(cell) for task, cell in tasks.items()},
        # of a task whose own number of examples was used, records do not keep it
        "n-shot": {
            task: cell.record.settings["num_fewshot"]
            for task, cell in tasks.items() if cell.record.settings.get("num_fewshot") is not None
        },
        "higher_is_better": {
            task: {name: entry.get("higher_is_better") for name, entry in cell.metrics.items()}
            for task, cell in tasks.items()
        },
        # records do not keep how many samples a split has where only the first were measured
        "n-samples": {
            task: {"original": None if cell.record.settings.get("limit") else samples[task],
                   "effective": samples[task]}
            for task, cell in tasks.items()
        },
        "config": {
            "model": "attnbench",
            "model_args": f"pretrained={cells[0].model},method={method}",
            "batch_size": str(first.settings.get("batch_size", "")),
            "device": first.settings.get("device"),
            "limit": first.settings.get("limit"),
            "bootstrap_iters": 0,
            "gen_kwargs": first.settings.get("gen_kwargs") or {},
            "model_dtype": str(first.settings.get("dtype", "")),
            "model_sha": first.provenance.get("fingerprints", {}).get("checkpoint", ""),
        },
        "date": float(min(cell.seconds for cell in cells)),
        "transformers_version": versions.get("transformers"),
        "lm_eval_version": versions.get("lm-eval"),
        "attnbench_version": versions.get("attnbench"),
        "model_source": "attnbench",
        "model_name": cells[0].subject,
        "model_name_sanitized": cells[0].subject.replace("/", "__"),
        "task_hashes": {task: _print(cell, "task") for task, cell in tasks.items()},
        "total_evaluation_time_seconds": str(
            sum(cell.record.seconds.get("evaluate", 0.0) for cell in cells)
        ),
    }  # fmt: skip


def _metrics(task: str, cell: Measured) -> dict[str, Any]:
    found: dict[str, Any] = {"name": task, "alias": task, "sample_len": _samples(cell)}
    for name, entry in cell.metrics.items():
        if entry.get("value") is not None:
            error = entry.get("stderr")
            found[f"{name},{FILTER}"] = entry["value"]
            found[f"{name}_stderr,{FILTER}"] = NONE_THERE if error is None else error
    return found


def _samples(cell: Measured) -> int:
    found = cell.record.scores
    return max((len(found[name]) for name in cell.metrics if name in found), default=0)


def _config(task: str, cell: Measured) -> dict[str, Any]:
    metrics = [
        {"metric": name, "aggregation": entry.get("aggregate", "mean"),
         "higher_is_better": entry.get("higher_is_better")}
        for name, entry in cell.metrics.items()
    ]  # fmt: skip
    kept = {
        name: value for name, value in cell.record.settings.items()
        if name in ("num_fewshot", "apply_chat_template", "fewshot_as_multiturn", "system_instruction")
    }  # fmt: skip
    metadata = {"version": _version(cell), "pretrained": cell.model, "method": cell.record.cell["method"]}
    return {"task": task, "metric_list": metrics, **kept, "metadata": metadata}


def _version(cell: Measured) -> str:
    """Name a task's version: records know it by a hash of its definition, of which these are 12 digits."""
    return _print(cell, "task")[:12]


def _print(cell: Measured, name: str) -> str:
    return str(cell.record.provenance.get("fingerprints", {}).get(name, ""))
