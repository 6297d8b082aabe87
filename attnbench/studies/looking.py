"""Let studies look at a model, and keep what they found: measured anew only where a record holds no more."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from attnbench.errors import said, tell
from attnbench.methods import spec
from attnbench.methods.plugins import registry
from attnbench.methods.protocol import Method
from attnbench.methods.study import Study, alone
from attnbench.methods.views import TEXT
from attnbench.records import provenance
from attnbench.studies import looks
from attnbench.studies.opening import Opened, Progress
from attnbench.studies.passes import DENSE, Seen, conduct

if TYPE_CHECKING:
    import numpy as np
    from pandas import DataFrame

    from attnbench.inputs.settings import Settings
    from attnbench.studies.reading import Reading

MEASURED, FAILED, ABSENT = "measured", "failed", "not applicable"


@dataclass
class Found:
    """What one study found: a table, or an array, of each method by name."""

    study: str
    shown: tuple[str, ...] = ()
    status: str = MEASURED
    error: str = ""
    reused: bool = False
    tables: dict[str, dict[str, DataFrame]] = field(default_factory=dict)
    arrays: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)


@dataclass
class Look:
    """What studies found of one model on one data set, by spec; `methods` that were applied, dense first."""

    model: str
    data: str
    fingerprint: str
    methods: tuple[str, ...]
    found: dict[str, Found]
    left_out: dict[str, str]
    failed: dict[str, str]
    opened: Source


class Source(Protocol):
    """What a look was at, for what comes after it: a page, arrays."""

    asked: dict[str, tuple[Method, ...]]
    settings: Settings

    @property
    def model(self) -> Any:
        """Return the model."""

    @property
    def reading(self) -> Reading:
        """Return what reads texts, with those that were looked at."""

    def learned(self, methods: Mapping[str, Sequence[Method]]) -> dict[str, Sequence[Method]]:
        """Return methods that have learned."""


def usual() -> list[str]:
    """Return the studies of any text that watch the passes of others: those that are done unasked."""
    known = registry().studies
    return [
        cls.examples[0]
        for name, cls in sorted(known.items())
        if TEXT in cls.data and not alone(cls) and cls.examples
    ]


def look_at(
    opened: Opened,
    studies: Sequence[Study],
    methods: Mapping[str, Sequence[Method]],
    records: str | Path | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> Look:
    """Let studies look at an opened model, densely and with each method.

    With a folder of `records` a study is taken from there where its records of all methods still hold, and
    written there otherwise. Raises UserError for a text that cannot be read.
    """
    found: dict[str, Found] = {}
    missing = []
    opened.asked = {name: tuple(each) for name, each in methods.items()}
    sources = {spec.format([each]): _sources(opened, each, methods) for each in studies}
    if records is not None:
        looks.clear_partial(records)
    for study in studies:
        text = spec.format([study])
        old = None if records is None or force else looks.held(records, sources[text])
        if old is None:
            missing.append(study)
            told = looks.why(records, sources[text]) if records is not None and not force else []
            if told:
                tell(f"{opened.label} · {opened.data}: {text}: looked at again: {', '.join(told)}")
        else:
            found[text] = _restored(text, type(study), old)
            if found[text].tables:
                opened.left_out |= {name: kept.error for name, kept in old.items() if kept.status == ABSENT}
    applied = [DENSE, *(name for name in methods if name not in opened.left_out)]
    if missing:
        learned = opened.learned(methods)
        started, worked = time.perf_counter(), time.process_time()
        seen = conduct(opened.model, missing, opened.reading, learned, progress=progress, lost=opened.failed)
        spent = {"look": time.perf_counter() - started, "cpu": time.process_time() - worked}
        applied = [DENSE, *(name for name in learned if name not in opened.failed)]
        for study, each in zip(missing, seen, strict=True):
            found[each.name] = tabled(each, type(study), applied)
            if records is not None:
                looks.keep(records, sources[each.name], found[each.name], opened.left_out, spent)
    ordered = {text: found[text] for text in sources}
    return Look(
        opened.label, opened.data, opened.checkpoint.fingerprint, tuple(applied), ordered,
        opened.left_out, opened.failed, opened,
    )  # fmt: skip


def _sources(
    opened: Opened, study: Study, methods: Mapping[str, Sequence[Method]]
) -> dict[str, dict[str, Any]]:
    """Return what each record of a study is of: method -> cell, settings, environment and provenance."""
    found: dict[str, dict[str, Any]] = {}
    fingerprints = {**opened.fingerprints, **study.reads()}
    for name, applied in {DENSE: (), **methods}.items():
        cell = {"model": opened.label, "task": opened.data, "method": name, "study": spec.format([study])}
        terms: Any = [*applied, study]
        found[name] = {
            "cell": cell,
            "texts": list(opened.texts),
            "settings": opened.settings.recorded(),
            "environment": provenance.environment(),
            "provenance": provenance.of(
                cell, terms, opened.checkpoint, fingerprints, opened.settings, opened.places
            ),
        }
    return found


def tabled(seen: Seen, cls: type[Study], methods: Sequence[str]) -> Found:
    """Return what a study found with each method, or why there is nothing."""
    made = Found(seen.name, cls.shown)
    if seen.absent or seen.failed:
        made.status, made.error = (ABSENT, seen.absent) if seen.absent else (FAILED, seen.failed)
        return made
    try:
        for name in methods:
            twin = seen.twins[name]
            made.tables[name], made.arrays[name] = twin.tables(), twin.arrays()
    except Exception as error:
        made.status, made.error = FAILED, f"tables: {said(error)}"
    return made


def _restored(text: str, cls: type[Study], old: Mapping[str, looks.Kept]) -> Found:
    made = Found(text, cls.shown, old[DENSE].status, old[DENSE].error, reused=True)
    if made.status == MEASURED:
        held = {name: kept for name, kept in old.items() if kept.status == MEASURED}
        made.tables = {name: kept.tables for name, kept in held.items()}
        made.arrays = {name: kept.arrays for name, kept in held.items()}
    return made
