"""Whether a folder of records can be believed: each by itself, and all together. Reads, writes nothing."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from attnbench.boards import board
from attnbench.errors import UserError
from attnbench.inputs import prompting
from attnbench.methods import spec
from attnbench.methods.protocol import overridden
from attnbench.records import provenance, record
from attnbench.records.record import Record
from attnbench.statistics import against_dense, inference

if TYPE_CHECKING:
    from attnbench.boards.suite import Part, Suite

LARGEST = {".json": 1 << 20, ".npz": 8 << 20}
HASH = re.compile(r"[0-9a-f]{64}")
CALIBRATION = ("calibration", "calibration_samples", "calibration_tokens")
PRIVATE = re.compile(r"(?:^|[\s='\"])(?:/|~|[A-Za-z]:\\)")  # the beginning of a path of one machine


def problems(folder: str | Path, suite: Suite | None = None) -> Iterator[str]:
    """Yield one line for everything that is wrong with the records under a folder."""
    folder = Path(folder)
    good: list[Record] = []
    cells = _cells(suite) if suite else {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = path.relative_to(folder).as_posix()
        if path.suffix == ".damaged":
            yield f"{name}: a damaged record that a run has set aside: delete it"
        elif path.suffix not in LARGEST or path.name.startswith("."):
            yield f"{name}: no record, left over"
        elif path.stat().st_size > LARGEST[path.suffix]:
            yield f"{name}: {path.stat().st_size:,} bytes, at most {LARGEST[path.suffix]:,}"
        elif path.suffix == ".npz":
            if not path.with_suffix(".json").exists():
                yield f"{name}: arrays without a record"
        else:
            try:
                item = record.read(path)
            except ValueError as error:
                yield f"{name}: {str(error).removeprefix(f'{path}: ')}"
                continue
            found = [*_of(item, folder, path), *(_of_suite(item, suite, cells) if suite else ())]
            yield from (f"{name}: {problem}" for problem in found)
            if not found:
                good.append(item)
    yield from _columns(good, folder)
    try:
        yield from against_dense.mismatches(good)
        board.build(good, suite)
    except UserError as error:
        yield str(error)


def _of(item: Record, folder: Path, path: Path) -> Iterator[str]:
    if record.path_of(folder, item.cell) != path:
        yield f"holds the cell {' '.join(item.cell.values())!r}, which has another file name"
    try:
        canonical = spec.format(spec.parse(item.cell["method"]))
        if canonical != item.cell["method"]:
            yield f"method '{item.cell['method']}' is written '{canonical}'"
    except UserError as error:
        yield str(error)
    try:
        datetime.fromisoformat(item.date)
    except ValueError:
        yield f"date '{item.date}' is not one"
    if item.status == "measured":
        if item.error is not None:
            yield "is measured but has an error"
        yield from _measured(item)
    elif not item.error or item.metrics:
        yield f"is {item.status}: then it has an error and no metric"
    yield from _identity(item)


def _identity(item: Record) -> Iterator[str]:
    source = item.provenance
    found = source.get("identity")
    if not HASH.fullmatch(str(found)):
        if found is not None or item.status != "not applicable":
            yield "has no identity"
    elif "fingerprints" not in source or found != provenance.identity(
        item.cell, source["fingerprints"], item.settings, source.get("code")
    ):
        yield "its identity is of other settings, data or weights, or of older numerics: measure it again"


def _measured(item: Record) -> Iterator[str]:
    told = against_dense.problem(item)
    yield from [told] if told else _errors(item)
    samples = item.scores.get("doc_id")
    if samples is None or not len(samples) or len(np.unique(samples)) != len(samples):
        yield "doc_id: every sample once is not there"
        return
    limit = item.settings.get("limit")
    if isinstance(limit, int) and len(samples) > limit:
        yield f"{len(samples)} samples with a limit of {limit}"
    for name in item.metrics:
        scores = item.scores.get(name)
        if scores is None or len(scores) != len(samples) or not np.isfinite(scores).all():
            yield f"{name}: not one finite score a sample"
    expected, hit, changed, effect = (
        item.receipt.get(key) for key in ("sites_expected", "sites_hit", "changed", "effect")
    )
    dense = item.cell["method"] == "dense"
    if (
        not isinstance(expected, int)
        or hit != expected
        or (expected < 1) != acts_nowhere(item.cell["method"])
    ):
        yield f"receipt: {hit} of {expected} sites"
    if not isinstance(changed, (int, float)) or not 0 <= changed <= 1 or (dense and changed):
        yield f"receipt: {changed} of the samples changed"
    elif effect != ("applied" if changed else "no effect"):
        yield f"receipt: says {effect} where {changed:.0%} of the samples changed"
    yield from _finite("measured", item.measured)


def _errors(item: Record) -> Iterator[str]:
    """Hold each standard error and direction against the samples and the formula."""
    for name, metric in item.metrics.items():
        scores, kind = item.scores.get(name), metric.get("aggregate", "mean")
        if scores is None or not len(scores):
            continue
        stated, own = metric.get("stderr"), inference.standard_error(kind, [scores])
        shown = f"{own:.6g}" if math.isfinite(own) else None
        if (stated is None) != (shown is None):
            yield f"{name}: standard error {stated} in the record but {shown} by its samples"
        elif stated is not None and not math.isclose(
            stated, own, rel_tol=against_dense.SCORES_MATCH, abs_tol=1e-9
        ):
            yield f"{name}: standard error {stated:.6g} in the record but {shown} by its samples"
        higher = metric.get("higher_is_better")
        if higher is None or (kind != "mean" and higher != (kind != "perplexity")):
            yield f"{name}: higher_is_better is {higher} of a metric computed as '{kind}'"


def _columns(items: Sequence[Record], folder: Path) -> Iterator[str]:
    """Name the records that read a metric otherwise than most of its task do."""
    found: dict[tuple[str, str | None, str], dict[tuple[str, bool], list[Record]]] = {}
    for item in items:
        definition = item.provenance.get("fingerprints", {}).get("task")
        for name, metric in item.metrics.items():
            how = (metric.get("aggregate", "mean"), bool(metric.get("higher_is_better")))
            found.setdefault((item.cell["task"], definition, name), {}).setdefault(how, []).append(item)
    for (task, _, name), ways in found.items():
        usual = max(ways, key=lambda how: len(ways[how]))
        for how, odd in ways.items():
            for item in odd if how != usual else ():
                said, most = (f"'{kind}', higher_is_better {higher}" for kind, higher in (how, usual))
                path = Path(item.file).relative_to(folder).as_posix()
                yield f"{path}: {name} is {said}; in {len(ways[usual])} others of {task} it is {most}"


def acts_nowhere(method: str) -> bool:
    """Tell whether a method changes no stage: dense, and what only trains the weights."""
    try:
        return not any(overridden(term) for term in spec.parse(method))
    except UserError:  # of a plugin that is not here
        return False


def _finite(name: str, values: dict[str, Any]) -> Iterable[str]:
    for key, value in values.items():
        if isinstance(value, float) and not math.isfinite(value):
            yield f"{name} {key} is {value}"


def _cells(suite: Suite) -> dict[board.Cell, Part]:
    """Return the part that each cell of a suite is in."""
    specs = [(part, suite.specs(part)) for part in suite.parts]
    return {(*column, text): part for part, texts in specs for column in part.columns() for text in texts}


def _of_suite(item: Record, suite: Suite, cells: dict[board.Cell, Part]) -> Iterator[str]:
    part = cells.get(board.cell_of(item))
    if part is None:
        yield f"is no cell of {suite.path.name}"
    elif "limit" in item.settings:
        wanted = {"limit": part.limit, "max_length": part.max_length}
        wanted |= {key: getattr(suite, key) for key in CALIBRATION}
        wanted |= dict.fromkeys(prompting.NAMES) | part.prompting.given()
        for key, value in wanted.items():
            if item.settings.get(key) != value:
                yield f"measured with {key} {item.settings.get(key)}, {suite.path.name} says {value}"
    if PRIVATE.search(str(item.provenance.get("command", ""))):
        yield "its command names a path of one machine: run the suite with ATTNBENCH_MODELS instead"
