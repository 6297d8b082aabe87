"""One column of the matrix, a model on a task: what cells share is built once, each becomes a record."""

from __future__ import annotations

import contextlib
import functools
import math
import time
import traceback
from collections.abc import Sequence
from typing import Any

from attnbench.engine.learning.fit import learn
from attnbench.engine.serving.soundness import require_hits
from attnbench.errors import Misfit, NotApplicable, UserError, own_fault
from attnbench.inputs import models, tasks
from attnbench.inputs.settings import Settings
from attnbench.matrix.bench import Bench
from attnbench.matrix.console import Listener
from attnbench.measures.finite import origin, require_finite
from attnbench.methods import spec
from attnbench.methods.plugins import registry
from attnbench.methods.protocol import Method, fitted, needs_fit, overridden
from attnbench.records import provenance, record
from attnbench.records.record import Record


class Column:
    """The cells of one (model, task): what they share is built once, when the first one needs it.

    A model for other tasks is a mistake where the column is `alone`, else its cells are not applicable.
    """

    def __init__(
        self, name: str, task: str, settings: Settings, records: str, listener: Listener, alone: bool = True
    ) -> None:
        self.name, self.task, self.settings, self.alone = name, task, settings, alone
        self.records, self.listener = records, listener
        self.label = tasks.find(task, settings.include_path).name
        self.absent: str | None = None
        self.dense_outputs: Any = None
        self._before: Any = None  # what torch and the model are before methods come
        try:
            self.bench = Bench(name, task, settings, self._say)
        except NotApplicable as reason:
            self.absent = str(reason)
        except Misfit as misfit:
            if alone:
                raise
            self.absent = str(misfit)
        self.notes: list[str] = [] if self.absent else getattr(self.bench.prepared, "notes", [])
        for note in self.notes:
            self._say(note)

    def measure(self, methods: Sequence[Method], force: bool, strict: bool) -> tuple[Record, bool]:
        """Return a cell's record and whether it was there already."""
        text = spec.format(methods)
        cell = {"model": models.label(self.name), "task": self.label, "method": text}
        settings = self.settings.recorded() | ({"notes": self.notes} if self.notes else {})
        old = None if force else record.existing(self.records, cell)
        if self.absent is not None:
            if old and (old.status, old.error, old.settings) == ("not applicable", self.absent, settings):
                return old, True
            item = Record(cell, "not applicable", self.absent, settings=settings, date=provenance.now())
            record.write(self.records, item)
            return item, False
        learned_from = self._learned_from if any(map(needs_fit, methods)) else {}
        fingerprints = {**self.bench.prepared.fingerprints, **(learned_from or {})}
        source = provenance.of(cell, methods, self.bench.checkpoint, fingerprints, self.settings)
        contested = any(method.name in registry().contested for method in methods)
        if old and not contested and self._holds(old, source):
            if not methods:
                self.dense_outputs = old.scores.get("outputs")
            return old, True
        item = Record(
            cell, "measured", settings=settings, provenance=source, environment=provenance.environment()
        )
        try:
            self._try(item, methods, strict)
        except Misfit as misfit:
            if self.alone:
                raise
            self.absent = str(misfit)
            return self.measure(methods, force, strict)
        finally:
            left = self._left_behind()
        if left:
            item.status = "failed"
            item.error = (f"{item.error}; " if item.error else f"{text}: ") + f"not restored: {left}"
        if item.status != "measured":
            item.metrics, item.scores = {}, {}
        item.date = provenance.now()
        if learned_from is None and old and old.status == "measured":
            return item, False  # what it learned from is not to be had today: what it measured then stays
        record.write(self.records, item)
        if not methods:
            self._compare_with_card(item)
        return item, False

    def _say(self, note: str) -> None:
        self.listener.line(f"warning: {models.label(self.name)}: {note}")

    def _try(self, item: Record, methods: Sequence[Method], strict: bool) -> None:
        """Fill a record, or say in it why not. Raises UserError where no method is at fault."""
        try:
            self._fill(item, methods)
        except NotApplicable as reason:
            item.status, item.error = "not applicable", str(reason)
        except UserError:
            raise
        except (Exception, SystemExit) as error:
            if strict:
                traceback.print_exc()
            notes = "; ".join(filter(None, getattr(error, "__notes__", [])))
            item.status, item.error = (
                "failed",
                f"{item.cell['method']}: {type(error).__name__}: {error}" + (f" ({notes})" if notes else ""),
            )

    def _left_behind(self) -> str | None:
        """Say what methods changed for good; put torch back, and drop the model, to be loaded again."""
        changed: str | None = self._before and self._before.left(self.bench.model)
        if changed:
            self._before.process.restore()
            self.bench.forget()
            vars(self).pop("_costs", None)
            self._before = None
        return changed

    def _holds(self, old: Record, source: dict[str, Any]) -> bool:
        unmeasured = self.settings.measure and old.status == "measured" and "flops" not in old.measured
        return old.status != "failed" and provenance.holds(old.provenance, source) and not unmeasured

    @functools.cached_property
    def _costs(self) -> Any:
        from attnbench.measures.cost import Costs
        from attnbench.measures.measure import SAMPLES

        batch = self.bench.batches(self.settings.batch_size)[0]
        return Costs(self.bench.model, self.bench.batches(SAMPLES), batch)

    @functools.cached_property
    def _learned_from(self) -> dict[str, str] | None:
        """Return the fingerprint of what methods learn from, None where it is refused: as each cell says."""
        try:
            return {"calibration documents": self.bench.prepared.calibration_fingerprint()}
        except NotApplicable:
            return {}
        except UserError:
            return None

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
        from attnbench.engine.whole import Whole

        model = self.bench.model
        if self.bench.alone:
            item.settings = item.settings | {"batch_size": 1, "batch_tokens": None}
            item.settings["notes"] = [*self.notes, self.bench.alone]
        if methods and self._before is None:
            self._before = Whole(model)
        with own_fault(methods):
            started = time.perf_counter()
            learn(model, methods, self.settings.seed, self.bench.calibration)
            item.seconds["fit"] = time.perf_counter() - started
            self._evaluate(item, model, methods)

    def _outputs(self, model: Any, methods: Sequence[Method]) -> tuple[Any, Any]:
        """Evaluate, and return what was measured and what was applied. Raises ArithmeticError."""
        from attnbench.engine.serving.attention import apply
        from attnbench.measures.measure import SAMPLES

        done, applied = 0.0, None

        def progress(samples: int) -> None:
            nonlocal done
            self.listener.advance(samples / self.bench.prepared.samples - done)
            done = samples / self.bench.prepared.samples

        try:
            with contextlib.ExitStack() as stack:
                applied = stack.enter_context(apply(model, *methods)) if methods else None
                if applied and not applied.expected and any(map(overridden, methods)):
                    raise NotApplicable(f"{spec.format(methods)} acts at no site of this model")
                found = self.bench.prepared.evaluate(model, progress=progress, **self.bench.serving)
            require_finite({name: metric["value"] for name, metric in found.metrics.items()})
            if applied and applied.strange():
                raise ArithmeticError(applied.strange())
        except ArithmeticError as error:
            if applied:
                where = origin(model, methods, self.bench.batches(SAMPLES)) or applied.strange()
                error.add_note(where if where not in str(error) else "")
            raise
        return found, applied

    def _evaluate(self, item: Record, model: Any, methods: Sequence[Method]) -> None:
        from attnbench.measures.measure import SAMPLES, measure, summary

        started = time.perf_counter()
        found, applied = self._outputs(model, methods)
        item.seconds["evaluate"] = time.perf_counter() - started
        item.metrics, item.scores = found.metrics, dict(found.scores)
        for metric in item.metrics.values():
            if not math.isfinite(metric["stderr"]):
                metric["stderr"] = None  # one sample has no spread
        expected, hit = (applied.expected, applied.hit) if applied else (0, 0)
        item.receipt = {
            "sites_expected": expected,
            "sites_hit": hit,
            **self._changed(found.outputs, methods, item),
        }
        if applied:
            require_hits(applied)
        started = time.perf_counter()
        measured = measure(model, self.bench.batches(SAMPLES), methods)
        if self.settings.measure:
            measured |= self._costs.of(methods)
        require_finite(measured)
        item.measured = measured
        item.seconds["measure"] = time.perf_counter() - started
        learned: list[str] = []  # a term may stand there twice, as in mask50+mask50: the second is mask50:2
        for method in filter(needs_fit, methods):
            learned.append(spec.format([method]))
            times = learned.count(learned[-1])
            item.fitted[learned[-1] + (f":{times}" if times > 1 else "")] = summary(fitted(method))

    def _changed(self, outputs: Any, methods: Sequence[Method], item: Record) -> dict[str, Any]:
        import numpy as np
        import torch

        own = np.stack([np.asarray(output, dtype=np.float32).ravel() for output in outputs])
        if not methods:
            self.dense_outputs = own
            item.scores["outputs"] = own
        if self.dense_outputs is None or self.dense_outputs.shape != own.shape:
            raise RuntimeError("the dense cell of this model and task has to be measured first")
        # above what the order of a sum changes in this dtype, below what changes a decision; a text's
        # log-likelihood is a sum over its tokens, of which the errors grow with the square root alone
        tolerance = max(1e-4, 4 * torch.finfo(getattr(torch, self.settings.dtype)).eps)
        largest = np.abs(self.dense_outputs).max(0)
        close = np.abs(own - self.dense_outputs) <= tolerance * np.minimum(largest, np.sqrt(largest))
        changed = float((~close.all(1)).mean())
        return {"changed": changed, "effect": "applied" if changed else "no effect"}
