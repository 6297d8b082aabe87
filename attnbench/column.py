"""One column of the matrix, a model on a task: what cells share is built once, each becomes a record."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib
import math
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from attnbench import models, provenance, record, spec, tasks
from attnbench.applicable import require_sites
from attnbench.errors import NotApplicable, UserError, own_fault
from attnbench.method import Method, fitted, needs_fit
from attnbench.plugins import registry
from attnbench.record import Record

EAGER_TOLERANCE = {"float32": 1e-4, "float64": 1e-4, "bfloat16": 5e-2, "float16": 2e-2}


@dataclass(frozen=True)
class Settings:
    """How a run measures. Only what changes a number enters a record's identity."""

    limit: int | None = None
    batch_size: int = 32
    batch_tokens: int | None = None
    seed: int = 0
    device: str = "cpu"
    dtype: str = "float32"
    calibration: str | None = None
    include_path: str | None = None
    trust_remote_code: bool = False
    measure: bool = False

    def recorded(self) -> dict[str, Any]:
        """Return what a record keeps: of a file its name, and no folder of this machine."""
        kept = dataclasses.asdict(self)
        kept.pop("include_path")
        return kept | {"calibration": self.calibration and tasks.shown(self.calibration)}


class Listener(Protocol):
    """What hears of a run's progress."""

    def start(self, cells: int) -> None: ...
    def line(self, text: str) -> None: ...
    def advance(self, cells: float) -> None: ...
    def finish(self, record: Record, reused: bool) -> None: ...


