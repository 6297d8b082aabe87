"""Read a task's YAML file: its keys, the shapes they have to have, the line of a mistake."""

from __future__ import annotations

import contextlib
import copy
import functools
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from attnbench.errors import UserError
from attnbench.inputs import files

LARGEST = 1 << 20
DEEPEST, MOST = 50, 100_000  # levels, and values with what aliases stand for written out
DECLARED = r"""^task:\s*["']?([\w.+ -]+?)["']?\s*$"""


class Function(str):
    """The name of a function, as `!function` marks it."""


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a task's YAML with `!function` left as its text. Raises UserError, whatever the file holds."""
    return copy.deepcopy(_parsed(path, _state(path)))


def _state(path: Path) -> tuple[int, ...]:
    try:
        found = os.stat(path)
    except (OSError, ValueError):  # reading it says what is wrong
        return ()
    return (found.st_ino, found.st_size, found.st_mtime_ns)


@functools.lru_cache(maxsize=1024)  # a command asks for its tasks several times, of some forty files each
def _parsed(path: Path, state: tuple[int, ...]) -> dict[str, Any]:
    import yaml

    class Loader(yaml.SafeLoader):
        pass

    Loader.add_constructor("!function", lambda loader, node: Function(loader.construct_scalar(node)))
    try:
        content = yaml.load(files.content(path, LARGEST).decode("utf-8"), Loader)
        _require_plain(content)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f", line {mark.line + 1}" if mark else ""
        raise UserError(
            f"task file '{path}'{where}: cannot be read: {error.problem or error.context}"
        ) from error
    except files.Unreadable as error:
        raise UserError(f"task file '{path}': {error}") from error
    except RecursionError:
        raise UserError(f"task file '{path}' cannot be read: it is nested too deeply") from None
    except Exception as error:  # whatever YAML's parts make of a date, a number or a mark that is none
        raise UserError(f"task file '{path}' cannot be read: {type(error).__name__}: {error}") from error
    return content if isinstance(content, dict) else {}


def _require_plain(content: Any) -> None:
    """Raise ValueError for what is nested deeply or, by aliases, in itself or beyond any size written out.

    It is lower than the interpreter's own limit, as others read the content too.
    """
    left, waiting = MOST, [(content, 0)]
    while waiting:
        value, depth = waiting.pop()
        left -= 1
        if not left or depth > DEEPEST:
            raise ValueError("it is nested too deeply, or its aliases stand for too much")
        inner = [*value, *value.values()] if isinstance(value, dict) else value
        if isinstance(inner, list | tuple | set):
            waiting += [(each, depth + 1) for each in inner]


def place(path: str, key: str) -> str:
    """Name a task's YAML and the line of one of its keys, else of a value, or without either the file."""
    import yaml

    try:
        node = yaml.compose(files.content(path, LARGEST).decode("utf-8"), yaml.SafeLoader)
    except (OSError, ValueError, yaml.YAMLError, RecursionError):  # changed meanwhile: no line is known
        return f"task file '{path}'"
    keys = [(name.value, name.start_mark.line + 1) for name, _ in getattr(node, "value", None) or []]
    lines = dict(reversed([*keys, *_values(node)]))
    return f"task file '{path}'" + (f", line {lines[key]}" if key in lines else "")


def quoted(path: str, said: str) -> str | None:
    """Find the key whose value a message quotes, or the last part of it."""
    for key, value in read_yaml(Path(path)).items():
        for text in _within(value):
            names = "|".join(map(re.escape, {text, text.rpartition(".")[2]} - {""}))
            if names and re.search(rf"""['"/]({names})['"]""", said):
                return key
    return None


def _within(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    for part in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _within(part)


def _values(node: Any) -> Iterator[tuple[str, int]]:
    """Yield each value that is no list or mapping, with its line."""
    content = getattr(node, "value", ())
    if isinstance(content, str):
        yield content, node.start_mark.line + 1
        return
    for part in content:
        yield from _values(part[1] if isinstance(part, tuple) else part)


def declared(file: Path) -> str:
    """Return the name that a task's file gives, whatever else it holds."""
    said = None
    with contextlib.suppress(OSError, files.Unreadable):
        text = files.content(file, LARGEST).decode("utf-8", errors="replace")
        said = re.search(DECLARED, text, re.MULTILINE)
    return said[1] if said else file.stem


def check_shape(path: Path, content: dict[str, Any]) -> None:
    """Raise UserError, with the line, for a key that does not hold what it has to."""
    metadata, metrics = content.get("metadata") or {}, content.get("metric_list") or []
    inner = metadata if isinstance(metadata, dict) else {}
    calibration, configurations = inner.get("calibration") or {}, inner.get("configurations") or []
    for right, key, wanted in (
        (
            isinstance(content.get("class"), Function | None),
            "class",
            "class is a !function, such as !function attnbench.backends.classification.Classify",
        ),
        (
            isinstance(content.get("custom_dataset"), Function | None),
            "custom_dataset",
            "custom_dataset is a !function, such as !function my_task.documents",
        ),
        (_texts(content, "dataset_path"), "dataset_path", "dataset_path is a text"),
        (_texts(content, "dataset_name"), "dataset_name", "dataset_name is a text: write it in quotes"),
        (
            isinstance(metrics, list)
            and all(isinstance(each, dict) and isinstance(each.get("metric"), str) for each in metrics),
            "metric_list",
            "metric_list is a list such as [{metric: acc}]",
        ),
        (isinstance(metadata, dict), "metadata", "metadata is a mapping such as {description: my task}"),
        (_texts(inner, "description", "licence"), "metadata", "metadata: description and licence are texts"),
        *(
            (type(inner.get(key, 1)) is int, "metadata", f"metadata: {key} is a whole number")
            for key in ("samples", "length")
        ),
        (
            _texts(inner, "context", "question") and ("context" in inner or "question" not in inner),
            "metadata",
            "metadata: context names a column, and question one that comes after it",
        ),
        (
            calibration == {}
            or (
                isinstance(calibration, dict)
                and isinstance(calibration.get("split"), str)
                and type(calibration.get("samples")) is int
            ),
            "metadata",
            "metadata: calibration is a mapping such as {split: train, samples: 512}",
        ),
        (
            isinstance(configurations, list) and all(isinstance(each, str) for each in configurations),
            "metadata",
            "metadata: configurations is a list of texts",
        ),
    ):
        if not right:
            raise UserError(f"{place(str(path), key)}: {wanted}.")


def _texts(content: dict[str, Any], *keys: str) -> bool:
    return all(isinstance(content.get(key), str | None) for key in keys)
