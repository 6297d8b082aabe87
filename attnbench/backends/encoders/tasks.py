"""What the lm-eval tasks for encoders share, named from YAML by `class: !function`."""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields
from types import ModuleType
from typing import Any, ClassVar, NamedTuple

import numpy as np
from lm_eval.api.instance import Instance
from lm_eval.api.registry import get_aggregation
from lm_eval.api.task import Task, TaskConfig
from lm_eval.filters import build_filter_ensemble

from attnbench.backends import data
from attnbench.errors import NotApplicable, TaskMistake, UserError
from attnbench.inputs import tasks
from attnbench.statistics import aggregates

Document = dict[str, Any]


class Metric(NamedTuple):
    """A metric: its statistic of (target, answer), a number or the columns that `aggregates` names for it."""

    statistic: Callable[..., Any]
    aggregate: str = "mean"
    higher_is_better: bool = True


class Learner(NamedTuple):
    """What a document becomes an example with: the model's column of each label, its mask token, a draw."""

    order: Sequence[int]
    mask: int | None
    rng: random.Random


class EncoderTask(Task):
    """Data by split, requests built once, the statistic of every document kept.

    In YAML: `dataset_path` (and `dataset_name`, `dataset_kwargs`), or `custom_dataset`, a function of
    `split` and `dataset_kwargs` that returns documents; `process_docs`, from documents to documents;
    `validation_split`; `metric_list`; `metadata.calibration`, the split to fit methods on;
    `metadata.configurations`, of the dataset, measured one after the other, each a task of its own too.
    """

    VERSION = 1
    OUTPUT_TYPE = "multiple_choice"  # lm-eval knows four types; requests are dispatched by `request`
    request: ClassVar[str]  # the verb of the model
    head: ClassVar[str]
    form: ClassVar[str] = "number"  # what an answer is: see fidelity.Form
    known: ClassVar[dict[str, Metric]]
    code: ClassVar[tuple[ModuleType, ...]] = ()  # modules whose code is part of the definition

    def __init__(self, config: dict[str, Any]) -> None:
        # lm-eval's Task.__init__ downloads before it has a configuration
        names = {field.name for field in fields(TaskConfig)}
        content = {key: value for key, value in config.items() if key in names}
        self._config = TaskConfig(**{"num_fewshot": 0, **content, "output_type": self.OUTPUT_TYPE})
        for key in sorted(set(config) - names - {"class"}):
            raise self.mistake(f"unknown key '{key}'. Known: {', '.join(sorted(names))}.", key)
        self._filters = [build_filter_ensemble("none", [["take_first", None]])]
        self._instances: list[Instance] | None = None
        self._built: tuple[Any, ...] | None = None
        self.settings: dict[str, Any] = self._config.metadata or {}
        self.items: dict[str, list[Any]] = {}  # metric -> statistics of the last evaluation, by document
        listed = self._config.metric_list or []
        if not listed:
            raise self.mistake("no metric_list")
        self.metrics: dict[str, Metric] = {}
        for entry in listed:
            name = entry["metric"]
            if name not in self.known:
                raise self.mistake(
                    f"{type(self).__name__} has no metric '{name}'. It has {', '.join(self.known)}.",
                    "metric_list",
                )
            self.metrics[name] = self.known[name]
            if entry.get("aggregation", self.known[name].aggregate) != self.known[name].aggregate:
                raise self.mistake(
                    f"the aggregation of '{name}' has to be {self.known[name].aggregate}", "metric_list"
                )

    def mistake(self, text: str, key: str = "task") -> UserError:
        """Return an error of the task's YAML, at one of its keys."""
        return TaskMistake(f"task '{self.task_name}': {text}", key)

    # what a kind of task says

    def columns(self) -> list[str]:
        """List the columns that a document needs."""
        raise NotImplementedError

    def arguments(self, doc: Document) -> tuple[Any, ...]:
        """Return the request's arguments, hashable."""
        raise NotImplementedError

    def text(self, doc: Document) -> tuple[str, ...]:
        """Return what makes two documents the same: calibration and evaluation share none."""
        raise NotImplementedError

    def answer(self, doc: Document, output: Any) -> Any:
        """Make of the model's output what the metrics compare with the target."""
        return output

    def examples(
        self, doc: Document, rows: Sequence[Any], learner: Learner
    ) -> list[tuple[Any, dict[str, Any]]]:
        """Return a document's model inputs to learn from, each with its labels by the model's keyword.

        Labels by token are an array, -100 where there is none.
        """
        raise NotImplementedError

    # data

    def documents(self, split: str, source: tuple[str, str | None] | None = None) -> list[Document]:
        """Load a split of the task's data, or of another dataset with the same columns. Raises UserError."""
        config = self._config
        if source is None and config.custom_dataset:
            docs = list(config.custom_dataset(split=split, **(config.dataset_kwargs or {})))
            data.check_columns(self.task_name, self.columns(), list(docs[0]) if docs else self.columns())
        else:
            path, name = source or (config.dataset_path, config.dataset_name)
            if source and tasks.is_own(source[0]):
                raise UserError(
                    f"'{source[0]}' holds labels, task '{self.task_name}' does not: give DATASET:SPLIT"
                )
            options = {} if source else config.dataset_kwargs or {}
            if not path:
                raise self.mistake("neither a dataset_path nor a custom_dataset")
            names = [name] if source else self.settings.get("configurations") or [name]
            docs = [doc for each in names for doc in data.load(path, each, split, self.columns(), **options)]
        return list(config.process_docs(docs)) if config.process_docs else docs

    def narrow(self, name: str, configuration: str) -> None:
        """Keep one of the dataset's configurations, under a name of its own."""
        self._config.task = name
        self.settings = {**self.settings, "configurations": [configuration]}

    def calibration_split(self) -> tuple[str, int]:
        """Return the split that methods are fitted on and how many samples of it. Raises NotApplicable."""
        named = self.settings.get("calibration")
        if not named:
            raise NotApplicable(
                f"task '{self.task_name}' names no calibration split: give --calibration DATASET:SPLIT, "
                "or FILE.csv to a classifier"
            )
        return named["split"], int(named["samples"])

    @functools.cached_property
    def _evaluated(self) -> list[Document]:
        split = self._config.test_split or self._config.validation_split
        if not split:
            raise self.mistake("no validation_split")
        docs = self.documents(split)
        if not docs:
            raise UserError(f"task '{self.task_name}': split '{split}' holds no document.")
        for number, doc in enumerate(docs):
            self.check(doc, number)
        return docs

    def check(self, doc: Document, number: int) -> None:
        """Raise UserError where a text is none or cannot be encoded; an empty one is a text."""
        for text in self.text(doc):
            if not isinstance(text, str):
                raise UserError(f"task '{self.task_name}': document {number} has {text!r} for a text.")
            if not text.isascii():
                try:
                    text.encode()
                except UnicodeEncodeError as error:
                    raise UserError(
                        f"task '{self.task_name}': document {number} has half a character (a lone surrogate) "
                        f"at {error.start}: {text[:40]!r}."
                    ) from None

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
        return self.text(doc)[0]

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

    def process_results(self, doc: Document, results: list[Any]) -> dict[str, Any]:
        target, answer = self.doc_to_target(doc), self.answer(doc, results[0])
        found = {name: metric.statistic(target, answer) for name, metric in self.metrics.items()}
        for name, value in found.items():
            self.items[name].append(value)
        return found

    def aggregation(self) -> dict[str, Callable[[list[Any]], float]]:
        # lm-eval's own mean: it finds the standard error by it
        return {
            name: get_aggregation("mean")
            if metric.aggregate == "mean"
            else functools.partial(_aggregate, metric.aggregate)
            for name, metric in self.metrics.items()
        }

    def higher_is_better(self) -> dict[str, bool]:
        return {name: metric.higher_is_better for name, metric in self.metrics.items()}

    def dump_config(self) -> dict[str, Any]:
        return {
            key: value
            for key, value in vars(self._config).items()
            if value is not None and not callable(value) and key != "fewshot_config"
        }


def _aggregate(name: str, items: list[Any]) -> float:
    return aggregates.aggregate(name, np.array(items, dtype=np.float64))
