"""lm-eval tasks for encoders, named from YAML by `class: !function`: one request and one score a document."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from dataclasses import fields
from types import ModuleType
from typing import Any, ClassVar

import numpy as np
from lm_eval.api.instance import Instance
from lm_eval.api.registry import get_aggregation
from lm_eval.api.task import Task, TaskConfig
from lm_eval.filters import build_filter_ensemble

from attnbench.backends import data, squad
from attnbench.errors import NotApplicable, UserError

Document = dict[str, Any]


class EncoderTask(Task):
    """What classification and span tasks share: data by split, requests built once, per-document scores kept.

    In YAML: `dataset_path` (and `dataset_name`, `dataset_kwargs`), or `custom_dataset`, a function of
    `split` and `dataset_kwargs` that returns documents; `validation_split`; `metric_list`;
    `metadata.calibration`, the split to fit methods on.
    """

    VERSION = 1
    OUTPUT_TYPE = "multiple_choice"  # lm-eval knows four types; requests are dispatched by `request`
    request: ClassVar[str]  # the verb of the model
    head: ClassVar[str]
    scores: ClassVar[dict[str, Callable[..., float]]]
    code: ClassVar[tuple[ModuleType, ...]] = ()  # modules whose code is part of the definition

    def __init__(self, config: dict[str, Any]) -> None:
        # lm-eval's Task.__init__ downloads before it has a configuration
        known = {field.name for field in fields(TaskConfig)}
        strange = sorted(set(config) - known - {"class"})
        if strange:
            raise UserError(
                f"task '{config.get('task')}' has an unknown key '{strange[0]}' in its YAML. "
                f"Known: {', '.join(sorted(known))}."
            )
        content = {key: value for key, value in config.items() if key in known}
        self._config = TaskConfig(**{"num_fewshot": 0, **content, "output_type": self.OUTPUT_TYPE})
        self._filters = [build_filter_ensemble("none", [["take_first", None]])]
        self._instances: list[Instance] | None = None
        self._built: tuple[Any, ...] | None = None
        self.settings: dict[str, Any] = self._config.metadata or {}
        self.items: dict[str, list[float]] = {}  # metric -> scores of the last evaluation, by document
        self.metrics: dict[str, dict[str, Any]] = {
            entry["metric"]: {"aggregation": "mean", "higher_is_better": True, **entry}
            for entry in self._config.metric_list or []
        }
        if not self.metrics:
            raise UserError(f"task '{self.task_name}' has no metric_list in its YAML.")
        for metric in self.metrics:
            if metric not in self.scores:
                raise UserError(
                    f"task '{self.task_name}': {type(self).__name__} has no metric '{metric}'. "
                    f"It has {', '.join(self.scores)}."
                )
            if self.metrics[metric]["aggregation"] != "mean":
                raise UserError(f"task '{self.task_name}': the aggregation of '{metric}' has to be mean.")

    # what a kind of task says

    def columns(self) -> list[str]:
        """List the columns that a document needs."""
        raise NotImplementedError

    def arguments(self, doc: Document) -> tuple[Any, ...]:
        """Return the request's arguments, hashable; the first one is a text."""
        raise NotImplementedError

    def text(self, doc: Document) -> tuple[str, ...]:
        """Return what makes two documents the same: calibration and evaluation share none."""
        raise NotImplementedError

    def score(self, doc: Document, answer: Any) -> dict[str, float]:
        """Return each metric of the model's answer to a document."""
        raise NotImplementedError

    # data

    def documents(self, split: str, source: tuple[str, str | None] | None = None) -> list[Document]:
        """Load a split of the task's data, or of another dataset with the same columns. Raises UserError."""
        config = self._config
        if source is None and config.custom_dataset:
            docs = list(config.custom_dataset(split=split, **(config.dataset_kwargs or {})))
            data.check_columns(self.task_name, self.columns(), list(docs[0]) if docs else [])
            return docs
        path, name = source or (config.dataset_path, config.dataset_name)
        options = {} if source else config.dataset_kwargs or {}
        if not path:
            raise UserError(
                f"task '{self.task_name}' names neither a dataset_path nor a custom_dataset in its YAML."
            )
        return data.load(path, name, split, self.columns(), **options)

    def calibration_split(self) -> tuple[str, int]:
        """Return the split that methods are fitted on and how many samples of it. Raises NotApplicable."""
        named = self.settings.get("calibration")
        if not named:
            raise NotApplicable(
                f"task '{self.task_name}' names no calibration split: give --calibration DATASET:SPLIT"
            )
        return named["split"], int(named["samples"])

    @functools.cached_property
    def _evaluated(self) -> list[Document]:
        split = self._config.test_split or self._config.validation_split
        if not split:
            raise UserError(f"task '{self.task_name}' names no validation_split in its YAML.")
        return self.documents(split)

    def has_training_docs(self) -> bool:
        return False

    def has_validation_docs(self) -> bool:
        return not self.has_test_docs()

    def has_test_docs(self) -> bool:
        return self._config.test_split is not None

    def validation_docs(self) -> Iterable[Document]:
        return self._evaluated

    def test_docs(self) -> Iterable[Document]:
        return self._evaluated

    def doc_to_text(self, doc: Document) -> str:
        return self.arguments(doc)[0]

    # requests and scores

    def build_all_requests(
        self,
        *,
        limit: int | None = None,
        samples: Any = None,
        rank: int = 0,
        world_size: int = 1,
        **ignored: Any,
    ) -> None:
        """Build one request a document, once: the same documents again only forget their responses."""
        wanted = (limit, tuple(samples or ()), rank, world_size)
        if self._instances is None or self._built != wanted:
            chosen = self.doc_iterator(rank=rank, limit=limit, samples=samples, world_size=world_size)
            self._instances = [
                self.construct_requests(doc, None, metadata=(self.task_name, doc_id, 1))
                for doc_id, doc in chosen
            ]
            self._built = wanted
        for instance in self._instances:
            instance.resps, instance.filtered_resps = [], {}
        self.items = {metric: [] for metric in self.metrics}

    def construct_requests(self, doc: Document, ctx: Any, **kwargs: Any) -> Instance:
        return Instance(self.request, doc, self.arguments(doc), 0, kwargs["metadata"])

    def process_results(self, doc: Document, results: list[Any]) -> dict[str, float]:
        found = self.score(doc, results[0])
        for metric, value in found.items():
            self.items[metric].append(value)
        return found

    def aggregation(self) -> dict[str, Callable[[list[float]], float]]:
        # lm-eval's own functions: it finds the standard error by them
        return {metric: get_aggregation(entry["aggregation"]) for metric, entry in self.metrics.items()}

    def higher_is_better(self) -> dict[str, bool]:
        return {metric: bool(entry["higher_is_better"]) for metric, entry in self.metrics.items()}

    def dump_config(self) -> dict[str, Any]:
        return {
            key: value
            for key, value in vars(self._config).items()
            if value is not None and not callable(value) and key != "fewshot_config"
        }


