"""Evaluate an encoder on a task of ours through lm-eval: its evaluator, filters and aggregation."""

from __future__ import annotations

import contextlib
import functools
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, Unpack

import numpy as np
from lm_eval.evaluator import evaluate
from torch import Tensor, nn

from attnbench.backends import alone
from attnbench.backends import calibration as calibration_
from attnbench.backends.classification import Classify, MultiLabel, Regress, Texts, own_task
from attnbench.backends.encoders import checks, loading, padding
from attnbench.backends.encoders.model import EncoderLM, label_order, one_output
from attnbench.backends.encoders.tasks import Document, EncoderTask, Metric
from attnbench.backends.measurement import Measurement, hash_of
from attnbench.backends.served import BATCH_SIZE, Serving
from attnbench.errors import Misfit, UserError
from attnbench.inputs import tasks
from attnbench.inputs.settings import Settings
from attnbench.measures.fidelity import Form
from attnbench.measures.likely import Likely
from attnbench.statistics import aggregates, inference
from attnbench.statistics.aggregates import Array

MOST = 4


class Prepared:
    """A task made ready for one checkpoint's tokenizer; any number of methods can be evaluated on it."""

    answering: ClassVar[type] = EncoderLM

    def __init__(
        self,
        file: tasks.TaskFile,
        task: EncoderTask,
        checkpoint: Any,
        settings: Settings,
    ) -> None:
        self.file = file
        self.task = task
        self.head = task.head
        self._checkpoint, self._settings = checkpoint, settings
        self._model: Callable[[], nn.Module | None] = lambda: None  # the one that was checked, while it lives
        if isinstance(task, Texts) and settings.calibration is not None:
            chosen = calibration_.source(task, settings.calibration, settings.calibration_samples)
            if chosen.dataset and tasks.is_texts(chosen.dataset[0]):
                calibration_.found(task, chosen)  # mistakes in it come before anything is measured
        self._lm: Any = self.answering(checkpoint.tokenizer())
        config = checkpoint.config()
        if self.head == "classification" and getattr(config, "is_encoder_decoder", False):
            self._lm.end = config.eos_token_id  # it reads a text's last one
        if isinstance(task, Texts):
            checks.require_room(self._lm.tokenizer, task)
        task.build_all_requests(limit=settings.limit)
        cut = sum(getattr(row, "cut", False) for rows in self._lm.rows(task.instances) for row in rows)
        self.samples = len(task.instances)
        self.notes = [f"{cut} of {self.samples} inputs of {file.name} are cut to fit"] if cut else []
        self.fingerprints: dict[str, str | None] = {
            "dataset": hash_of(
                self.said(instance.doc, f"document {instance.doc_id}") for instance in task.instances
            ),
            "task": loading.definition(file, task),
            "source": "attnbench",
            "calibration": calibration_.recipe(task, file, settings),
        }

    def check(self, model: nn.Module) -> None:
        """Raise Misfit where the model's head or labels do not fit the task, UserError where texts do not."""
        name, kind = self._checkpoint.name, type(model).__name__
        checks.check_head(name, model.config, self.head, self.file.name, kind)
        try:
            if isinstance(self.task, Classify | MultiLabel):
                label_order(model.config, self.task.labels)
            if isinstance(self.task, Regress):
                one_output(model.config)
        except Misfit as misfit:
            if tasks.is_own(self.file.path) or tasks.folder() in Path(self.file.path).parents:
                raise
            raise Misfit(f"{tasks.place(self.file.path, 'doc_to_choice')}: {misfit}") from misfit
        with self.serving(model) as lm:
            places = self.task.settings.get("places", ())
            lm.check(self.task.instances, places)
            lm.check_tokens(self.task.instances, places)
        self._model = weakref.ref(model)

    def suit(self, model: nn.Module, requests: Sequence[Any], tolerance: float, device: str) -> str | None:
        """Pad as the model needs it. Returns why it has to read one text at a time, None where it has not."""
        with self.serving(model, device=device) as lm:
            return padding.suit(lm, lm.answers, padding.rows(lm, requests), tolerance)

    def extremes(self, model: nn.Module, requests: Sequence[Any]) -> list[dict[str, Tensor]]:
        """Return the longest and the shortest input, each alone; none where all are empty."""
        rows = padding.rows(self._lm, requests)
        chosen = alone.extremes(rows, [len(row.ids) for row in rows]) if rows else ()
        return [self._lm.collate([row]) for row in reversed(chosen)]

    @contextlib.contextmanager
    def serving(self, model: nn.Module, **options: Unpack[Serving]) -> Iterator[Any]:
        """Give lm-eval's evaluator this model until the block ends. Yields the lm-eval model."""
        with self._lm.serving(model, **options) as lm:
            yield lm

    @property
    def form(self) -> Form:
        """Return what an answer to this task is."""
        return Form(self.task.form)

    def evaluate(
        self, model: nn.Module, ids: np.ndarray | None = None, **options: Unpack[Serving]
    ) -> Measurement:
        """Measure the model as it is now; `ids` are dense's likeliest tokens, where targets are scored.

        Raises ArithmeticError where its output is not finite.
        """
        task, name = self.task, self.task.task_name
        targets: list[int] = []
        likely = None
        if self.form.name == "rolling":
            given = self._lm.rows(task.instances)
            targets = [sum(len(row.places) for row in rows if row.places is not None) for rows in given]
            likely = Likely([[each] for each in zip(task.instances, targets, strict=True)], ids)
        with self.serving(model, **options) as lm:
            lm.likely = likely
            # lm-eval's own bootstrap takes minutes, and logging samples serialises every document
            results = evaluate(
                lm, {"tasks": {name: task}}, limit=self._settings.limit, bootstrap_iters=0, log_samples=False
            )
        scores = {metric: np.array(task.items[metric], dtype=np.float64) for metric in task.metrics}
        return Measurement(
            metrics={
                metric: {
                    "value": _value(results["results"][name], metric, kind, scores[metric]),
                    "stderr": inference.standard_error(kind.aggregate, [scores[metric]]),
                    "higher_is_better": kind.higher_is_better,
                    "aggregate": kind.aggregate,
                }
                for metric, kind in task.metrics.items()
            },
            scores={"doc_id": np.array([instance.doc_id for instance in task.instances]), **scores},
            outputs=[instance.resps[0] for instance in task.instances],
            likely=likely.recorded() if likely else {},
        )

    def batches(self, n: int, batch_size: int = BATCH_SIZE) -> list[dict[str, Tensor]]:
        """Return the first n evaluation samples as model inputs, the longest first.

        Fewer where they are pages of many windows: at most MOST · n inputs, or one sample.
        """
        sizes = np.cumsum([len(rows) for rows in self._lm.rows(self.task.instances[:n])])
        first = self.task.instances[: max(1, int((sizes <= MOST * n).sum()))]
        return [self._lm.collate(rows) for _, rows in self._lm.batches(first, batch_size)]

    def calibration(self, batch_size: int = BATCH_SIZE) -> list[dict[str, Tensor]]:
        """Return calibration samples as model inputs with their labels, or start and end positions.

        Raises NotApplicable without a calibration split, UserError where a sample is also evaluated.
        """
        task = self.task
        named = isinstance(task, Classify | MultiLabel)
        order = label_order(self._checkpoint.config(), task.labels) if named else []
        docs = self.calibration_documents()
        self._require_learnable(docs)
        return calibration_.batches(task, docs, self._lm, order, self._settings.seed, batch_size)

    def _require_learnable(self, docs: Sequence[Document]) -> None:
        """Raise UserError for a calibration text that the model, where it is known, does not take."""
        self.calibration_fingerprint()  # which names a target that is none
        if (model := self._model()) is not None:
            requests = calibration_.requests_of(self.task, docs)
            texts = [f"calibration text {self.task.text(doc)[0][:40]!r}" for doc in docs]
            with self.serving(model) as lm:
                lm.check(requests, texts)
                lm.check_tokens(requests, texts)

    def calibration_documents(self) -> list[Document]:
        """Return the documents that `calibration` makes its batches of. Raises as it does."""
        return self._drawn

    @functools.cached_property
    def _drawn(self) -> list[Document]:
        with loading.placed(self.file) if self._settings.calibration is None else contextlib.nullcontext():
            settings = self._settings
            chosen = calibration_.source(self.task, settings.calibration, settings.calibration_samples)
            return calibration_.documents(self.task, chosen, self._settings.seed)

    def calibration_fingerprint(self) -> str:
        """Hash the calibration documents. Raises as `calibration` does."""
        return hash_of(self._learnt_from(self.calibration_documents()))

    def said(self, doc: Document, place: str, evaluated: bool = True) -> list[Any]:
        """Return a document's texts and target. Raises UserError, with its place, where a target is none."""
        try:
            bare = not evaluated and calibration_.unlabelled(self.task, doc)
            target = None if bare else self.task.doc_to_target(doc)
        except UserError as mistake:
            raise UserError(f"{place}: {mistake}") from mistake
        except (KeyError, TypeError) as error:
            raise UserError(
                f"{place} of task '{self.task.task_name}': its target cannot be read "
                f"({type(error).__name__}: {error})."
            ) from error
        if evaluated and target == []:
            raise UserError(
                f"{place} of task '{self.task.task_name}' has no right answer, which the metrics compare "
                "with. Leave such rows out: process_docs in its YAML, or a split without them."
            )
        return [*self.task.text(doc), target]

    def _learnt_from(self, docs: Iterable[Document]) -> Iterator[list[Any]]:
        for doc in docs:
            yield self.said(doc, f"calibration text {self.task.text(doc)[0][:40]!r}", evaluated=False)


def _value(results: dict[str, Any], metric: str, kind: Metric, scores: Array) -> float | None:
    """Return what lm-eval made of a metric, None where it is not defined on these samples."""
    if np.isfinite(scores).all() and not aggregates.defined(kind.aggregate, scores):
        return None
    return float(results[f"{metric},none"])


def prepare(file: tasks.TaskFile, checkpoint: Any, settings: Settings) -> Prepared:
    """Load a task of ours and build its requests. Raises Misfit where the head is for other tasks."""
    config = checkpoint.config()
    with loading.placed(file):
        if file.head:
            checks.check_head(checkpoint.name, config, file.head, file.name)
        task = own_task(file.name, file.path, config) if tasks.is_own(file.path) else loading.built(file)
        if file.configuration:
            task.narrow(file.name, file.configuration)
        checks.check_head(checkpoint.name, config, task.head, file.name)
        checks.require_distinct(task)
        checks.check_labels(checkpoint.name, config, task)
        if settings.max_length is not None:
            if not isinstance(task, Texts):
                raise checks.not_cut(file)
            task.longest = settings.max_length
        return Prepared(file, task, checkpoint, settings)
