"""lm-eval's own command line with attnbench's model and tasks known to it: `attnbench lm-eval run …`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from attnbench import tasks
from attnbench.errors import NotApplicable, UserError

NAME = "attnbench"
TARGET = "attnbench.backends.lm_eval_model:AttnbenchLM"
BATCH_SIZE = "32"


def register() -> None:
    """Add `attnbench` to lm-eval's models; a second call changes nothing."""
    from lm_eval.api.registry import model_registry

    if NAME not in model_registry:
        model_registry.register(NAME, target=TARGET)


def main(argv: Sequence[str]) -> int:
    """Run lm-eval's command line with our model and tasks known to it, and return its exit status.

    Only where the model is `attnbench` is anything different: our tasks win over those of the same name, and
    the batch size is ours where none is given.
    """
    import lm_eval.tasks
    from lm_eval.__main__ import cli_evaluate

    arguments = list(argv)
    if NAME not in _values(arguments, "--model", "-M"):
        return _handed_over(cli_evaluate, arguments)
    register()
    if not _values(arguments, "--batch_size", "-b"):
        arguments += ["--batch_size", BATCH_SIZE]
    before = lm_eval.tasks.TaskManager
    lm_eval.tasks.TaskManager = _manager(
        before, *(_values(arguments, *flags) for flags in (("--tasks", "-t"), ("--include_path",)))
    )
    try:
        return _handed_over(cli_evaluate, arguments)
    finally:
        lm_eval.tasks.TaskManager = before


def _manager(base: Any, wanted: Sequence[str], folders: Sequence[str]) -> Any:
    # lm-eval's command line takes one folder of tasks, which stays the user's, and cannot be told not to scan
    # its own 14,000 files: 11 seconds that are of no use where all tasks are ours
    names = [name for value in wanted for name in value.split(",") if name]
    known = tasks.available(folders[0] if folders else None)
    ours = bool(names) and all(name in known for name in names)

    class Manager(base):
        def __init__(
            self, *args: Any, include_path: Any = None, include_defaults: bool = True, **kwargs: Any
        ) -> None:
            folders = [
                tasks.folder(),
                *([include_path] if isinstance(include_path, str) else include_path or []),
            ]
            super().__init__(
                *args, include_path=folders, include_defaults=include_defaults and not ours, **kwargs
            )

    return Manager


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
    before = sys.argv
    sys.argv = ["lm-eval", *arguments]
    try:
        cli()
    except NotApplicable as reason:
        raise UserError(str(reason)) from reason
    except ValueError as error:
        if not str(error).startswith("Tasks not found"):
            raise
        known = ", ".join(tasks.available())
        raise UserError(f"{error}. attnbench has {known}; `lm-eval ls tasks` lists lm-eval's own.") from error
    except SystemExit as left:
        return left.code if isinstance(left.code, int) else int(left.code is not None)
    finally:
        sys.argv = before
    return 0
