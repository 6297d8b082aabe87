"""Which of a suite's models are run, and where those are that it names by their folder alone."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable
from pathlib import Path

from attnbench.boards.suite import Part, Suite, is_folder_name, shown
from attnbench.errors import UserError, near, unknown
from attnbench.inputs import models, names
from attnbench.inputs.names import PLACES

ALIKE = 0.8  # of a folder's name and a short one: more is taken for a slip


def parts(suite: Suite, given: Iterable[str], locate: bool = True) -> list[Part]:
    """Return the parts to run, models named by where they are.

    `given` (of --models) chooses among the suite's models and says where a folder is; without it all are
    run, and folders are looked for in $ATTNBENCH_MODELS. Raises UserError where one is not to be found;
    without `locate` only where its name is like a short name.
    """
    wanted = {_given(name): name for name in given}
    names = [shown(name) for part in suite.parts for name in part.models]
    for label in wanted:
        if label not in names:
            raise unknown("model of the suite", label, names, f"{suite.path} has {', '.join(names)}.")
    kept = []
    for part in suite.parts:
        found = tuple(name for name in part.models if not wanted or shown(name) in wanted)
        found = tuple(place(suite.path, name, wanted.get(shown(name)), locate) for name in found)
        if found:
            kept.append(dataclasses.replace(part, models=found))
    return kept


def _given(name: str) -> str:
    return name if is_folder_name(name) else models.label(name)


def place(path: Path, name: str, given: str | None = None, locate: bool = True) -> str:
    """Return where a model is that a file names, which is its name but for a folder. Raises UserError."""
    if not is_folder_name(name):
        return name
    if given is not None and given != name:
        return given
    if there := names.placed(name):
        return there if names.label(there) == name else f"{name}={there}"  # a link has the name of its target
    base = os.environ.get(PLACES)
    short = [*models.PUBLISHED, *(f"pocket-{family}" for family in models.pocket_families())]
    meant = near(name, short, ALIKE)
    if not locate and not meant:
        return name
    told = f"{PLACES}={base} has no such folder" if base else f"--models PATH/{name}, or {PLACES}=PATH"
    what = f"unknown model '{name}'.{meant} If it" if meant else f"model '{name}'"
    raise UserError(f"suite {path}: {what} is a folder: say where it is: {told}.")