class Classify(EncoderTask):
    """A text, or a pair of texts, and a label.

    In YAML: `doc_to_text`, a column or a list of two; `doc_to_target`, the column of the label (a number or a
    name); `doc_to_choice`, the labels' names in the order of their numbers.
    """

    request = "classify"
    head = "classification"
    scores: ClassVar = {"acc": lambda label, logits: float(int(np.argmax(logits)) == label)}

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(config)
        text = self._config.doc_to_text
        self.texts: list[str] = list(text) if isinstance(text, list) else [text]
        choices = self._config.doc_to_choice or ()
        if any(isinstance(label, bool) for label in choices):
            raise UserError(
                f"task '{self.task_name}': quote its labels, YAML reads yes and no as truth values."
            )
        self.labels = tuple(map(str, choices))
        if (
            len(self.texts) not in (1, 2)
            or not all(isinstance(column, str) for column in self.texts)
            or len(self.labels) < 2
        ):
            raise UserError(
                f"task '{self.task_name}' needs doc_to_text (one or two columns) and doc_to_choice (labels)."
            )

    def columns(self) -> list[str]:
        return [*self.texts, str(self._config.doc_to_target)]

    def arguments(self, doc: Document) -> tuple[Any, ...]:
        return (doc[self.texts[0]], doc[self.texts[1]] if len(self.texts) == 2 else None, self.labels)

    def text(self, doc: Document) -> tuple[str, ...]:
        return tuple(doc[column] for column in self.texts)

    def doc_to_target(self, doc: Document) -> int:
        """Return the label's number. Raises UserError for a label that the task does not have."""
        label = doc[str(self._config.doc_to_target)]
        if label in self.labels:
            return self.labels.index(label)
        if not isinstance(label, int) or not 0 <= label < len(self.labels):
            raise UserError(
                f"task '{self.task_name}' has labels {', '.join(self.labels)}; a document has {label!r}."
            )
        return label

    def score(self, doc: Document, answer: Any) -> dict[str, float]:
        label = self.doc_to_target(doc)
        return {metric: self.scores[metric](label, answer) for metric in self.metrics}


class Span(EncoderTask):
    """A question about a paragraph, answered by one of its spans; SQuAD's columns and metrics.

    In YAML: `metadata.window` with `max_seq_length`, `doc_stride` and `max_answer_length`, all in tokens.
    """

    request = "span"
    head = "qa"
    scores: ClassVar = {
        "em": lambda answer, golds: squad.best(squad.exact, answer, golds),
        "f1": lambda answer, golds: squad.best(squad.f1, answer, golds),
    }
    code = (squad,)

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(config)
        window = self.settings.get("window") or {}
        names = ("max_seq_length", "doc_stride", "max_answer_length")
        if any(not isinstance(window.get(name), int) for name in names):
            raise UserError(
                f"task '{self.task_name}' needs metadata.window with {', '.join(names)} in its YAML."
            )
        self.window = tuple(window[name] for name in names)

    def columns(self) -> list[str]:
        return ["question", "context", "answers"]

    def arguments(self, doc: Document) -> tuple[Any, ...]:
        return (doc["question"].lstrip(), doc["context"], self.window)

    def text(self, doc: Document) -> tuple[str, ...]:
        return (doc["question"], doc["context"])

    def doc_to_target(self, doc: Document) -> list[str]:
        return doc["answers"]["text"]

    def score(self, doc: Document, answer: Any) -> dict[str, float]:
        start, end, _ = answer
        text = doc["context"][int(start) : int(end)]
        return {metric: self.scores[metric](text, self.doc_to_target(doc)) for metric in self.metrics}
