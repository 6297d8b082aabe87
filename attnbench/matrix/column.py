"""One column of the matrix, a model on a task: what cells share is built once, each becomes a record."""

from __future__ import annotations

import contextlib
import functools
import math
import time
import traceback
from collections.abc import Sequence
from typing import Any

from attnbench.engine.serving.soundness import require_hits
from attnbench.errors import Misfit, NotApplicable, UserError, described, own_fault, said
from attnbench.inputs import models, tasks
from attnbench.inputs.settings import Settings
from attnbench.matrix import answered, later, twice
from attnbench.matrix.bench import Bench, Loaded
from attnbench.matrix.console import Listener, beside_card
from attnbench.matrix.ledger import Ledger
from attnbench.measures import fidelity
from attnbench.measures.finite import origin, require_finite
from attnbench.measures.likely import IDS
from attnbench.methods import spec, verdicts
from attnbench.methods.plugins import registry
from attnbench.methods.protocol import Method, needs_fit, overridden
from attnbench.records import provenance, whereabouts
from attnbench.records.difference import holds
from attnbench.records.record import Record


class Column:
    """The cells of one (model, task): what they share is built once, when the first one needs it.

    A model for other tasks is a mistake where the column is `alone`, else its cells are not applicable.
    """

    def __init__(self, name: str, task: str, settings: Settings, ledger: Ledger, listener: Listener,
                 alone: bool = True, loaded: Loaded | None = None) -> None:  # fmt: skip
        self.name, self.task, self.settings, self.alone = name, task, settings, alone
        self.ledger, self.listener = ledger, listener
        self.label = tasks.find(task, settings.include_path).name
        self.absent: str | None = None
        self.dense: dict[str, Any] = {}  # what its cell answered, by the names of a record's arrays
        self._before: Any = None  # what torch and the model are before methods come
        try:
            self.bench = Bench(name, task, settings, self._say, loaded)
            self.places = whereabouts.of(self.bench.checkpoint, task, settings)
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
        item = self._item(methods)
        old = self.ledger.existing(item.cell)
        ended = self.ledger.ended(item, old)
        if old and not force and self._holds(old, item, methods):
            self.dense = self.dense if methods else old.scores
            check = item.provenance.get("check")
            if check is not None and old.provenance.get("check", verdicts.SHIPPED) != check:
                old.provenance["check"] = check  # its code was checked since
                self.ledger.write(old)
            wanting = not ended and later.wanting(old, self.settings)
            return old, not (wanting and self._add_costs(old, methods, strict))
        if self.absent is not None:
            self.ledger.write(item)
            return item, False
        try:
            if not ended:
                self._try(item, methods, strict)
        except Misfit as misfit:
            if self.alone:
                raise
            self.absent = str(misfit)
            return self.measure(methods, force, strict)
        finally:
            left = self._left_behind()
        if left:
            told = f"{item.error}; " if item.error else f"{item.cell['method']}: "
            item.status, item.error = "failed", f"{told}not restored: {left}"
        if item.status != "measured":
            item.metrics, item.scores = {}, {}
        item.date = provenance.now()
        if any(map(needs_fit, methods)) and self._learned_from is None and old and old.status == "measured":
            return item, False  # what it learned from is not to be had today: what it measured then stays
        self.ledger.write(item)
        if not methods:
            for line in beside_card(self.name, self.task, item):
                self.listener.line(line)
        return item, False

    def announce(self, cells: Sequence[Sequence[Method]]) -> None:
        """Say in a line how many measured records will give way to what, and why."""
        if told := self.ledger.replaced([self._item(methods) for methods in cells]):
            self.listener.line(f"{models.label(self.name)} · {self.label}: {told}")

    def _item(self, methods: Sequence[Method]) -> Record:
        """Return a cell's record before it is measured."""
        cell = {"model": models.label(self.name), "task": self.label, "method": spec.format(methods)}
        settings = self.settings.recorded() | ({"notes": self.notes} if self.notes else {})
        if self.absent is not None:
            return Record(cell, "not applicable", self.absent, settings=settings)
        learned_from = any(map(needs_fit, methods)) and self._learned_from
        prints = {**self.bench.prepared.fingerprints, **(learned_from or {})}
        source = provenance.of(cell, methods, self.bench.checkpoint, prints, self.settings, self.places)
        here = provenance.environment()
        return Record(cell, "measured", settings=settings, provenance=source, environment=here)

    def _say(self, note: str) -> None:
        self.listener.line(f"warning: {models.label(self.name)}: {note}")

    def _try(self, item: Record, methods: Sequence[Method], strict: bool) -> None:
        """Fill a record, or say in it why not. Raises UserError where no method is at fault."""
        try:
            with self.ledger.measuring(item):
                self._fill(item, methods)
        except NotApplicable as reason:
            item.status, item.error = "not applicable", said(reason)
        except (UserError, KeyboardInterrupt):
            raise
        except BaseException as error:
            if strict:
                traceback.print_exc()
            item.status, item.error = "failed", f"{item.cell['method']}: {described(error)}"

    def _left_behind(self) -> str | None:
        """Say what methods changed for good; put torch back, and drop the model, to be loaded again."""
        changed: str | None = self._before and self._before.left(self.bench.model)
        if changed:
            self._before.process.restore()
            self.bench.forget()
            vars(self).pop("_costs", None)
            self._before = None
        return changed

    def _holds(self, old: Record, item: Record, methods: Sequence[Method]) -> bool:
        if self.absent is not None:
            return (old.status, old.error, old.settings) == (item.status, item.error, item.settings)
        again = item.cell["method"] in self.settings.floor and old.status == "measured"
        contested = any(method.name in registry().contested for method in methods)
        usable = self.ledger.settled(old) and not contested and (not again or "floor" in old.measured)
        return usable and holds(old, item)

    @functools.cached_property
    def _costs(self) -> Any:
        return later.costs(self.bench)

    def _add_costs(self, old: Record, methods: Sequence[Method], strict: bool) -> bool:
        """Measure what a finished record lacks of costs; False, and a line, where that fails: it stays."""
        return later.added(
            old, methods, lambda: self._learn(methods), lambda: self._costs.of(methods),
            self._left_behind, self.ledger, self.listener, strict,
        )  # fmt: skip

    @functools.cached_property
    def _learned_from(self) -> dict[str, str] | None:
        """Return the fingerprint of what methods learn from, None where it is refused: as each cell says."""
        try:
            return {"calibration documents": self.bench.prepared.calibration_fingerprint()}
        except NotApplicable:
            return {}
        except UserError:
            return None

    def _fill(self, item: Record, methods: Sequence[Method]) -> None:
        if methods and self.ledger.postponed({**item.cell, "method": "dense"}):
            raise RuntimeError("the dense cell has to be measured first: it ended its process")
        model = self.bench.model
        if self.bench.alone:
            item.settings = item.settings | {"batch_size": 1, "batch_tokens": None}
            item.settings["notes"] = [*self.notes, self.bench.alone]
        with own_fault(methods):
            item.seconds["fit"] = self._learn(methods)
            self._evaluate(item, model, methods)

    def _learn(self, methods: Sequence[Method]) -> float:
        """Let methods learn, and return the seconds that it took."""
        from attnbench.engine.whole import Whole

        if methods and self._before is None:
            self._before = Whole(self.bench.model)
        bench = self.bench
        return bench.loaded.fits.learn(bench.model, methods, self.settings.seed, bench.calibration)

    def _outputs(self, methods: Sequence[Method], along: Any = None, **serving: Any) -> tuple[Any, Any]:
        """Evaluate, and return what was measured and what was applied. Raises ArithmeticError."""
        from attnbench.engine.serving.attention import apply
        from attnbench.measures.measure import SAMPLES

        model, done, applied = self.bench.model, 0.0, None

        def progress(samples: int) -> None:
            nonlocal done
            self.listener.advance(samples / self.bench.prepared.samples - done)
            done = samples / self.bench.prepared.samples

        try:
            with contextlib.ExitStack() as stack:
                block = along.applied() if along else apply(model, *methods)
                applied = stack.enter_context(block) if methods else None
                if applied and not applied.expected and any(map(overridden, methods)):
                    raise NotApplicable(f"{spec.format(methods)} acts at no site of this model")
                ids = self.dense.get(IDS) if methods else None
                serving = serving or self.bench.serving
                found = self.bench.prepared.evaluate(model, ids, progress=progress, **serving)
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
        from attnbench.measures.along import Along
        from attnbench.measures.measure import SAMPLES, learned

        along = Along(model, self.bench.batches(SAMPLES), methods)
        started = time.perf_counter()
        found, applied = self._outputs(methods, along)
        item.seconds["evaluate"] = time.perf_counter() - started
        item.metrics, item.scores = found.metrics, dict(found.scores)
        for metric in item.metrics.values():
            if not math.isfinite(metric["stderr"]):
                metric["stderr"] = None  # one sample has no spread
        expected, hit = (applied.expected, applied.hit) if applied else (0, 0)
        own = answered.arrays(found)
        if not methods:
            self.dense = own
            item.scores |= answered.kept(own)
        effect = answered.effect(self.dense, own, self.settings.dtype)
        item.receipt = {"sites_expected": expected, "sites_hit": hit, **effect}
        if applied:
            item.receipt |= require_hits(applied)
        form = self.bench.prepared.form
        faithful = fidelity.compared(form, found.metrics, self.dense, own) if methods else {}
        item.scores |= faithful
        started = time.perf_counter()
        measured = along.found() | (applied.cached() if applied else {})
        measured |= self._costs.of(methods) if self.settings.measure else {}
        if item.cell["method"] in self.settings.floor:
            measured["floor"] = twice.measured(
                lambda **serving: self._outputs(methods, **serving)[0], found, self.bench.serving
            )
        if faithful:
            measured["fidelity"] = fidelity.summary(faithful)
        require_finite(measured)
        item.measured = measured
        item.seconds["measure"] = time.perf_counter() - started
        item.fitted = learned(methods)
