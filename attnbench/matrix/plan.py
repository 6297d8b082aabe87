"""Expand models, tasks and methods to the cells of the matrix. Imports nothing heavy."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from attnbench.errors import UserError
from attnbench.inputs import models
from attnbench.inputs import tasks as task_files
from attnbench.matrix.request import Request
from attnbench.methods import spec
from attnbench.methods.controls import CONTROLS
from attnbench.methods.protocol import Method
from attnbench.records import record


@dataclass(frozen=True)
class Cell:
    """One measurement: `model` as the user names it, `task`, and the method's canonical spec."""

    model: str
    task: str
    method: str


def seeded(text: str, repeats: int, seed: int = 0) -> list[str]:
    """Return the specs of a spec's repeats: one where nothing is drawn, else one a seed."""
    methods = spec.parse(text)
    terms = list(zip(methods, text.strip().split("+"), strict=False))  # dense is none
    if not any(_draws(*each) for each in terms):
        return [spec.format(methods)]
    return [
        spec.format([_with_seed(each[0], seed + k) if _draws(*each) else each[0] for each in terms])
        for k in range(repeats)
    ]


def _with_seed(method: Method, seed: int) -> Method:
    changed = copy.copy(method)
    vars(changed)["seed"] = seed
    return changed


def _draws(method: Method, term: str) -> bool:
    # a seed the user wrote is a choice, not a draw
    field = method.__dataclass_fields__.get("seed")
    return field is not None and vars(method)["seed"] == field.default and ":seed=" not in term


def check_tasks(names: Iterable[str], include_path: str | None = None) -> None:
    """Raise UserError for a task that does not exist, before anything is loaded, and for two of one name."""
    refuse_twins("tasks", {task: task_files.find(task, include_path).name for task in names})


def refuse_twins(kind: str, labels: Mapping[str, str], apart: str = "--records") -> None:
    """Raise UserError where two would be written to one file; `labels`: as given -> as records name it."""
    found: dict[str, str] = {}
    for name, label in labels.items():
        file = record.file_name(label)
        twin = found.setdefault(file, name)
        if twin != name:
            way = "Name one: NAME=PATH" if kind == "models" else "Rename one"
            raise UserError(
                f"{kind} '{twin}' and '{name}' would share the name '{file}' in records. "
                f"{way}, or give each its own {apart}."
            )


def columns(request: Request, apart: str = "--records") -> list[tuple[str, str]]:
    """Return (model, task) in running order; no tasks are the models' own. Raises UserError.

    `apart` is the option by which two models of one name are kept apart.
    """
    check_tasks(request.tasks, request.settings.include_path)
    refuse_twins("models", {name: models.label(name) for name in request.models}, apart)
    found = []
    for name in request.models:
        wanted = request.tasks or models.tasks_of(name)
        if not wanted:
            models.check_folder(name)
            raise UserError(
                f"model '{name}' names no task of its own: give --tasks. `attnbench tasks` lists them."
            )
        found += [(name, task) for task in wanted]
    return found


def plan(request: Request) -> list[Cell]:
    """Return the cells in running order: by model, by task, dense and uniform first. Raises UserError."""
    specs = [
        text
        for method in (*CONTROLS, *request.methods)
        for text in seeded(method, request.repeats, request.settings.seed)
    ]
    found = columns(request)
    refuse_twins("methods", {text: text for text in specs})
    return [Cell(*column, method) for column in found for method in dict.fromkeys(specs)]
