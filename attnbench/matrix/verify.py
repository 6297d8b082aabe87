"""Measure a recorded cell again on a few samples and hold the two against each other."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from attnbench.errors import NotApplicable, UserError
from attnbench.inputs import endings, names, tasks
from attnbench.inputs.gguf_files import ENDING
from attnbench.inputs.prompting import NAMES, Prompting
from attnbench.inputs.settings import Settings
from attnbench.matrix.believed import differences, doubt
from attnbench.matrix.bench import Bench
from attnbench.matrix.column import Column
from attnbench.matrix.console import Silent
from attnbench.matrix.ledger import Ledger
from attnbench.methods import spec
from attnbench.methods.fields import texts
from attnbench.methods.protocol import Term, needs_fit
from attnbench.records import record
from attnbench.records.record import Record
from attnbench.statistics import floor, pairs
from attnbench.statistics.aggregates import aggregate

LARGEST_SHARE = 0.05
SAME = (
    "limit", "batch_size", "seed", "dtype", "max_length", "calibration_samples", "calibration_tokens",
)  # fmt: skip
HUB_SPLIT = re.compile(r"\w[\w.-]*(?:/[\w.-]+)?(?::[\w.-]+){1,2}")  # as in glue:sst2:train, owner/data:train


def verify(
    path: str | Path,
    sample: int,
    *,
    model: str | None = None,
    task: str | None = None,
    include_path: str | None = None,
    calibration: str | None = None,
    files: Sequence[str] = (),
    trust_remote_code: bool = False,
) -> tuple[list[str], bool]:
    """Return what was found, as lines, and whether the record stands.

    It stands where, by every metric and on the same samples, the 95 % interval of the paired difference
    between then and now includes zero and at most 5 % of the samples differ (rounding on another machine
    flips few) or, where records of the column were measured twice, twice the share that differed there above
    that, if so many differ here too, and the checkpoint, the task, what was learned from and the sites
    reached are the same. `model`, `task` and `calibration` say where the files are that a record only knows
    by name, `files` which of those that its method names may be read: nothing that only a record names is
    opened or run. Raises UserError where one cannot be had, or holds other samples.
    """
    try:
        old = record.read(path)
    except ValueError as error:
        hint = "" if Path(path).is_file() else ". Give the file of a record: RECORDS/MODEL/TASK/METHOD.json"
        raise UserError(f"{error}{hint}") from None
    _require_plugins(old)
    require_named(old, path, files)
    settings = Settings(
        **{key: old.settings[key] for key in SAME if key in old.settings},
        prompting=Prompting(**{key: old.settings[key] for key in NAMES if key in old.settings}),
        calibration=calibration or _calibration(path, old),
        include_path=include_path,
        trust_remote_code=trust_remote_code,
    )
    place = model or model_of(old)
    work = task + endings.parted(old.cell["task"])[1].written if task else _task(path, old, include_path)
    if task or include_path:
        _require_same_samples(old, place, work, settings)
    beside = _beside(Path(path))
    if any("floor" in item.measured for item in beside):  # what a record says of it is not taken on trust
        settings = dataclasses.replace(settings, floor=(old.cell["method"],))
    new = _again(old, sample, place, work, settings)
    name = " ".join(old.cell.values())
    if old.status != "measured" or new.status != "measured":
        told = [
            f"{name}: recorded as {old.status}, now {new.status}" + (f": {new.error}" if new.error else "")
        ]
        return told, old.status == new.status
    lines, stands = differences(old, new)
    if wrong := doubt(old):
        lines, stands = [f"{name}: {wrong}: DISAGREES", *lines], False
    before, now = _first(old, new)
    for metric in before.metrics:
        undefined = [item.metrics[metric]["value"] is None for item in (before, now)]
        if any(undefined):
            state = "now as then" if all(undefined) else "but is then or now: DISAGREES"
            lines.append(f"{name}: {metric} is not defined on these samples, {state}")
            stands &= all(undefined)
            continue
        found = pairs.difference([now], [before], metric)
        differ = floor.differing(now.scores[metric], before.scores[metric])
        most = LARGEST_SHARE + 2 * min(floor.share(beside, metric), floor.share([new], metric))
        inside = found.low <= 0 <= found.high and differ <= most * found.samples
        lines.append(
            f"{name}: {metric} {found.a:.4f} now, {found.b:.4f} then, on the same {found.samples:,} samples: "
            f"{found.interval}, {differ} differ: {'agrees' if inside else 'DISAGREES'}"
        )
        stands &= inside
    return lines, stands


def _beside(path: Path) -> list[Record]:
    """Read the records of a record's column, passing over what is none."""
    found = []
    for each in sorted(path.parent.glob("*.json")):
        with contextlib.suppress(ValueError):
            found.append(record.read(each))
    return found


