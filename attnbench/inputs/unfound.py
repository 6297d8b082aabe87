"""Say what is near a task's name that nobody knows: a file that is here, a task of lm-eval's."""

from __future__ import annotations

import glob
import importlib.util
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from attnbench.errors import UserError, near, near_file

DECLARED = re.compile(r"""^(?:task|group):\s*["']?([\w.+-]+)["']?\s*$""", re.MULTILINE)
CLOSE = 0.8  # of lm-eval's thousands of names something is always a little alike


def unknown_task(name: str, known: Iterable[str], own: Sequence[str], yaml: Sequence[str]) -> UserError:
    """Build the error for a task that does not exist: `own` ends users' data, `yaml` their tasks."""
    known = [*known]
    if hint := _meant(name, own, yaml):
        return UserError(f"unknown task '{name}'. {hint}")
    other = next(iter(sorted(Path(name).parent.glob(f"{glob.escape(Path(name).name)}.*"))), None)
    hint = f"A file {other} is here, but your own data are a .csv or .jsonl file. " if other else ""
    meant = near(name, known) or ("" if other else near(name, _of_lm_eval(), CLOSE))
    return UserError(f"unknown task '{name}'.{meant} {hint}Known: {', '.join(known)}.")


def _meant(name: str, own: Sequence[str], yaml: Sequence[str]) -> str:
    """Say which file that is here a name without its ending, or with another, stands for."""
    for ending in (*own, *yaml):
        if Path(name + ending).is_file():
            return f"A file {name}{ending} is here: write {name}{ending}"
    return near_file(name, (*own, *yaml)).strip() if Path(name).suffix else ""


def _of_lm_eval() -> Iterable[str]:
    """Return the names of lm-eval's tasks and groups that their files declare."""
    spec = importlib.util.find_spec("lm_eval")
    if spec is None or not spec.submodule_search_locations:
        return []
    files = (Path(spec.submodule_search_locations[0]) / "tasks").rglob("*.yaml")
    texts = (file.read_text(encoding="utf-8", errors="replace") for file in files)
    return {name for text in texts for name in DECLARED.findall(text)}
