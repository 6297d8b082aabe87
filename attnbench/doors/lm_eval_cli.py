"""lm-eval's own command line with attnbench's model and tasks known to it: `attnbench lm-eval run …`."""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from attnbench.doors.frameworks import handed_over
from attnbench.errors import NotApplicable, UserError, near_file
from attnbench.inputs import tasks
from attnbench.inputs.files import expanded

NAME = "attnbench"
TARGET = "attnbench.doors.lm_eval_model:AttnbenchLM"
BATCH_SIZE = "32"


def register() -> None:
    """Add `attnbench` to lm-eval's models; a second call changes nothing."""
    from lm_eval.api.registry import model_registry

    if NAME not in model_registry:
        model_registry.register(NAME, target=TARGET)


def main(argv: Sequence[str]) -> int:
    """Run lm-eval's command line with our model and tasks known to it, and return its exit status.

    Only where the model is `attnbench` is anything different: a task is what `attnbench run` takes for this
    kind of model by its name, ours or lm-eval's own, and the batch size is ours where none is given.
    """
    import lm_eval.tasks
    from lm_eval.__main__ import cli_evaluate

    from attnbench.doors.lm_eval_model import INCLUDE_PATH, TASKS

    arguments = list(argv)
    if NAME not in _values(arguments, "--model", "-M"):
        return _handed_over(cli_evaluate, arguments)
    if _values(arguments, "--use_cache"):
        raise UserError(
            "--use_cache: lm-eval keeps answers by the request alone and would give those of another method. "
            "Leave it out: `attnbench run` goes on from its records."
        )
    register()
    folders = _values(arguments, "--include_path")
    for folder in folders:
        if not expanded(folder).is_dir():
            raise UserError(f"--include_path {folder}: no such folder.{near_file(folder)}")
    if not _values(arguments, "--batch_size", "-b"):
        arguments += ["--batch_size", BATCH_SIZE]
    before = lm_eval.tasks.TaskManager
    names = [name for value in _values(arguments, "--tasks", "-t") for name in value.split(",") if name]
    kind = _kind(_values(arguments, "--model_args", "-a"), names)
    with tempfile.TemporaryDirectory(prefix="attnbench-") as parts:
        lm_eval.tasks.TaskManager = _manager(before, names, folders, kind, Path(parts))
        told = INCLUDE_PATH.set(folders[0] if folders else None), TASKS.set(names)
        try:
            return _handed_over(cli_evaluate, arguments)
        finally:
            INCLUDE_PATH.reset(told[0])
            TASKS.reset(told[1])
            lm_eval.tasks.TaskManager = before


def _kind(model_arguments: Sequence[str], names: Sequence[str]) -> str | None:
    """Tell the kind of checkpoint that the command line asks for, None where that is not clear yet.

    Raises UserError where the model is for none of the tasks.
    """
    from attnbench.backends.kinds import kind
    from attnbench.inputs import models

    given = dict(part.partition("=")[::2] for value in model_arguments for part in value.split(","))
    reasons = []
    for task in names:
        try:
            with contextlib.suppress(UserError):
                return kind(models.find(given.get("pretrained", ""), task).config())
        except NotApplicable as reason:
            reasons.append(str(reason))
    if names and len(reasons) == len(names):
        raise UserError(reasons[0])
    return None


def _manager(base: Any, names: Sequence[str], folders: Sequence[str], kind: str | None, parts: Path) -> Any:
    """Make lm-eval's manager of tasks know ours, and parts of ours by files in the folder `parts`."""
    # lm-eval's command line takes one folder of tasks, which stays the user's, and cannot be told not to scan
    # its own 14,000 files: 11 seconds that are of no use where it is known where the tasks are
    places: list[str] = []
    for name in names:
        with contextlib.suppress(UserError):
            file = tasks.find(name, folders[0] if folders else None, kind)
            part = file.configuration or file.length
            places.append(str(parts if part else Path(file.path).parent))
            if part:
                _write_part(file, parts)
    found = bool(names) and len(places) == len(names)
    ours = places if found else [] if kind in ("causal", "seq2seq") else [tasks.folder()]

    class Manager(base):
        def __init__(
            self, *args: Any, include_path: Any = None, include_defaults: bool = True, **kwargs: Any
        ) -> None:
            users = [include_path] if isinstance(include_path, str) else include_path or []
            super().__init__(
                *args,
                include_path=[*dict.fromkeys([*map(str, users), *map(str, ours)])],
                include_defaults=include_defaults and not found,
                **kwargs,
            )

    return Manager


def _write_part(file: tasks.TaskFile, folder: Path) -> None:
    """Write the YAML of a part of a task, as blimp_transitive and needles_1024 are, which no file names."""
    told = {"length": file.length} if file.length else {"configurations": [file.configuration]}
    metadata = tasks.read_yaml(Path(file.path))["metadata"] | told
    content = {"include": file.path, "task": file.name, "metadata": metadata}
    (folder / f"{file.name}.yaml").write_text(json.dumps(content), encoding="utf-8")


def _values(arguments: Sequence[str], *flags: str) -> list[str]:
    found: list[str] = []
    for place, argument in enumerate(arguments):
        flag, equals, value = argument.partition("=")
        if flag not in flags:
            continue
        if equals:
            found.append(value)
        for following in [] if equals else arguments[place + 1 :]:
            if following.startswith("-"):
                break
            found.append(following)
    return found


def _handed_over(cli: Any, arguments: Sequence[str]) -> int:
    try:
        return handed_over("lm-eval", cli, arguments)
    except NotApplicable as reason:
        raise UserError(str(reason)) from reason
    except ValueError as error:
        if not str(error).startswith("Tasks not found"):
            raise
        known = ", ".join(tasks.available())
        raise UserError(f"{error}. attnbench has {known}; `lm-eval ls tasks` lists lm-eval's own.") from error
