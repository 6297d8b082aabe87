"""Evaluate an encoder-decoder on translation: BLEU and chrF of a corpus, by sacrebleu."""

from __future__ import annotations

import functools
from typing import Any, ClassVar

from sacrebleu.metrics import BLEU, CHRF

from attnbench.backends.encoders.tasks import Document, EncoderTask, Metric

GENERATION = {"max_new_tokens": 128, "num_beams": 1}
CORPUS = {"bleu": functools.cache(BLEU), "chrf": functools.cache(CHRF)}


def _counts(metric: str, target: str, text: str) -> list[int]:
    (counts,) = CORPUS[metric]()._extract_corpus_statistics([text], [[target]])
    return counts


class Translate(EncoderTask):
    """A source and its translation, compared with what the model writes.

    In YAML: `doc_to_text` and `doc_to_target`, the columns; `metadata.generation` with `max_new_tokens`
    (128) and `num_beams` (1: greedy).
    """

    request = "translate"
    head = "seq2seq"
    form = "text"
    known: ClassVar = {
        "bleu": Metric(functools.partial(_counts, "bleu"), "bleu"),
        "chrf": Metric(functools.partial(_counts, "chrf"), "chrf"),
    }

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(config)
        self._columns = [self._config.doc_to_text, self._config.doc_to_target]
        if not all(isinstance(column, str) and column for column in self._columns):
            raise self.mistake("it needs doc_to_text and doc_to_target, a column each", "doc_to_text")
        given = self.settings.get("generation") or {}
        for name, value in given.items():
            if name not in GENERATION or not isinstance(value, int) or value < 1:
                raise self.mistake(
                    f"metadata.generation takes {' and '.join(GENERATION)}, numbers above 0", "generation"
                )
        self.generation = tuple({**GENERATION, **given}.items())

    def columns(self) -> list[str]:
        return [str(column) for column in self._columns]

    def arguments(self, doc: Document) -> tuple[Any, ...]:
        return (doc[self.columns()[0]], self.generation)

    def text(self, doc: Document) -> tuple[str, ...]:
        return (doc[self.columns()[0]],)

    def doc_to_target(self, doc: Document) -> str:
        return doc[self.columns()[1]]
