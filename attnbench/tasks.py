"""Find the tasks: lm-eval YAML files, bundled or in the user's folder. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from attnbench.errors import UserError, unknown

# the head a checkpoint needs, by the class that a task's YAML names
HEADS = {
    "attnbench.backends.encoder_tasks.Classify": "classification",
    "attnbench.backends.encoder_tasks.Span": "qa",
}


@dataclass(frozen=True)
class TaskFile:
    """What a task's YAML says, without its data. `head` is None for a class that HEADS does not know."""

    name: str
    path: str
    head: str | None
    dataset: str
    metrics: tuple[str, ...]
    calibration: str | None
    description: str


def folder() -> Path:
    """Return the folder of the bundled tasks."""
    return Path(str(files("attnbench_tasks")))


def available(include_path: str | None = None) -> dict[str, TaskFile]:
    """List the tasks by name: the bundled ones, then a folder's, which win. Raises UserError."""
    found = {}
    for place in (folder(), *([Path(include_path).expanduser()] if include_path else [])):
        if not place.is_dir():
            raise UserError(
                f"tasks folder '{place}' is not a folder. Give one that holds lm-eval task YAML files."
            )
        for task in filter(None, map(_read, sorted(place.rglob("*.yaml")))):
            found[task.name] = task
    return found


def find(name: str, include_path: str | None = None) -> TaskFile:
    """Return a task by name, or by the path of its YAML. Raises UserError with the near names."""
    if name.endswith((".yaml", ".yml")) and Path(name).expanduser().is_file():
        task = _read(Path(name).expanduser())
        if task is None:
            raise UserError(
                f"task file '{name}' has no `task:` and `class:`. See tasks/sst2/sst2.yaml for one that has."
            )
        return task
    known = available(include_path)
    if name not in known:
        raise unknown("task", name, known, f"Known: {', '.join(known)}.")
    return known[name]


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a task's YAML with `!function` left as text. Raises UserError."""
    import yaml

    class Loader(yaml.SafeLoader):
        pass

    Loader.add_constructor("!function", lambda loader, node: loader.construct_scalar(node))
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"task file '{path}' cannot be read: {' '.join(str(error).split())}") from error
    return content if isinstance(content, dict) else {}


def _read(path: Path) -> TaskFile | None:
    content = read_yaml(path)
    if not isinstance(content.get("task"), str) or "class" not in content:
        return None
    metadata = content.get("metadata") or {}
    calibration = metadata.get("calibration")
    source = content.get("dataset_path") or content.get("custom_dataset") or ""
    return TaskFile(
        name=content["task"],
        path=str(path),
        head=HEADS.get(content["class"]),
        dataset="/".join(filter(None, (source, content.get("dataset_name")))),
        metrics=tuple(_metrics(content)),
        calibration=f"{calibration['split']}[{calibration['samples']}]" if calibration else None,
        description=metadata.get("description", ""),
    )


def _metrics(content: dict[str, Any]) -> Iterator[str]:
    for entry in content.get("metric_list") or []:
        yield entry["metric"]