class Column:
    """The cells of one (model, task): what they share is built once, when the first one needs it."""

    def __init__(self, name: str, task: str, settings: Settings, records: str, listener: Listener) -> None:
        self.name, self.task, self.settings, self.records, self.listener = (
            name,
            task,
            settings,
            records,
            listener,
        )
        self.label = tasks.find(task, settings.include_path).name
        self.absent: str | None = None
        self.model: Any = None
        self.dense_outputs: Any = None
        backend = importlib.import_module(registry().backends["lm-eval"])
        try:
            self.checkpoint = models.find(name, task, settings.trust_remote_code)
            self.prepared = backend.prepare(
                task,
                self.checkpoint,
                limit=settings.limit,
                seed=settings.seed,
                calibration=settings.calibration,
                include_path=settings.include_path,
            )
        except NotApplicable as reason:
            self.absent = str(reason)
        self.notes: list[str] = [] if self.absent else getattr(self.prepared, "notes", [])
        for note in self.notes:
            listener.line(f"warning: {models.label(name)}: {note}")

    def measure(self, methods: Sequence[Method], force: bool, strict: bool) -> tuple[Record, bool]:
        """Return a cell's record and whether it was there already."""
        text = spec.format(methods)
        cell = {"model": models.label(self.name), "task": self.label, "method": text}
        settings = self.settings.recorded() | ({"notes": self.notes} if self.notes else {})
        if self.absent is not None:
            item = Record(cell, "not applicable", self.absent, settings=settings, date=provenance.now())
            record.write(self.records, item)
            return item, False
        fingerprints = {
            **self.prepared.fingerprints,
            **(self._learned_from if any(map(needs_fit, methods)) else {}),
        }
        source = provenance.of(cell, methods, self.checkpoint, fingerprints, self.settings)
        old = None if force else record.existing(self.records, cell)
        contested = any(method.name in registry().contested for method in methods)
        if old and not contested and self._holds(old, source["identity"]):
            if not methods:
                self.dense_outputs = old.scores.get("outputs")
            return old, True
        item = Record(
            cell, "measured", settings=settings, provenance=source, environment=provenance.environment()
        )
        try:
            self._fill(item, methods)
        except NotApplicable as reason:
            item.status, item.error = "not applicable", str(reason)
        except UserError:
            raise
        except Exception as error:
            if isinstance(error, ArithmeticError) and methods:
                error.add_note(self._origin(methods))
            if strict:
                traceback.print_exc()
            notes = "; ".join(filter(None, getattr(error, "__notes__", [])))
            item.status, item.error = (
                "failed",
                f"{text}: {type(error).__name__}: {error}" + (f" ({notes})" if notes else ""),
            )
        if item.status != "measured":
            item.metrics, item.scores = {}, {}
        item.date = provenance.now()
        record.write(self.records, item)
        if not methods:
            self._compare_with_card(item)
        return item, False

    def _holds(self, old: Record, identity: str) -> bool:
        unmeasured = self.settings.measure and old.status == "measured" and "flops" not in old.measured
        return old.status != "failed" and old.provenance.get("identity") == identity and not unmeasured

    @functools.cached_property
    def _costs(self) -> Any:
        from attnbench.cost import Costs
        from attnbench.measure import SAMPLES

        batch = self._placed(self.prepared.batches(self.settings.batch_size))[0]
        return Costs(self.model, self._placed(self.prepared.batches(SAMPLES)), batch)

    @functools.cached_property
    def _learned_from(self) -> dict[str, str]:
        try:
            return {"calibration documents": self.prepared.calibration_fingerprint()}
        except NotApplicable:
            return {}

    def _origin(self, methods: Sequence[Method]) -> str:
        """Say which stage at which site made the first non-finite value, if it does so again."""
        from attnbench.conformance.subject import blame

        with contextlib.suppress(Exception):  # the method may be what raised
            return blame(self.model, methods, self._placed(self.prepared.batches(1))[0])
        return ""

    def _compare_with_card(self, item: Record) -> None:
        stated = models.expected_scores(self.name, self.task) if self.settings.limit is None else {}
        for name, score in stated.items():
            metric = item.metrics.get(name)
            if metric and metric["stderr"] and abs(metric["value"] - score) > 3 * metric["stderr"]:
                self.listener.line(
                    f"warning: {self.name} on {self.task} has {name} {metric['value']:.4f}, "
                    f"its card states {score:.4f}: more than 3 standard errors apart"
                )

    def _fill(self, item: Record, methods: Sequence[Method]) -> None:
        import torch

        model = self._loaded()
        torch.manual_seed(self.settings.seed)
        with own_fault(methods):
            require_sites(model, methods)
        started = time.perf_counter()
        learns = any(needs_fit(method) for method in methods)
        batches = self._placed(self.prepared.calibration()) if learns else []
        with own_fault(methods):
            self._fit(model, methods, batches)
            item.seconds["fit"] = time.perf_counter() - started
            self._evaluate(item, model, methods)

    def _evaluate(self, item: Record, model: Any, methods: Sequence[Method]) -> None:
        from attnbench.attention import apply
        from attnbench.measure import SAMPLES, measure, summary

        done = 0.0

        def progress(samples: int) -> None:
            nonlocal done
            self.listener.advance(samples / self.prepared.samples - done)
            done = samples / self.prepared.samples

        started = time.perf_counter()
        with contextlib.ExitStack() as stack:
            applied = stack.enter_context(apply(model, *methods)) if methods else None
            found = self.prepared.evaluate(
                model,
                batch_size=self.settings.batch_size,
                batch_tokens=self.settings.batch_tokens,
                device=self.settings.device,
                progress=progress,
            )
        item.seconds["evaluate"] = time.perf_counter() - started
        item.metrics, item.scores = found.metrics, dict(found.scores)
        for name, metric in item.metrics.items():
            if not math.isfinite(metric["value"]):
                raise ArithmeticError(f"{name} is {metric['value']}")
            if not math.isfinite(metric["stderr"]):
                metric["stderr"] = None  # one sample has no spread
        expected, hit = (applied.expected, applied.hit) if applied else (0, 0)
        item.receipt = {
            "sites_expected": expected,
            "sites_hit": hit,
            **self._changed(found.outputs, methods, item),
        }
        if hit < expected:
            raise RuntimeError(
                f"the method ran at {hit} of {expected} sites: its numbers would be the dense model's in part"
            )
        started = time.perf_counter()
        item.measured = measure(model, self._placed(self.prepared.batches(SAMPLES)), methods)
        if self.settings.measure:
            item.measured |= self._costs.of(methods)
        item.seconds["measure"] = time.perf_counter() - started
        item.fitted = {
            spec.format([method]): summary(fitted(method)) for method in methods if needs_fit(method)
        }

    def _loaded(self) -> Any:
        from attnbench.attention import compare_with_eager

        if self.model is None:
            model = self.checkpoint.load(self.prepared.head, self.settings.device, self.settings.dtype)
            self.prepared.check(model)
            strange = [name for name, weight in model.named_parameters() if not weight.isfinite().all()]
            if strange:
                raise ArithmeticError(f"{self.name}: {strange[0]} holds values that are not finite")
            difference = compare_with_eager(model)
            if not difference <= EAGER_TOLERANCE[self.settings.dtype]:
                raise UserError(
                    f"model '{self.name}' ({type(model).__name__}) differs from its eager attention "
                    f"by {difference:.2g} under attnbench: this architecture is not supported."
                )
            self.model = model
        return self.model

    def _fit(self, model: Any, methods: Sequence[Method], batches: list[dict[str, Any]]) -> None:
        from attnbench.attention import apply

        for position, method in enumerate(methods):
            if needs_fit(method):
                with apply(model, *methods[:position]) if position else contextlib.nullcontext():
                    try:
                        method.fit(model, batches)
                    except Exception as error:
                        error.add_note(f"{method.name}.fit")
                        raise

    def _placed(self, batches: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{key: value.to(self.settings.device) for key, value in batch.items()} for batch in batches]

    def _changed(self, outputs: Any, methods: Sequence[Method], item: Record) -> dict[str, Any]:
        import numpy as np
        import torch

        own = np.stack([np.asarray(output, dtype=np.float32).ravel() for output in outputs])
        if not methods:
            self.dense_outputs = own
            item.scores["outputs"] = own
        if self.dense_outputs is None or self.dense_outputs.shape != own.shape:
            raise RuntimeError("the dense cell of this model and task has to be measured first")
        # above what the order of a sum changes in this dtype, below what changes a decision
        tolerance = max(1e-4, 4 * torch.finfo(getattr(torch, self.settings.dtype)).eps)
        close = np.abs(own - self.dense_outputs) <= tolerance * np.abs(self.dense_outputs).max(0)
        changed = float((~close.all(1)).mean())
        return {"changed": changed, "effect": "applied" if changed else "no effect"}
