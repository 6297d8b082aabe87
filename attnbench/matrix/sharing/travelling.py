"""What a column needs of this machine's files, as bytes, to be written where it is measured."""

from __future__ import annotations

import dataclasses
import os
import platform
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from attnbench.errors import UserError
from attnbench.inputs import endings, names, tasks
from attnbench.inputs.files import expanded
from attnbench.inputs.settings import Settings
from attnbench.matrix.plan import Cell
from attnbench.methods import spec
from attnbench.methods.fields import texts

LARGEST = 256 << 20  # bytes of all files together: what is larger belongs on a disk that all nodes have
FILES = "files"  # where they are put, below the folder that the column is measured in


@dataclass
class Luggage:
    """Files by the place that they are put at, and what is to be at its own place on every node."""

    files: dict[str, bytes] = field(default_factory=dict)
    there: list[str] = field(default_factory=list)

    def add(self, path: str) -> str:
        """Pack a file, or a folder of files, and return its place from then on."""
        source = expanded(path)
        place = f"{FILES}/{len(self.files)}/{source.name}"
        inner = sorted(each for each in source.rglob("*") if each.is_file()) if source.is_dir() else [source]
        for each in inner:
            name = place if each == source else f"{place}/{each.relative_to(source).as_posix()}"
            self.files[name] = each.read_bytes()
        if (size := sum(map(len, self.files.values()))) > LARGEST:
            raise UserError(
                f"{path}: {size:,} bytes of plugins and data would travel to each node, at most {LARGEST:,}"
            )
        return place


def packed(
    cells: Sequence[Cell], settings: dict[str, Any], plugins: Sequence[str], folders: Sequence[str]
) -> tuple[Luggage, dict[str, Any]]:
    """Pack what cells of one column name of this machine's files; return it with what was asked for by it.

    Plugins, data and YAML files, and relative files that specs name, travel. A model's folder, and what a
    spec names by an absolute path, is to be at its place on the node. Raises UserError.
    """
    luggage = Luggage()
    settings = dict(settings)
    try:
        task, ending = endings.parted(cells[0].task)
        if tasks.is_own(task) or task.endswith(tasks.YAML):
            task = luggage.add(task)
        for name in ("calibration", "include_path"):
            if settings[name] is not None and expanded(settings[name]).exists():
                settings[name] = luggage.add(settings[name])
        own, place = names.named(cells[0].model)
        model = cells[0].model
        if names.is_place(place):
            luggage.there.append(os.path.abspath(os.path.expanduser(place)))
            model = f"{own}={luggage.there[-1]}" if own else luggage.there[-1]
        for text in _named(cells):
            if os.path.isabs(os.path.expanduser(text)):
                luggage.there.append(os.path.expanduser(text))
            elif ".." not in Path(text).parts:
                luggage.files[text] = Path(text).read_bytes()
        asked = {
            "settings": settings, "plugins": [luggage.add(each) for each in plugins],
            "folders": [luggage.add(each) for each in folders],
            "cells": [dataclasses.replace(cell, model=model, task=task + ending.written) for cell in cells],
        }  # fmt: skip
    except OSError as error:
        raise UserError(f"{error.filename}: cannot be read: {error.strerror}") from error
    return luggage, asked


def _named(cells: Sequence[Cell]) -> Iterator[str]:
    """Yield the files that specs name, each once."""
    found = (text for cell in cells for method in spec.parse(cell.method) for text in texts(method))
    yield from dict.fromkeys(text for text in found if os.path.isfile(os.path.expanduser(text)))


def unpack(luggage: Luggage, folder: Path) -> None:
    """Write files below a folder. Raises UserError for what is to be on this machine and is not."""
    for place in luggage.there:
        if not Path(place).exists():
            raise UserError(
                f"{platform.node()} has no {place}: put it on a disk that all nodes have, at this place"
            )
    for name, content in luggage.files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def settings_of(asked: dict[str, Any], device: str) -> Settings:
    """Return the settings by which a node measures."""
    return Settings.of({**asked["settings"], "device": device})
