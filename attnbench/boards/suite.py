"""Suites: a TOML file that holds a whole comparison, run and rendered by its name. Imports nothing heavy."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from attnbench.boards import claims, written
from attnbench.errors import UserError, unknown
from attnbench.inputs import models, names, prompting, tasks
from attnbench.inputs.endings import ended
from attnbench.inputs.prompting import Prompting
from attnbench.matrix import plan
from attnbench.matrix.request import Request
from attnbench.methods.controls import CONTROLS
from attnbench.methods.expand import expand
from attnbench.methods.families import family, name_without_seed
from attnbench.methods.fields import SEEDS

REPEATS = 5
MANY = 1000  # repeats, each a cell a method
TEXTS = ("title", "about", "calibration")
LISTS, FLAGS = ("methods", "claims", "sweeps", "floor"), ("measure",)
NUMBERS = {  # least and most
    "repeats": (1, MANY), "seed": (0, SEEDS - 1), "margin": (0, 1e9),
    "calibration_samples": (1, sys.maxsize), "calibration_tokens": (1, sys.maxsize),
}  # fmt: skip
PART = ("models", "tasks", "limit", "max_length", "cache_after", "prompt", *prompting.NAMES)


@dataclass(frozen=True)
class Part:
    """Models on tasks, all with the first `limit` samples; no tasks are those that a model names itself.

    `methods` are measured here beside the suite's. `prompting` says how lm-eval's tasks become prompts,
    `max_length` of how many tokens a text or window is at most.
    """

    models: tuple[str, ...]
    tasks: tuple[str, ...] = ()
    limit: int | None = None
    methods: tuple[str, ...] = ()
    prompting: Prompting = field(default_factory=Prompting)
    max_length: int | None = None

    def columns(self) -> Iterator[tuple[str, str]]:
        """Yield (model, task) by the names that records have."""
        for model in self.models:
            for task in self.tasks or models.tasks_of(model):
                yield shown(model), tasks.recorded(task)


@dataclass(frozen=True)
class Suite:
    """What a suite file asks for."""

    path: Path
    title: str
    methods: tuple[str, ...]
    parts: tuple[Part, ...]
    claims: tuple[str, ...] = ()
    about: str = ""
    calibration: str | None = None
    calibration_samples: int | None = None
    calibration_tokens: int | None = None
    repeats: int = REPEATS
    seed: int = 0
    margin: float = 0.01
    measure: bool = False
    sweeps: tuple[str, ...] = ()
    floor: tuple[str, ...] = ()  # canonical specs whose cells are measured twice

    @property
    def name(self) -> str:
        return self.path.stem

    @property
    def records(self) -> Path:
        """Return the folder that its records are kept in: `records/NAME` beside the file."""
        return self.path.parent / "records" / self.name

    def request(self, part: Part, repeats: int | None = None, **settings: Any) -> Request:
        """Return what a part asks of a run, with the suite's settings unless others are given."""
        own = {
            "limit": part.limit,
            "max_length": part.max_length,
            "seed": self.seed,
            "calibration": self.calibration,
            "calibration_samples": self.calibration_samples,
            "calibration_tokens": self.calibration_tokens,
            "measure": self.measure,
            "floor": self.floor,
        }
        own |= part.prompting.given()
        given = {key: value for key, value in settings.items() if value is not None}
        methods = [*self.methods, *part.methods]
        return Request.of(part.models, methods, part.tasks, repeats or self.repeats, **{**own, **given})

    def part_of(self, model: str, task: str) -> Part | None:
        """Return the part that a column belongs to, by the names that records have."""
        return next((part for part in self.parts if (model, task) in part.columns()), None)

    def specs(self, part: Part | None = None) -> list[str]:
        """List the canonical specs of a part, or of all, dense and uniform first, a draw once a seed."""
        parts = self.parts if part is None else (part,)
        texts = [
            text
            for method in (*CONTROLS, *self.methods, *(name for each in parts for name in each.methods))
            for text in plan.seeded(method, self.repeats, self.seed)
        ]
        return list(dict.fromkeys(texts))

    def cells(self, columns: Sequence[tuple[str, str]]) -> list[dict[str, str]]:
        """List the cells of columns, all by the names that records have."""
        found = [(column, self.specs(self.part_of(*column))) for column in columns]
        return [{"model": m, "task": t, "method": spec} for (m, t), specs in found for spec in specs]

    def names(self, part: Part | None = None) -> list[str]:
        """List the methods of a part, or of all: every spec, and what its seeds are grouped under."""
        specs = self.specs(part)
        return list(dict.fromkeys([*specs, *map(name_without_seed, specs)]))


