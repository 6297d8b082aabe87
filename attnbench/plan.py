"""Expand models, tasks and methods to the cells of the matrix. Imports nothing heavy."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from attnbench import models, record, spec
from attnbench import tasks as task_files
from attnbench.errors import UserError
from attnbench.method import Method

CONTROLS = ("dense", "uniform")


@dataclass(frozen=True)
class Cell:
    """One measurement: `model` as the user names it, `task`, and the method's canonical spec."""

    model: str
    task: str
    method: str


def check_whole(name: str, value: object, least: int | None = None) -> None:
    """Raise UserError for what is no whole number, or less than the least that makes sense."""
    if type(value) is not int or (least is not None and value < least):
        wanted = "a whole number" if least is None else f"a whole number of at least {least}"
        raise UserError(f"{name}={value!r} is not {wanted}.")


def split(values: Iterable[str]) -> list[str]:
    """Flatten comma lists, several words and repeats, keeping the first of each."""
    return list(dict.fromkeys(part.strip() for value in values for part in value.split(",") if part.strip()))


def seeded(methods: Sequence[Method], repeats: int, seed: int = 0) -> list[str]:
    """Return the specs of the repeats: one for a method that draws nothing, else one a seed."""
    if not any(_draws(method) for method in methods):
        return [spec.format(methods)]
    return [
        spec.format([_with_seed(method, seed + k) if _draws(method) else method for method in methods])
        for k in range(repeats)
    ]


def _with_seed(method: Method, seed: int) -> Method:
    changed = copy.copy(method)
    vars(changed)["seed"] = seed
    return changed


def _draws(method: Method) -> bool:
    # a seed the user wrote is a choice, not a draw
    field = method.__dataclass_fields__.get("seed")
    return field is not None and vars(method)["seed"] == field.default


def check_tasks(names: Iterable[str], include_path: str | None = None) -> None:
    """Raise UserError for a task that does not exist, before anything is loaded, and for two of one name."""
    found: dict[str, str] = {}
    for task in names:
        twin = found.setdefault(task_files.find(task, include_path).name, task)
        if twin != task:
            raise UserError(f"tasks '{twin}' and '{task}' would share a name in records. Rename one.")


def plan(
    models_: Iterable[str],
    methods: Iterable[str],
    tasks: Iterable[str] = (),
    repeats: int = 3,
    seed: int = 0,
    include_path: str | None = None,
) -> list[Cell]:
    """Return the cells in running order: by model, by task, dense and uniform first. Raises UserError."""
    names, wanted = split(models_), split(tasks)
    check_whole("repeats", repeats, 1)
    check_whole("seed", seed)
    if not names:
        raise UserError("no model: give --models, as in --models bert,roberta")
    check_tasks(wanted, include_path)
    specs = [
        text for method in (*CONTROLS, *split(methods)) for text in seeded(spec.parse(method), repeats, seed)
    ]
    labels = {name: models.label(name) for name in names}
    for name, shown in labels.items():
        file = record.file_name(shown)
        twins = [other for other in names if record.file_name(labels[other]) == file and other != name]
        if twins:
            raise UserError(
                f"models '{name}' and '{twins[0]}' would share the name '{file}' in records. Rename one."
            )
    cells = []
    for name in names:
        for task in wanted or models.tasks_of(name):
            cells += [Cell(name, task, method) for method in dict.fromkeys(specs)]
        if not wanted and not models.tasks_of(name):
            models.check_folder(name)
            raise UserError(
                f"model '{name}' names no task of its own: give --tasks. `attnbench tasks` lists them."
            )
    return cells
