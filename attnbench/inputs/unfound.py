"""Say what is near a task's name that nobody knows: a file that is here, a task of lm-eval's."""

from __future__ import annotations

import glob
import importlib.util
from collections.abc import Iterable, Sequence
from pathlib import Path

from attnbench.errors import UserError, near, near_file

CLOSE = 0.8  # of lm-eval's thousands of names something is always a little alike


def unknown_task(name: str, known: Iterable[str], own: Sequence[str], yaml: Sequence[str]) -> UserError:
    """Build the error for a task that does not exist: `own` ends users' data, `yaml` their tasks."""
    known = [*known]
    hint = _here(name, own, yaml) or _like_a_file(name, (*own, *yaml))
    meant = "" if hint else near(name, known) or near(name, _of_lm_eval(), CLOSE)
    hint = hint or f"Known: {', '.join(known)}."
    return UserError(f"unknown task '{name}'.{meant} {hint}")


def _here(name: str, own: Sequence[str], yaml: Sequence[str]) -> str:
    """Say which file of a name without its ending is here."""
    for ending in (*own, *yaml):
        if Path(name + ending).is_file():
            return f"A file {name}{ending} is here: write {name}{ending}"
    other = next(iter(sorted(Path(name).parent.glob(f"{glob.escape(Path(name).name)}.*"))), None)
    return f"A file {other} is here, but your own data are a .csv or .jsonl file." if other else ""


def _like_a_file(name: str, endings: Sequence[str]) -> str:
    """Say which file a name with another ending may mean."""
    return near_file(name, endings).strip() if Path(name).suffix else ""


def _of_lm_eval() -> Iterable[str]:
    """Return the names of lm-eval's files, most of which are their tasks'."""
    spec = importlib.util.find_spec("lm_eval")
    if spec is None or not spec.submodule_search_locations:
        return []
    root = Path(spec.submodule_search_locations[0]) / "tasks"
    return sorted({file.stem for file in root.rglob("*.yaml") if not file.stem.startswith("_")})
