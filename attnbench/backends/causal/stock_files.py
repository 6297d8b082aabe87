"""Read lm-eval's own tasks as its command line does, without what it would do twice or for nothing."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import random
import re
import tempfile
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lm_eval.api.task
import lm_eval.utils
import numpy as np
from jinja2 import TemplateError
from lm_eval.api.registry import metric_registry
from lm_eval.api.task import ConfigurableTask, TaskConfig
from lm_eval.tasks import TaskManager

from attnbench.backends.causal import columns
from attnbench.backends.data import offline_if_unreachable
from attnbench.errors import UserError, unknown
from attnbench.inputs import tasks
from attnbench.inputs.task_yaml import quoted

Document = dict[str, Any]
SEEDS = (0, 1234)  # of Python's and numpy's draws, by which some tasks make their data: lm-eval's own


@contextlib.contextmanager
def building(shots: int | None = None) -> Iterator[None]:
    """Spare lm-eval compiling templates for every document and reading examples that no prompt shows."""
    examples, shown = ConfigurableTask.fewshot_docs, lm_eval.api.task.tqdm
    environment = lm_eval.utils.env
    environment.from_string = functools.cache(environment.from_string)
    lm_eval.api.task.tqdm = lambda items, **options: items
    ConfigurableTask.fewshot_docs = lambda task: examples(task) if task.config.num_fewshot or shots else None
    try:
        yield
    finally:
        del environment.from_string
        lm_eval.api.task.tqdm, ConfigurableTask.fewshot_docs = shown, examples


def load(file: tasks.TaskFile, tokenizer: Any) -> dict[str, Any]:
    """Load a task, or every task of a group, by lm-eval. Raises UserError for a metric that is none."""
    if tasks.is_own(file.path):
        return {file.name: columns.task(file)}
    path = Path(file.path)
    content = tasks.read_yaml(path)
    with _told(file, tokenizer) as told:
        if "group" in content:
            manager = TaskManager(include_path=str(path.parent), include_defaults=False, metadata=told)
            if not _complete(manager, path):
                manager = TaskManager(metadata=told)
            return _untold(dict(manager.load([file.plain])["tasks"]), told)
        _check_metrics(file, content)
        found = TaskManager(include_defaults=False, metadata=told).load([file.path])["tasks"]
    if file.length is not None:
        (task,) = found.values()
        task.set_config("task", file.plain)
        found = {file.plain: task}
    return _untold(dict(found), told)


@contextlib.contextmanager
def _told(file: tasks.TaskFile, tokenizer: Any) -> Iterator[dict[str, Any]]:
    """Say to a task that generates its data what lm-eval's command line does: the tokenizer, the length."""
    length = {} if file.length is None else {"length": file.length}
    beside = (each.read_text("utf-8", "replace") for each in Path(file.path).parent.glob("*.yaml"))
    if not any("custom_dataset" in text or "include:" in text for text in beside):
        yield length
        return
    before = random.getstate(), np.random.get_state()
    random.seed(SEEDS[0])
    np.random.seed(SEEDS[1])
    try:
        with tempfile.TemporaryDirectory() as folder:
            tokenizer.save_pretrained(folder)
            yield length | {"tokenizer": folder}
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])


def _untold(found: dict[str, Any], told: dict[str, Any]) -> dict[str, Any]:
    """Leave a folder of this machine out of what identifies tasks."""
    for task in found.values():
        if "tokenizer" in told:
            task.config.metadata.pop("tokenizer")
    return found


def _check_metrics(file: tasks.TaskFile, content: dict[str, Any]) -> None:
    if not {"process_results", "include"}.isdisjoint(content):  # then any name may be a metric's
        return
    for entry in content.get("metric_list") or []:
        name = entry["metric"]
        # one with a dot is a function of the user's
        if name not in metric_registry and "." not in name and not entry.get("hf_evaluate"):
            known = f"lm-eval has {', '.join(sorted(metric_registry.keys()))}."
            raise UserError(f"{tasks.place(file.path, 'metric_list')}: {unknown('metric', name, [], known)}")


