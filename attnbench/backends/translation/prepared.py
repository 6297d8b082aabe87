"""A translation task made ready for one encoder-decoder."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, ClassVar, Unpack

import numpy as np
from torch import Tensor, nn

from attnbench.backends import alone, kinds
from attnbench.backends.encoders import loading, prepared
from attnbench.backends.encoders.tasks import Document
from attnbench.backends.measurement import Measurement, of_texts
from attnbench.backends.served import BATCH_SIZE, Serving
from attnbench.backends.translation.model import Seq2SeqLM
from attnbench.errors import Misfit, UserError
from attnbench.inputs import tasks
from attnbench.inputs.settings import Settings


class PreparedSeq2Seq(prepared.Prepared):
    """A translation task made ready for one encoder-decoder; any number of methods can be evaluated on it."""

    answering: ClassVar[type] = Seq2SeqLM

    def check(self, model: nn.Module) -> None:
        """Raise Misfit where the model is no encoder-decoder, UserError where it takes less than asked."""
        if kinds.kind(model.config) != "seq2seq":
            raise Misfit(
                f"model '{self._checkpoint.name}' does not fit task '{self.file.name}': it is a "
                f"{type(model).__name__}, the task needs an encoder-decoder."
            )
        with self.serving(model) as lm:
            lm.check(self.task.instances)

    def said(self, doc: Document, place: str, evaluated: bool = True) -> list[Any]:
        """Return a document's source and translation. Raises UserError for one that is no text."""
        found = super().said(doc, place, evaluated)
        if not isinstance(found[-1], str):
            raise UserError(f"{place} of task '{self.task.task_name}' has {found[-1]!r} for a translation.")
        return found

    def suit(self, model: nn.Module, requests: Sequence[Any], tolerance: float, device: str) -> str | None:
        """Return why the model has to read one text at a time, None where it has not."""
        with self.serving(model, device=device) as lm:
            gap = lm.gap(self._texts([request.doc for request in requests]))
        return None if gap <= tolerance else alone.ALONE.format(gap)

    def extremes(self, model: nn.Module, requests: Sequence[Any]) -> list[dict[str, Tensor]]:
        """Return the longest and the shortest source, each alone with its translation."""
        texts = self._texts([request.doc for request in requests])
        lengths = list(map(len, self._lm.encode([source for source, _ in texts])))
        short, long = alone.extremes(texts, lengths)
        return [self._lm.collate([source], [target]) for source, target in (long, short)]

    def _texts(self, docs: Sequence[Document]) -> list[tuple[str, str]]:
        return [(self.task.text(doc)[0], self.task.doc_to_target(doc)) for doc in docs]

    def evaluate(
        self, model: nn.Module, ids: np.ndarray | None = None, **options: Unpack[Serving]
    ) -> Measurement:
        """Measure the model as it is now. `outputs` stand for the translations."""
        found = super().evaluate(model, ids, **options)
        found.outputs = [of_texts(instance.resps) for instance in self.task.instances]
        return found

    def batches(self, n: int, batch_size: int = BATCH_SIZE) -> list[dict[str, Tensor]]:
        """Return the first n evaluation samples with their translations as inputs, the longest first."""
        return self._batches([instance.doc for instance in self.task.instances[:n]], batch_size)

    def calibration(self, batch_size: int = BATCH_SIZE) -> list[dict[str, Tensor]]:
        """Return calibration samples with their translations as labels.

        Raises NotApplicable without a calibration split, UserError where a sample is also evaluated.
        """
        made = self._batches(self.calibration_documents(), batch_size)
        random.Random(f"{self._settings.seed} batches").shuffle(made)
        return made

    def _batches(self, docs: Sequence[Document], size: int) -> list[dict[str, Tensor]]:
        lm: Seq2SeqLM = self._lm
        lm.batch_size, lm.batch_tokens = size, None
        sources = [self.task.text(doc)[0] for doc in docs]
        return [
            lm.collate([sources[k] for k in chosen], [self.task.doc_to_target(docs[k]) for k in chosen])
            for chosen in lm.batches(sources)
        ]


def prepare(file: tasks.TaskFile, checkpoint: Any, settings: Settings) -> PreparedSeq2Seq:
    """Load a translation task and build its requests. Raises UserError."""
    with loading.placed(file):
        task = loading.built(file)
        return PreparedSeq2Seq(file, task, checkpoint, settings)
