"""Tasks for masked language models by pseudo-log-likelihood (Salazar et al. 2020): pairs and perplexity."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from attnbench.backends import data
from attnbench.backends.encoders.inputs import Row
from attnbench.backends.encoders.tasks import Document, EncoderTask, Learner, Metric
from attnbench.engine.learning.gates import IGNORED
from attnbench.errors import UserError
from attnbench.inputs import tasks

TEXT = "calibration text"  # the key of a text from another dataset
COLUMNS = ("text", "sentence", "page", "document")  # where such a dataset has it
WINDOW = (128, 1.0, 0)
SHARE = 0.15  # of a calibration text's tokens are masked at once, as in pretraining
WINDOWS = 8  # of a long calibration text


class Masked(EncoderTask):
    """What is scored by sum_i log p(w_i | the text with w_i masked)."""

    request = "pseudo_loglikelihood"
    head = "masked-lm"

    def documents(self, split: str, source: tuple[str, str | None] | None = None) -> list[Document]:
        """Load a split; another dataset may have a column of texts instead of the task's own columns."""
        if source is None or tasks.is_own(source[0]):
            return super().documents(split, source)

        def choose(names: Sequence[str]) -> list[str]:
            missing = set(self.columns()) - set(names)
            return [name for name in COLUMNS if missing and name in names][:1] or self.columns()

        docs = data.load(*source, split, choose)
        if docs and list(docs[0]) != self.columns():
            return [{TEXT: text} for doc in docs for text in doc.values() if text and text.strip()]
        return list(self._config.process_docs(docs)) if self._config.process_docs else docs

    def doc_to_target(self, doc: Document) -> None:
        return None

    def examples(
        self, doc: Document, rows: Sequence[Row], learner: Learner
    ) -> list[tuple[Row, dict[str, Any]]]:
        found = []
        for row in learner.rng.sample(list(rows), min(WINDOWS, len(rows))):
            inside = np.flatnonzero(row.ids if row.inside is None else row.inside)
            if not len(inside):
                continue
            count = max(1, round(SHARE * len(inside)))
            places = np.array(learner.rng.sample(inside.tolist(), count))
            ids, labels = row.ids.copy(), np.full(len(row.ids), IGNORED)
            labels[places] = ids[places]
            ids[places] = learner.mask
            found.append((row._replace(ids=ids), {"labels": labels}))
        return found


class MinimalPairs(Masked):
    """Two sentences, one acceptable: right where it is the more likely one. A tie is wrong.

    In YAML: `doc_to_text`, the columns of the acceptable sentence and of the other.
    """

    form = "pairs"
    known: ClassVar = {"acc": Metric(lambda _, output: float(output[0] > output[2]))}

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(config)
        pair = self._config.doc_to_text
        if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(each, str) for each in pair):
            raise self.mistake("it needs doc_to_text, the columns of the two sentences", "doc_to_text")
        self.pair: list[str] = pair

    def columns(self) -> list[str]:
        return self.pair

    def text(self, doc: Document) -> tuple[str, ...]:
        return (doc[TEXT],) if TEXT in doc else tuple(doc[column] for column in self.pair)

    def arguments(self, doc: Document) -> tuple[Any, ...]:
        return (self.text(doc), WINDOW if TEXT in doc else None)

    def check(self, doc: Document, number: int) -> None:
        super().check(doc, number)
        if not all(text.strip() for text in self.text(doc)):
            raise UserError(f"task '{self.task_name}': document {number} has an empty sentence.")

    def examples(
        self, doc: Document, rows: Sequence[Row], learner: Learner
    ) -> list[tuple[Row, dict[str, Any]]]:
        return super().examples(doc, rows if TEXT in doc else rows[:1], learner)


class PseudoPerplexity(Masked):
    """exp of the mean of -log p(w_i | the window with w_i masked), over sampled tokens.

    In YAML: `doc_to_text`, a column; `metadata.window` with `max_seq_length`, the tokens of a window, and
    `share`, of its tokens drawn by `seed`. It is by token: no comparison between tokenizers.
    """

    form = "rolling"
    known: ClassVar = {
        "pseudo_perplexity": Metric(lambda _, output: tuple(map(float, output)), "perplexity", False)
    }

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(config)
        window = self.settings.get("window") or {}
        size, share = window.get("max_seq_length"), window.get("share", 1.0)
        if not isinstance(self._config.doc_to_text, str) or not isinstance(size, int) or not 0 < share <= 1:
            raise self.mistake(
                "it needs doc_to_text, a column, and metadata.window with max_seq_length and share",
                "metadata",
            )
        self.window = (size, float(share), int(window.get("seed", 0)))

    def columns(self) -> list[str]:
        return [str(self._config.doc_to_text)]

    def text(self, doc: Document) -> tuple[str, ...]:
        return (doc[TEXT] if TEXT in doc else doc[str(self._config.doc_to_text)],)

    def arguments(self, doc: Document) -> tuple[Any, ...]:
        return (self.text(doc), self.window)


def wikitext(docs: Sequence[Document]) -> list[Document]:
    """Undo WikiText's tokenisation of pages, by lm-eval's own rules."""
    from lm_eval.tasks.wikitext.preprocess_wikitext import wikitext_detokenizer

    return [{**doc, "page": wikitext_detokenizer(doc)} for doc in docs]
