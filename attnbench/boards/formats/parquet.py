"""A board as a data set: Parquet with stable columns, one row a cell and metric, and its card.

`datasets.load_dataset("parquet", data_files="NAME-parquet/results.parquet")` reads it, and so does a folder
that is pushed to the Hub as a data set.
"""

from __future__ import annotations

import io
import json
import math
from typing import TYPE_CHECKING, Any

from attnbench.boards.formats.numbers import Measured, measured
from attnbench.records.inert import clean

if TYPE_CHECKING:
    from attnbench.boards.board import Board

FILE = "results.parquet"
LICENCE = "cc0-1.0"
CLOSE = 1e-6
# name -> type of pyarrow, what it holds; a column is never renamed or dropped, a new one comes at the end
COLUMNS = {
    "model": ("string", "the model by the name that records have"),
    "task": ("string", "the task by the name that records have"),
    "method": (
        "string",
        "the canonical spec; dense is the model as it is, uniform the uniform-attention baseline",
    ),
    "metric": ("string", "the metric; null where the cell has no number"),
    "primary": ("bool_", "whether it is the task's first metric"),
    "status": ("string", "measured, failed, not applicable or missing"),
    "error": ("string", "why there is no number"),
    "pocket": ("bool_", "whether it is a small model on generated text, which is no evidence"),
    "score": ("float64", "the metric's value; null where it is not defined on these samples"),
    "stderr": ("float64", "its standard error, by jackknife"),
    "higher_is_better": ("bool_", "the metric's direction"),
    "samples": ("int64", "how many samples the value is of"),
    "seeds": ("int64", "how many draws the difference is averaged over"),
    "scale": ("string", "of the difference: fraction, score, log or raw"),
    "difference": ("float64", "to dense on the same samples; of a draw, that of all seeds together"),
    "low": ("float64", "lower end of its 95 % interval"),
    "high": ("float64", "upper end of its 95 % interval"),
    "margin": ("float64", "the margin that the verdict is about"),
    "p_holm": ("float64", "one-sided, of being worse by the margin or more, by Holm over the table"),
    "verdict": ("string", "within, worse or undecided; empty for dense and uniform"),
    "kept": ("float64", "share of the way from uniform to dense"),
    "sparsity": ("float64", "share of attention's weights that are zero"),
    "bits": ("float64", "bits a weight, null where it is not quantised"),
    "heads": ("float64", "share of heads that are left"),
    "flops_simulated": ("float64", "share of attention's products that zeros leave"),
    "flops_realised": ("float64", "share of products of a model from which they are removed"),
    "latency": ("float64", "time over dense's, measured in one run"),
    "memory": ("float64", "peak memory over dense's"),
    "cache": ("float64", "share of a prompt's tokens that are kept"),
    "seconds": ("float64", "to fit and to evaluate"),
    "limit": ("int64", "the first samples alone were measured; null for all"),
    "dtype": ("string", "of the weights"),
    "device": ("string", "where it ran"),
    "seed": ("int64", "of the calibration samples"),
    "date": ("string", "when it was measured, ISO 8601"),
    "attnbench": ("string", "the version that measured it"),
    "checkpoint": ("string", "hash of the weights"),
    "dataset": ("string", "hash of the samples"),
    "code": ("string", "hash of the method's code"),
    "identity": ("string", "hash of all that changes the number"),
    "receipt": ("string", "JSON: what shows that the method acted"),
    "settings": ("string", "JSON: all settings of the run"),
}
OF_ROW = (
    "seeds", "scale", "difference", "low", "high", "margin", "p_holm", "verdict", "kept", "sparsity", "bits",
    "heads", "flops_simulated", "flops_realised", "latency", "memory", "cache", "seconds",
)  # fmt: skip


def files(found: Board, name: str) -> dict[str, bytes]:
    """Return the data set of a board by its paths under the output folder: the table and its card."""
    return {f"{name}-parquet/{FILE}": table(found), f"{name}-parquet/README.md": card(found).encode()}


def table(found: Board) -> bytes:
    """Write the table as the bytes of a Parquet file."""
    from pyarrow import parquet

    out = io.BytesIO()
    parquet.write_table(_table(found), out)
    return out.getvalue()