@contextlib.contextmanager
def reading(file: tasks.TaskFile) -> Iterator[None]:
    """Say in one line what lm-eval cannot make of a task's YAML, with the line of its key, or of its data."""
    import datasets

    try:
        with offline_if_unreachable():
            yield
    except (ConnectionError, FileNotFoundError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        key = quoted(file.path, reason)
        if key in ("include", "dataset_kwargs"):
            raise _mistake(file, key, reason) from error
        where = f" ({file.dataset})" if file.dataset else ""
        raise UserError(
            f"the data of task '{file.name}'{where} is neither in the cache nor to be had: "
            f"{reason}. Set HF_HOME to a home that has it (with HF_HUB_OFFLINE=1), or use pocket-agreement."
        ) from error
    except ImportError as error:  # of what a task's own code needs
        said = " ".join(str(error).split())
        raise UserError(f"task '{file.name}' cannot be loaded: {said}") from error
    except (
        TypeError, ValueError, LookupError, SyntaxError, OSError, TemplateError,
        datasets.exceptions.DatasetsError,
    ) as error:  # fmt: skip
        said = " ".join(str(error).split()) or type(error).__name__
        strange = re.search(r"TaskConfig.* unexpected keyword argument '(\w+)'", said)
        if strange:
            known = sorted(field.name for field in dataclasses.fields(TaskConfig))
            hint = f"Known: {', '.join(known)}."
            raise UserError(
                f"{tasks.place(file.path, strange[1])}: {unknown('key', strange[1], known, hint)}"
            ) from error
        frames = traceback.extract_tb(error.__traceback__)
        key = next((frame.name for frame in frames if frame.name.startswith("doc_to_")), None)
        theirs = "lm_eval" in Path(frames[-1].filename).parts
        if theirs and isinstance(error, IndexError):  # of the first document's choices
            key, said = "doc_to_target", "the first document's target is none of its choices, or one is empty"
        if key is None and not theirs and isinstance(error, TypeError):
            raise
        raise _mistake(file, key or quoted(file.path, said), said) from error


def _mistake(file: tasks.TaskFile, key: str | None, said: str) -> UserError:
    return UserError(f"{tasks.place(file.path, key or 'task')}: task '{file.name}' cannot be loaded: {said}")


def check_targets(file: tasks.TaskFile, task: Any) -> None:
    """Raise UserError where a choice's target is none: lm-eval takes every answer for wrong there."""
    if task.OUTPUT_TYPE != "multiple_choice" or task.config.process_results is not None:
        return
    for instance in task.instances:
        doc = instance.doc
        choices = task.doc_to_choice(doc)
        target = task.doc_to_text(doc) if task.multiple_input else task.doc_to_target(doc)
        numbers = (
            target if isinstance(target, list) else [choices.index(target) if target in choices else target]
        )
        if not any(number in range(len(choices)) for number in numbers):
            raise UserError(
                f"{tasks.place(file.path, 'doc_to_target')}: task '{task.task_name}': document "
                f"{instance.doc_id} has the target {target!r}, which is neither one of its {len(choices)} "
                "choices nor the number of one, from 0."
            )


def _complete(manager: TaskManager, path: Path) -> bool:
    named = tasks.read_yaml(path).get("task")
    return isinstance(named, list) and all(
        isinstance(name, str) and name in manager.all_tasks for name in named
    )


def keep_documents(task: Any) -> None:
    """Keep a task's documents and what its templates make of them: lm-eval renders all again at each turn."""
    found = task.eval_docs
    docs = found.to_list() if hasattr(found, "to_list") else list(found)
    own = {id(doc) for doc in docs}
    task.test_docs = task.validation_docs = lambda: docs
    for name in ("doc_to_text", "doc_to_target", "doc_to_choice"):
        setattr(task, name, _remembering(getattr(task, name), own))


def _remembering(function: Callable[..., Any], own: set[int]) -> Callable[..., Any]:
    found: dict[int, Any] = {}

    @functools.wraps(function)
    def remembered(doc: Document, *others: Any, **options: Any) -> Any:
        key = id(doc)
        if key not in own or any(value is not None for value in (*others, *options.values())):
            return function(doc, *others, **options)
        if key not in found:
            found[key] = function(doc)
        return found[key]

    return remembered
