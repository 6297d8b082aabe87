"""Where a checkpoint or a file lies, as a digest: two of one name are told apart, and no folder is named."""

from __future__ import annotations

import functools
import hashlib
import os
import platform
from pathlib import Path
from typing import TYPE_CHECKING

from attnbench.inputs import endings, names, tasks
from attnbench.inputs.files import expanded

if TYPE_CHECKING:
    from attnbench.inputs.models import Checkpoint
    from attnbench.inputs.settings import Settings

MACHINE = ("/etc/machine-id", "/var/lib/dbus/machine-id")


def digest(path: str | Path) -> str:
    """Hash a machine's id and the real path of a file or folder on it."""
    place = os.path.realpath(os.path.expanduser(path))
    return hashlib.sha256(os.fsencode(f"{_machine()}\n{place}")).hexdigest()


@functools.cache
def _machine() -> str:
    for place in MACHINE:
        try:
            if found := Path(place).read_text(encoding="ascii").strip():
                return found
        except (OSError, ValueError):
            continue
    return platform.node()


def of(checkpoint: Checkpoint, task: str, settings: Settings) -> dict[str, str]:
    """Return the digests of what a cell has from the user's own places: checkpoint, task, calibration."""
    found = {"checkpoint": checkpoint.path} if checkpoint.source in names.OWN else {}
    file, folder = tasks.find(task, settings.include_path), settings.include_path
    within = folder is not None and Path(file.path).is_relative_to(expanded(folder))
    if within or tasks.is_own(task) or endings.plain(task).endswith(tasks.YAML):
        found["task"] = file.path
    if settings.calibration is not None and tasks.is_texts(settings.calibration.partition(":")[0]):
        found["calibration"] = settings.calibration.partition(":")[0]
    return {name: digest(path) for name, path in found.items()}
