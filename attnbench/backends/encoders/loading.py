"""A task of ours read from its YAML, with the place of a mistake in it and the hash of what defines it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from lm_eval.tasks import TaskManager

from attnbench.backends.encoders.tasks import EncoderTask
from attnbench.backends.measurement import code_of, hash_of
from attnbench.errors import TaskMistake, UserError
from attnbench.inputs import tasks
from attnbench.inputs.task_yaml import quoted

NOT_HASHED = ("description", "licence", "samples")  # of a YAML's metadata: what changes no number


@contextlib.contextmanager
def placed(file: tasks.TaskFile) -> Iterator[None]:
    """Name a task's file and the line of a mistake in it."""
    try:
        yield
    except TaskMistake as mistake:
        raise UserError(f"{tasks.place(file.path, mistake.key)}: {mistake}") from mistake


def built(file: tasks.TaskFile) -> EncoderTask:
    """Load a task from its YAML. Raises UserError where it cannot be imported or is none of ours."""
    try:
        (found,) = TaskManager(include_defaults=False).load([file.path])["tasks"].values()
    except (ImportError, AttributeError, SyntaxError, OSError) as error:
        said = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{tasks.place(file.path, quoted(file.path, said) or 'class')}: {said}") from error
    if not isinstance(found, EncoderTask):
        raise UserError(
            f"{tasks.place(file.path, 'class')}: task '{file.name}' is not a task for encoders: its class is "
            f"{type(found).__name__}. Use {' or '.join(tasks.HEADS)}."
        )
    return found


def definition(file: tasks.TaskFile, task: EncoderTask) -> str:
    content = {} if tasks.is_own(file.path) else tasks.read_yaml(Path(file.path))
    for key in NOT_HASHED:
        (content.get("metadata") or {}).pop(key, None)
    classes = [cls for cls in type(task).__mro__ if issubclass(cls, EncoderTask)]
    code = [code_of(part) for part in (*classes, *task.code)]
    return hash_of([content, code, *filter(None, [file.configuration])])
