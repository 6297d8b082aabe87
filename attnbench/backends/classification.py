"""Tasks for a classifier's head: a label, or with one output a number, for a text or a pair of texts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from attnbench.backends import own_data, several
from attnbench.backends.encoders.inputs import Row
from attnbench.backends.encoders.tasks import Document, EncoderTask, Learner, Metric
from attnbench.errors import UserError
from attnbench.inputs import tasks

# what a config's problem_type says of a head
MULTI, NUMBERS = "multi_label_classification", "regression"


def counts(label: int, logits: np.ndarray) -> tuple[float, ...]:
    """Return (tp, fp, fn, tn) of one document; label 1 is the positive one."""
    said = int(np.argmax(logits))
    return tuple(float(pair == (said, label)) for pair in ((1, 1), (1, 0), (0, 1), (0, 0)))


def decisions(labels: Sequence[int], logits: np.ndarray) -> tuple[float, ...]:
    """Return (tp, fp, fn, tn) of one document's labels, each a decision of its own."""
    said, meant = logits > 0, np.array(labels) > 0
    return tuple(float(np.sum(pair)) for pair in (said & meant, said & ~meant, ~said & meant, ~said & ~meant))


class Texts(EncoderTask):
    """A text, or a pair of texts, and a target.

    In YAML: `doc_to_text`, a column or a list of two; `doc_to_target`, the target's column;
    `metadata.max_seq_length`, in tokens, where longer texts are to be cut.
    """

    head = "classification"

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(config)
        text = self._config.doc_to_text
        self.texts: list[str] = list(text) if isinstance(text, list) else [text]
        if len(self.texts) not in (1, 2) or not all(isinstance(each, str) and each for each in self.texts):
            raise self.mistake("it needs doc_to_text, one or two columns", "doc_to_text")
        self.longest: int | None = self.settings.get("max_seq_length")

    def columns(self) -> list[str]:
        return [*self.texts, str(self._config.doc_to_target)]

    def documents(self, split: str, source: tuple[str, str | None] | None = None) -> list[Document]:
        """Load a split of the task's data, or of another dataset, or a file of the user's."""
        if source is None or not tasks.is_own(source[0]):
            return super().documents(split, source)
        return [self.document(item) for item in own_data.read(source[0]) if split in ("", item.split)]

    def document(self, item: own_data.Item) -> Document:
        """Make a document of a row of the user's. Raises UserError with its line."""
        texts = [item.text] if item.text2 is None else [item.text, item.text2]
        if len(texts) != len(self.texts):
            raise UserError(
                f"{item.place}: {len(texts)} texts, task '{self.task_name}' has {len(self.texts)}"
            )
        return {**dict(zip(self.texts, texts, strict=True)), str(self._config.doc_to_target): self.own(item)}

    def own(self, item: own_data.Item) -> Any:
        """Return the target of a row of the user's. Raises UserError with its line."""
        raise NotImplementedError

    def text(self, doc: Document) -> tuple[str, ...]:
        return tuple(doc[column] for column in self.texts)

    def arguments(self, doc: Document) -> tuple[Any, ...]:
        first, *rest = self.text(doc)
        return (first, rest[0] if rest else None, self._asked(), self.longest)

    def _asked(self) -> tuple[str, ...]:
        return ()


class Classify(Texts):
    """A text, or a pair of texts, and a label.

    In YAML, beside what Texts takes: `doc_to_target`, the column of the label (a number or a name);
    `doc_to_choice`, the labels' names in the order of their numbers.
    """

    request = "classify"
    form = "classes"
    known: ClassVar = {
        "acc": Metric(lambda label, logits: float(int(np.argmax(logits)) == label)),
        "mcc": Metric(counts, "mcc"),
        "f1": Metric(counts, "f1"),
    }

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(config)
        choices = self._config.doc_to_choice or ()
        if any(isinstance(label, bool) for label in choices):
            raise self.mistake("quote its labels, YAML reads yes and no as truth values", "doc_to_choice")
        self.labels = tuple(map(str, choices))
        if len(self.labels) < 2:
            raise self.mistake("it needs doc_to_choice, the labels' names", "doc_to_choice")
        if len(self.labels) > 2 and not {"mcc", "f1"}.isdisjoint(self.metrics):
            raise self.mistake(f"mcc and f1 are for two labels, not {len(self.labels)}", "metric_list")

    def _asked(self) -> tuple[str, ...]:
        return self.labels

    def own(self, item: own_data.Item) -> int:
        return own_data.number_of(item, self.labels)

    def doc_to_target(self, doc: Document) -> int:
        """Return the label's number. Raises UserError for a label that the task does not have."""
        label = doc[str(self._config.doc_to_target)]
        if label in self.labels:
            return self.labels.index(label)
        if not isinstance(label, int) or isinstance(label, bool) or not 0 <= label < len(self.labels):
            raise UserError(
                f"task '{self.task_name}' has labels {', '.join(self.labels)}; a document has {label!r}."
            )
        return label

    def examples(
        self, doc: Document, rows: Sequence[Row], learner: Learner
    ) -> list[tuple[Row, dict[str, Any]]]:
        return [(rows[0], {"labels": learner.order[self.doc_to_target(doc)]})]


