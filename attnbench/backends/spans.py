"""Extractive question answering: SQuAD's columns and metrics, long contexts in overlapping windows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from attnbench.backends import squad
from attnbench.backends.encoders.inputs import Row
from attnbench.backends.encoders.tasks import Document, EncoderTask, Learner, Metric

WINDOW = ("max_seq_length", "doc_stride", "max_answer_length")


class Span(EncoderTask):
    """A question about a paragraph, answered by one of its spans; SQuAD's columns and metrics.

    In YAML: `metadata.window` with `max_seq_length`, `doc_stride` and `max_answer_length`, all in tokens.
    """

    request = "span"
    head = "qa"
    form = "span"
    known: ClassVar = {
        "em": Metric(lambda golds, answer: squad.best(squad.exact, answer, golds)),
        "f1": Metric(lambda golds, answer: squad.best(squad.f1, answer, golds)),
    }
    code = (squad,)

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(config)
        window = self.settings.get("window") or {}
        if any(not isinstance(window.get(name), int) for name in WINDOW):
            raise self.mistake(f"it needs metadata.window with {', '.join(WINDOW)}", "metadata")
        self.window = tuple(window[name] for name in WINDOW)

    def columns(self) -> list[str]:
        return ["question", "context", "answers"]

    def arguments(self, doc: Document) -> tuple[Any, ...]:
        return (doc["question"].lstrip(), doc["context"], self.window)

    def text(self, doc: Document) -> tuple[str, ...]:
        return (doc["question"], doc["context"])

    def doc_to_target(self, doc: Document) -> list[str]:
        return doc["answers"]["text"]

    def answer(self, doc: Document, output: Any) -> str:
        start, end, _ = output
        return doc["context"][int(start) : int(end)]

    def examples(
        self, doc: Document, rows: Sequence[Row], learner: Learner
    ) -> list[tuple[Row, dict[str, Any]]]:
        """Return the first window that holds the whole answer, with its first and last token, or nothing."""
        answers = doc["answers"]
        start = answers["answer_start"][0]
        end = start + len(answers["text"][0])
        for row in rows:
            low, high = row.context
            offsets = row.offsets[low:high] if row.offsets is not None else np.empty((0, 2))
            if len(offsets) and offsets[0, 0] <= start and end <= offsets[-1, 1]:
                first = int(np.flatnonzero(offsets[:, 0] <= start)[-1])
                last = max(first, int(np.flatnonzero(offsets[:, 1] >= end)[0]))
                return [(row, {"start_positions": low + first, "end_positions": low + last})]
        return []