def load(path: str | Path) -> Suite:
    """Read a suite. Raises UserError naming the key that is wrong."""
    path = Path(path)
    body = written.content(path)
    if written.LOOK in body:
        raise UserError(f"suite {path}: holds looks, which are measured by: attnbench look {path}")
    where = f"suite {path}"
    written.check_keys(where, body, (*TEXTS, *LISTS, *NUMBERS, *FLAGS, *PART, "part"))
    parts = body.pop("part", None)
    if parts is None:
        parts = [{key: body.pop(key) for key in PART if key in body}]
    elif not isinstance(parts, list) or not parts or any(key in body for key in PART):
        raise UserError(f"{where}: models, tasks and limit stand in each [[part]], or at the top without any")
    for key in TEXTS:
        if not isinstance(body.get(key, ""), str):
            raise UserError(f"{where}: {key} is a text")
    for key in FLAGS:
        if not isinstance(body.get(key, False), bool):
            raise UserError(f"{where}: {key} is true or false")
    for key in LISTS:
        body[key] = written.texts(where, key, body.get(key, []))
    body["methods"] = _methods(where, body["methods"])
    if not body["methods"] and not all(isinstance(part, dict) and part.get("methods") for part in parts):
        raise UserError(f"{where}: names no method: methods = [...]. `attnbench methods` lists them.")
    for key, (least, most) in NUMBERS.items():
        value = body.get(key, 1)
        if type(value) not in (int, type(most)) or not least <= value <= most:
            raise UserError(f"{where}: {key} = {value!r} is not a number that fits")
    body["floor"] = tuple(
        text for each in _methods(where, body["floor"]) for text in plan.seeded(each, 1, body.get("seed", 0))
    )
    found = tuple(_part(where, part) for part in parts)
    suite = Suite(path=path, parts=found, **{"title": path.stem, **body})
    columns = [column for part in suite.parts for column in part.columns()]
    for column in columns:
        if columns.count(column) > 1:
            raise UserError(f"{where}: {' on '.join(column)} stands there twice: a record has room for one")
    sweeps = [family(method) for method in suite.specs()]
    for sweep in suite.sweeps:
        if sweep not in sweeps:
            raise unknown("sweep", sweep, sweeps, f"{where}: sweeps are its methods without their amounts.")
    for method in suite.floor:
        if method not in suite.specs():
            raise unknown("method", method, suite.specs(), f"{where}: floor names methods of the suite.")
    try:
        by_column = {column: suite.names(part) for part in suite.parts for column in part.columns()}
        claims.check(suite.claims, suite.names(), by_column)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
    return suite


def _part(where: str, body: Any) -> Part:
    if not isinstance(body, dict):
        raise UserError(f"{where}: a part is a table with models, tasks, limit and methods")
    written.check_keys(where, body, (*PART, "methods"))
    names = written.texts(where, "models", body.get("models", []))
    if not names:
        raise UserError(f"{where}: names no model: models = [...]")
    tasks_, methods = (written.texts(where, key, body.get(key, [])) for key in ("tasks", "methods"))
    methods = _methods(where, methods)
    try:
        tasks_ = ended(tasks_, body.get("cache_after"), body.get("prompt"))
        prompts = Prompting(**{key: body[key] for key in prompting.NAMES if key in body})
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
    part = Part(names, tasks_, body.get("limit"), methods, prompts, body.get("max_length"))
    for key, unit in (("limit", "samples"), ("max_length", "tokens")):
        number = getattr(part, key)
        if number is not None and (type(number) is not int or not 1 <= number <= sys.maxsize):
            raise UserError(f"{where}: {key} = {number!r} is not a number of {unit}")
    for name in names:
        try:
            label = shown(name)
        except UserError as error:
            raise UserError(f"{where}: {error}") from None
        if not part.tasks and not models.tasks_of(name):
            raise UserError(f"{where}: {label} names no task of its own: tasks = [...]")
    return part


def _methods(where: str, texts: Sequence[str]) -> tuple[str, ...]:
    try:
        return tuple(dict.fromkeys(spec for text in texts for spec in expand(text)))
    except UserError as error:
        raise UserError(f"{where}: {error}") from None


def shown(name: str) -> str:
    """Return a suite's model as records name it. Raises UserError for a short name."""
    families = models.pocket_families()
    if name in families:
        published = f", or {name}-base for the published model" if f"{name}-base" in models.PUBLISHED else ""
        raise UserError(f"'{name}' is a short name, which suites refuse: write pocket-{name}{published}")
    if is_folder_name(name):
        if name.startswith("pocket-"):
            raise unknown("pocket model", name, [f"pocket-{family}" for family in families], "")
        return name
    return models.label(name)


def is_folder_name(name: str) -> bool:
    """Tell whether a model is named by its folder alone: where that is, is said when the suite is run."""
    if "/" in name or name.startswith((".", "~")) or names.named(name)[0] is not None:
        return False
    return name not in models.PUBLISHED and name.removeprefix("pocket-") not in models.pocket_families()