class Regress(Texts):
    """A text, or a pair of texts, and a number: compared by correlation, so its scale does not matter."""

    request = "regress"
    known: ClassVar = {
        "pearson": Metric(lambda number, output: (float(output[0]), number), "pearson"),
        "spearman": Metric(lambda number, output: (float(output[0]), number), "spearman"),
    }

    def own(self, item: own_data.Item) -> float:
        return own_data.value_of(item)

    def doc_to_target(self, doc: Document) -> float:
        """Return the number. Raises UserError for what is none."""
        number = doc[str(self._config.doc_to_target)]
        if isinstance(number, bool) or not isinstance(number, (int, float)) or not math.isfinite(number):
            raise UserError(f"task '{self.task_name}' needs numbers; a document has {number!r}.")
        return float(number)

    def examples(
        self, doc: Document, rows: Sequence[Row], learner: Learner
    ) -> list[tuple[Row, dict[str, Any]]]:
        return [(rows[0], {"labels": self.doc_to_target(doc)})]


class MultiLabel(Texts):
    """A text, or a pair of texts, and any number of labels, each said where its logit is above 0.

    acc: all labels of a text right; f1: of all labels of all texts, 2 tp / (2 tp + fp + fn).
    """

    request = "classify"
    form = "labels"
    known: ClassVar = {
        "acc": Metric(lambda labels, logits: float(np.array_equal(logits > 0, np.array(labels) > 0))),
        "f1": Metric(decisions, "f1"),
    }

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(config)
        self.labels = tuple(map(str, self._config.doc_to_choice or ()))

    def _asked(self) -> tuple[str, ...]:
        return self.labels

    def documents(self, split: str, source: tuple[str, str | None] | None = None) -> list[Document]:
        """Load a split of the user's file, or another file of the user's."""
        if source is None or not tasks.is_own(source[0]):
            return super().documents(split, source)
        items = own_data.read(source[0], self.labels)
        return [self.document(item) for item in items if split in ("", item.split)]

    def own(self, item: own_data.Item) -> list[int] | None:
        return several.several_of(item, self.labels)

    def doc_to_target(self, doc: Document) -> list[int]:
        return list(doc[str(self._config.doc_to_target)])

    def examples(
        self, doc: Document, rows: Sequence[Row], learner: Learner
    ) -> list[tuple[Row, dict[str, Any]]]:
        labels = [0.0] * len(self.labels)
        for place, label in zip(learner.order, self.doc_to_target(doc), strict=True):
            labels[place] = float(label)
        return [(rows[0], {"labels": labels})]


def own_task(name: str, path: str, config: Any) -> Texts:
    """Make a task of the user's file, for the labels of a model's config. Raises UserError with the line."""
    labels = [str(config.id2label[k]) for k in sorted(config.id2label)]
    many = getattr(config, "problem_type", None) == MULTI
    items = own_data.read(path, labels if many else (), labelled=True)
    if all(item.split == own_data.FITTED for item in items):
        raise UserError(
            f"{path}: every row's split is one to learn from: no row to evaluate. Write validation or test "
            "in the column split of some."
        )

    def documents(split: str) -> list[Document]:
        return [built.document(item) for item in items if item.split == split]

    kind: type[Texts] = MultiLabel if many else Classify if len(labels) > 1 else Regress
    content = own_data.definition(name, items, labels)
    if many:
        content |= {"doc_to_choice": labels, "metric_list": [{"metric": metric} for metric in kind.known]}
    built = kind({**content, "custom_dataset": documents})
    built.settings["places"] = [item.place for item in items if item.split == own_data.EVALUATED]
    return built