def _require_plugins(old: Record) -> None:
    """Raise UserError for a method of a plugin that is not here, with the file it was of."""
    try:
        spec.parse(old.cell["method"])
    except UserError as error:
        own = [each for each in old.provenance.get("plugins", ()) if not str(each).startswith("attnbench ")]
        if not own or not str(error).startswith("unknown method"):
            raise
        files = " ".join(f"--plugin PATH/{str(each).partition(' ')[0]}" for each in own)
        raise UserError(
            f"'{old.cell['method']}' is a method of {', '.join(map(str, own))}, not loaded here: add {files}"
        ) from None


def require_named(old: Record, path: str | Path, given: Sequence[str]) -> None:
    """Raise UserError for a file that only the record names: a stranger's record opens none."""
    terms: list[Term] = [*spec.parse(old.cell["method"])]
    if "study" in old.cell:
        terms.append(spec.parse_study(old.cell["study"]))
    for term in terms:
        for text in texts(term):
            is_path = "/" in text or "\\" in text or text.startswith("~") or os.path.lexists(text)
            if is_path and text not in given:
                raise UserError(
                    f"'{spec.format([term])}' names the file '{text}', and no file is read because a record "
                    f"names it. If you know it: attnbench verify {path} --file {text}"
                )


def model_of(old: Record) -> str:
    """Return a record's model as a run takes it. Raises UserError for a folder, which no record names."""
    name, source = old.cell["model"], old.provenance.get("source")
    if source not in names.OWN and not names.is_place(name):
        own = str(old.provenance.get("model"))  # of a Hub model that the run gave another name
        return f"{name}={own}" if source == "hub" and own != name and names.HUB_ID.fullmatch(own) else name
    if "/" not in name and (there := names.placed(name)):
        return there
    ending = ENDING if source == "file" else ""
    raise UserError(
        f"model '{name}' was a {source or 'folder'}: say where it is: --model PATH/{name}{ending}, or "
        f"{names.PLACES}=PATH."
    )


def _task(path: str | Path, old: Record, include_path: str | None) -> str:
    name, ending = endings.parted(old.cell["task"])
    tasks.available(include_path)  # a folder that is none is another mistake
    try:
        if tasks.is_file_name(name):
            raise UserError(f"task '{name}' is a file")
        tasks.find(name, include_path)
    except UserError:
        raise UserError(
            f"task '{name}' was a file: say where it is: attnbench verify {path} --task PATH/{name}.csv "
            "(or .jsonl, .yaml), or --include-path DIR."
        ) from None
    return name + ending.written


def _calibration(path: str | Path, old: Record) -> str | None:
    name = old.settings.get("calibration")
    learns = any(map(needs_fit, spec.parse(old.cell["method"])))
    if (
        name
        and learns
        and (
            tasks.is_file_name(name)
            or not HUB_SPLIT.fullmatch(name)
            or os.path.lexists(name.partition(":")[0])
        )
    ):
        raise UserError(
            f"calibration '{name}' was a file: say where it is: attnbench verify {path} "
            f"--calibration PATH/{Path(name).name}"
        )
    return name if learns else None


def _require_same_samples(old: Record, model: str, task: str, settings: Settings) -> None:
    """Raise UserError where a file or folder of the user's holds other samples than those recorded."""
    try:
        found = Bench(model, task, settings).prepared.fingerprints["dataset"]
    except NotApplicable:  # of which the record may speak
        return
    if found != old.provenance.get("fingerprints", {}).get("dataset"):
        raise UserError(
            f"'{task}' is not what was measured: its samples are others than those of the record of "
            f"'{old.cell['task']}'. Give the file as it was then."
        )


def _again(old: Record, sample: int, model: str, task: str, settings: Settings) -> Record:
    count = len(old.scores["doc_id"]) if "doc_id" in old.scores else sample
    chosen = dataclasses.replace(settings, limit=min(sample, count))
    methods = spec.parse(old.cell["method"])
    with tempfile.TemporaryDirectory() as folder:
        column = Column(model, task, chosen, Ledger(folder), Silent())
        dense, _ = column.measure((), True, False)
        return column.measure(methods, True, False)[0] if methods else dense


def _first(old: Record, new: Record) -> tuple[Record, Record]:
    """Cut the recorded samples to those that were measured again."""
    ids = new.scores["doc_id"]
    place = {int(each): k for k, each in enumerate(old.scores["doc_id"])}
    missing = [int(each) for each in ids if int(each) not in place]
    if missing:
        raise UserError(f"sample {missing[0]} is not in the record: the data are others")
    rows = np.array([place[int(each)] for each in ids])
    metrics = {name: metric for name, metric in old.metrics.items() if name in new.metrics}
    scores = {name: old.scores[name][rows] for name in ("doc_id", *metrics)}
    before = Record(old.cell, "measured", scores=scores)
    now = Record(new.cell, "measured", scores=new.scores)
    for item in (before, now):
        for name, metric in metrics.items():
            value = aggregate(metric.get("aggregate", "mean"), item.scores[name])
            item.metrics[name] = {**metric, "value": None if math.isnan(value) else value}
    return before, now
