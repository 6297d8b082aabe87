"""Read lm-eval's own tasks as its command line does, without what it would do twice or for nothing."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lm_eval.api.task
import lm_eval.utils
from lm_eval.api.task import ConfigurableTask
from lm_eval.tasks import TaskManager

from attnbench import tasks
from attnbench.backends.data import offline_if_unreachable
from attnbench.errors import UserError

Document = dict[str, Any]


@contextlib.contextmanager
def building() -> Iterator[None]:
    """Spare lm-eval compiling templates for every document and reading examples that no prompt shows."""
    examples, shown = ConfigurableTask.fewshot_docs, lm_eval.api.task.tqdm
    environment = lm_eval.utils.env
    environment.from_string = functools.cache(environment.from_string)
    lm_eval.api.task.tqdm = lambda items, **options: items
    ConfigurableTask.fewshot_docs = lambda task: examples(task) if task.config.num_fewshot else None
    try:
        yield
    finally:
        del environment.from_string
        lm_eval.api.task.tqdm, ConfigurableTask.fewshot_docs = shown, examples


def load(file: tasks.TaskFile) -> dict[str, Any]:
    """Load a task, or every task of a group, by lm-eval. Raises UserError where the data is not to be had."""
    path = Path(file.path)
    with _reading(file):
        if "group" in tasks.read_yaml(path):
            manager = TaskManager(include_path=str(path.parent), include_defaults=False)
            if not _complete(manager, path):
                manager = TaskManager()
            return dict(manager.load([file.name])["tasks"])
        return dict(TaskManager(include_defaults=False).load([file.path])["tasks"])


@contextlib.contextmanager
def _reading(file: tasks.TaskFile) -> Iterator[None]:
    import datasets

    try:
        with offline_if_unreachable():
            yield
    except (ConnectionError, FileNotFoundError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        where = f" ({file.dataset})" if file.dataset else ""
        raise UserError(
            f"the data of task '{file.name}'{where} is neither in the cache nor to be had: "
            f"{reason}. Set HF_HOME to a home that has it (with HF_HUB_OFFLINE=1), or use pocket-agreement."
        ) from error
    except (ValueError, KeyError, OSError, datasets.exceptions.DatasetsError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"task '{file.name}' ({file.path}) cannot be loaded: {reason}") from error


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
