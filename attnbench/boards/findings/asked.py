"""A board of looks: a TOML file that says what is looked at, what is shown and what is claimed.

title = "..."
about = "..."                            # paragraphs above the claims
[[look]]
model = "minilm-sst2"                    # as in a suite
task = "sst2"
limit = 200                              # documents
studies = ["sparsity", "divergence"]
methods = ["prune80"]                    # beside dense
claims = ["all of divergence.layers where method = prune80 have error < 0.5"]
shows = ["sparsity.heads by layer: zeros, half"]   # tables: rows, means by a name, columns
pictures = ["sparsity.zeros"]            # a map of a column of heads, or a study's own picture
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attnbench.boards import suite, written
from attnbench.boards.findings import claims, selection
from attnbench.boards.findings.claims import Claim
from attnbench.boards.findings.selection import Rows
from attnbench.errors import UserError, unknown
from attnbench.inputs import tasks
from attnbench.methods import spec

KEYS = ("model", "task", "limit", "studies", "methods", "claims", "shows", "pictures")
TOP = ("title", "about", written.LOOK)


@dataclass(frozen=True)
class Shown:
    """A table to show: some rows, or their means `by` a name; `columns` none is all of them."""

    rows: Rows
    by: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    text: str = ""


@dataclass(frozen=True)
class Asked:
    """One look: studies, by their canonical specs, of a model on a task, dense and with methods."""

    model: str
    task: str
    studies: tuple[str, ...]
    methods: tuple[str, ...] = ()
    limit: int | None = None
    claims: tuple[Claim, ...] = ()
    shows: tuple[Shown, ...] = ()
    pictures: tuple[str, ...] = ()

    def cell(self, study: str, method: str) -> dict[str, str]:
        """Return the cell that the record of a study with a method has."""
        model, task = suite.shown(self.model), tasks.recorded(self.task)
        return {"model": model, "task": task, "method": method, "study": study}

    @property
    def names(self) -> dict[str, str]:
        """Return study -> spec: by its name where it is the only one of it, else by its spec."""
        short = [text.partition(":")[0] for text in self.studies]
        return {
            (name if short.count(name) == 1 else text): text
            for name, text in zip(short, self.studies, strict=True)
        }


@dataclass(frozen=True)
class Findings:
    """What a file of looks says."""

    path: Path
    title: str
    about: str
    looks: tuple[Asked, ...]

    @property
    def name(self) -> str:
        return self.path.stem

    @property
    def records(self) -> Path:
        """Return the folder that its records are kept in: `records/NAME` beside the file."""
        return self.path.parent / "records" / self.name


def is_of_looks(path: str | Path) -> bool:
    """Tell whether a file holds looks; one that cannot be read, or is no TOML, does not."""
    try:
        return written.LOOK in written.content(Path(path))
    except UserError:
        return False


def load(path: str | Path) -> Findings:
    """Read a file of looks. Raises UserError naming the key that is wrong."""
    path = Path(path)
    body = written.content(path)
    where = f"looks {path}"
    if written.LOOK not in body:
        raise UserError(f"{where}: has no [[look]]; if it is a suite: attnbench run {path}")
    written.check_keys(where, body, TOP)
    for key in ("title", "about"):
        if not isinstance(body.get(key, ""), str):
            raise UserError(f"{where}: {key} is a text")
    given = body[written.LOOK]
    if not isinstance(given, list) or not all(isinstance(each, dict) for each in given):
        raise UserError(f"{where}: each look is a table: [[look]]")
    try:
        looks = tuple(map(_look, given))
        found = Findings(path, body.get("title", path.stem), body.get("about", ""), looks)
        cells = [tuple(look.cell(study, "").values()) for look in looks for study in look.studies]
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
    for cell in cells:
        if cells.count(cell) > 1:
            raise UserError(f"{where}: {cell[3]} of {cell[0]} on {cell[1]} stands there twice")
    return found


def _look(body: Mapping[str, Any]) -> Asked:
    for key in body:
        if key not in KEYS:
            raise unknown("key", key, KEYS, f"A look may have {', '.join(KEYS)}.")
    for key in ("model", "task"):
        if not isinstance(body.get(key), str) or not body[key].strip():
            raise UserError(f"a look has a {key}: {key} = '...'")
    limit = body.get("limit")
    if limit is not None and (type(limit) is not int or limit < 1):
        raise UserError(f"limit = {limit!r} is not a number of documents")
    lists = {key: written.texts("a look", key, body.get(key, [])) for key in KEYS[3:]}
    if not lists["studies"]:
        raise UserError("a look names studies: studies = ['sparsity']. `attnbench studies` lists them.")
    studies = tuple(spec.format([spec.parse_study(text)]) for text in lists["studies"])
    methods = tuple(spec.format(spec.parse(text)) for text in lists["methods"])
    made = Asked(
        body["model"], body["task"], studies, methods, limit,
        tuple(map(claims.parse, lists["claims"])), tuple(map(shown, lists["shows"])), lists["pictures"],
    )  # fmt: skip
    suite.shown(made.model)
    for rows in (*(each.rows for each in made.claims), *(each.rows for each in made.shows)):
        if rows.study not in made.names:
            raise unknown("study", rows.study, made.names, f"This look has {', '.join(made.names)}.")
    for each in made.pictures:
        if each.partition(".")[0] not in made.names:
            raise unknown("study", each.partition(".")[0], made.names, "A picture is STUDY.NAME.")
    return made


def shown(text: str) -> Shown:
    """Read what table is shown: rows ["by" NAME ("," NAME)*] [":" NAME ("," NAME)*]. Raises UserError."""
    head, _, columns = text.partition(": ")
    given = selection.words(head)
    at = given.index("by") if "by" in given else len(given)
    try:
        rows = selection.rows(given[:at])
    except UserError as error:
        raise UserError(f"shows '{text}': {error}") from None
    by = " ".join(given[at + 1 :])
    if "by" in given and not by:
        raise UserError(f"shows '{text}': by NAME says over what rows are not averaged")
    return Shown(rows, _names(by), _names(columns), text)


def _names(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())
