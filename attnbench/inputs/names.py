"""The names of models: short ones, published ones, Hub ids and folders. Imports nothing heavy."""

from __future__ import annotations

import functools
import json
import os
import re
from pathlib import Path

from attnbench.errors import UserError, unknown
from attnbench.inputs.files import expanded
from attnbench.inputs.gguf_files import ENDING, is_gguf
from attnbench.inputs.published import PUBLISHED

PLACES = "ATTNBENCH_MODELS"  # a folder with models that suites and records name by folder name
POCKET = Path(__file__).parents[1] / "pocket" / "weights"
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
NAMED = re.compile(r"([\w.-]+)=(.+)")
OWN = ("folder", "file")  # what a checkpoint of the user's own is, which no record says the place of


@functools.cache
def pocket_families() -> dict[str, dict[str, Path]]:
    """List the shipped pocket models: family -> task -> folder, the task to begin with first."""
    families: dict[str, dict[str, Path]] = {}
    for card in sorted(POCKET.glob("*/card.json"), reverse=True):
        for task in json.loads(card.read_text(encoding="utf-8"))["tasks"]:
            families.setdefault(card.parent.name.partition("-")[0], {})[task] = card.parent
    return dict(sorted(families.items()))


def label(name: str) -> str:
    """Return the name a model has in tables and records: bert is pocket-bert, a folder is its last part.

    FILE.gguf is FILE, NAME=./FOLDER is NAME. Raises UserError for a name that is none, and for a folder whose
    last part is the name of another model.
    """
    own, where = named(name)
    if own is not None:
        return _own(own, where)
    short = name.removeprefix("pocket-")
    if short in pocket_families():
        return f"pocket-{short}"
    if name in PUBLISHED:
        return name
    if is_place(name):
        last = expanded(name).resolve().name
        last, what = (last[: -len(ENDING)], "file") if is_gguf(last) else (last, "folder")
        if last.startswith("pocket-") or last in (*pocket_families(), *PUBLISHED):
            raise UserError(
                f"model '{name}': records would take '{last}' for a model of ours. Rename the {what}, "
                f"or give it a name: OTHER={name}"
            )
        return last
    if HUB_ID.fullmatch(name):
        return name
    if "/" in name:
        here = f"A folder of that name is here: write ./{name}" if Path(name).is_dir() else ""
        raise UserError(f"unknown model '{name}'. {here or 'A Hub id is OWNER/NAME, a folder ./NAME.'}")
    if Path(name).is_dir():
        raise UserError(f"unknown model '{name}'. A folder of that name is here: write ./{name}")
    place = Path(os.environ.get("ATTNBENCH_MODELS", "")) / name
    if place.is_dir():
        raise UserError(f"unknown model '{name}'. Only suites look into ATTNBENCH_MODELS: write {place}")
    known = [*pocket_families(), *PUBLISHED]
    raise unknown(
        "model", name, known, f"Known: {', '.join(known)}; a name with a slash is a Hub id, ./NAME a folder."
    )


def named(text: str) -> tuple[str | None, str]:
    """Part NAME=PLACE into the name that records are to have and the place; without one it is all place."""
    found = None if _begins_as_path(text) else NAMED.fullmatch(text)
    return (found[1], found[2]) if found else (None, text)


def _own(name: str, place: str) -> str:
    if name.startswith("pocket-") or name in (*pocket_families(), *PUBLISHED):
        raise UserError(f"model '{name}={place}': '{name}' is a model of ours. Give it another name.")
    if not (is_place(place) or HUB_ID.fullmatch(place)):
        raise UserError(
            f"model '{name}={place}': a name is for a folder, a GGUF file or a Hub id: {name}=./FOLDER"
        )
    return name


def is_place(name: str) -> bool:
    """Tell whether a model is given as a folder, by how its name begins, or as a file, by how it ends."""
    return _begins_as_path(name) or is_gguf(name)


def _begins_as_path(name: str) -> bool:
    return name.startswith((".", "/", "~"))


def tasks_of(name: str) -> list[str]:
    """List the tasks a model runs without being told: those of its cards, a published one's usual ones."""
    pocket = pocket_families().get(name.removeprefix("pocket-"))
    return list(pocket or (PUBLISHED[name].usual if name in PUBLISHED else ()))


def placed(name: str) -> str | None:
    """Return the path of a model that is named by its folder, or GGUF file, alone, where PLACES has it."""
    base = os.environ.get(PLACES)
    if base and (Path(base) / name / "config.json").is_file():
        return str(Path(base, name).absolute())
    file = Path(base or "", name + ENDING)
    return str(file.absolute()) if base and file.is_file() else None
