"""Versions of a repository's boards that stay as they are, so that a link to a row goes on to hold."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from pathlib import Path

from attnbench.errors import UserError

FOLDER = "versions"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,59}")


def known(folder: Path) -> dict[str, list[str]]:
    """Return the names of a repository's versions, in order, each with its boards."""
    home = folder / FOLDER
    names = sorted(each.name for each in home.iterdir() if NAME.fullmatch(each.name)) if home.is_dir() else []
    return {name: sorted(path.stem for path in (home / name).glob("*.toml")) for name in names}


def require_new(folder: Path, name: str) -> None:
    """Raise UserError for a name that no folder has, or that one has already."""
    if not NAME.fullmatch(name):
        raise UserError(f"--keep-as '{name}': a version is named by letters, digits, dots and dashes: 2026.1")
    if name in known(folder):
        raise UserError(
            f"--keep-as {name}: {folder / FOLDER / name} is there and stays as it is. Name another."
        )


def keep(folder: Path, boards: Path, name: str) -> Path:
    """Copy the boards as they are now, their records aside, whole or not at all. Raises UserError."""
    place = folder / FOLDER / name
    try:
        place.parent.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=place.parent, prefix=".") as temporary:
            made = Path(temporary) / name
            shutil.copytree(boards, made, ignore=shutil.ignore_patterns("records", ".*"))
            os.replace(made, place)
    except OSError as error:
        raise UserError(f"--keep-as {name}: {place} cannot be written: {error.strerror or error}") from error
    return place