def holds(content: bytes, found: Board) -> bool:
    """Tell whether a file has the rows of a board.

    Its bytes differ between versions of pyarrow, and the last digits of its numbers between processors.
    """
    import pyarrow
    from pyarrow import parquet

    try:
        read, own = parquet.read_table(io.BytesIO(content)), _table(found)
    except (pyarrow.ArrowException, OSError):
        return False
    if read.schema != own.schema or read.num_rows != own.num_rows:
        return False
    pairs = zip(read.to_pylist(), own.to_pylist(), strict=True)
    return all(_alike(one[name], other[name]) for one, other in pairs for name in COLUMNS)


def _alike(one: Any, other: Any) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=CLOSE, abs_tol=CLOSE)
    return bool(one == other)


def _table(found: Board) -> Any:
    import pyarrow

    fields = [pyarrow.field(name, getattr(pyarrow, kind)()) for name, (kind, _) in COLUMNS.items()]
    lines = [line for cell in measured(found) for line in _lines(cell)]
    return pyarrow.Table.from_pylist(lines, schema=pyarrow.schema(fields))


def _lines(cell: Measured) -> list[dict[str, Any]]:
    """Return a line for each metric of a cell, or one without a metric."""
    item = cell.record
    prints = item.provenance.get("fingerprints", {})
    settings = {name: item.settings.get(name) for name in ("limit", "dtype", "device", "seed")}
    shared = {
        **{name: item.cell[name] for name in ("model", "task", "method")}, **settings,
        "status": cell.status, "error": cell.error, "pocket": cell.pocket, "date": item.date,
        "attnbench": item.environment.get("versions", {}).get("attnbench"),
        "checkpoint": prints.get("checkpoint"), "dataset": prints.get("dataset"),
        "code": item.provenance.get("code"), "identity": item.provenance.get("identity"),
        "receipt": json.dumps(item.receipt, sort_keys=True),
        "settings": json.dumps(item.settings, sort_keys=True),
    }  # fmt: skip
    lines = []
    for place, (metric, entry) in enumerate(cell.metrics.items()):
        row, scores = cell.rows.get(metric), item.scores.get(metric)
        lines.append({
            **shared, "metric": metric, "primary": place == 0,
            "score": entry.get("value"), "stderr": entry.get("stderr"),
            "higher_is_better": entry.get("higher_is_better"),
            "samples": None if scores is None else len(scores),
            **({name: getattr(row, name) for name in OF_ROW} if row is not None else {}),
        })  # fmt: skip
    return lines or [shared]


def card(found: Board) -> str:
    """Write the data set's card: what the Hub reads of it, what it holds, its columns."""
    title = clean(found.suite.title if found.suite else "Records of attnbench", 200)
    about = clean(found.suite.about, 2000) if found.suite else ""
    head = ["---", f"license: {LICENCE}", f"pretty_name: {json.dumps(title, ensure_ascii=False)}"]
    head += ["tags:", "- attention", "- compression", "- benchmark", "configs:", "- config_name: default"]
    head += ["  data_files:", "  - split: results", f"    path: {FILE}", "---"]
    lines = [f"| `{name}` | {kind.rstrip('_')} | {told} |" for name, (kind, told) in COLUMNS.items()]
    parts = [
        "\n".join(head), f"# {title}", about,
        "Attention-compression methods against the dense model on the same samples, measured by attnbench. "
        "One row a cell and metric; a cell without a number has one row that says why.",
        f'```python\ndatasets.load_dataset("parquet", data_files="{FILE}")\n```',
        "A row with a method is no score of the model itself: only its `dense` rows are. Rows with `pocket` "
        "are of small models on generated text, a smoke test and no evidence.",
        "## Columns", "\n".join(["| column | type | what it holds |", "|---|---|---|", *lines]),
        "## Licence",
        "The numbers are given to the public domain: [CC0 1.0]"
        "(https://creativecommons.org/publicdomain/zero/1.0/). Models and data sets have licences of their "
        "own.",
    ]  # fmt: skip
    return "\n\n".join(filter(None, parts)) + "\n"
