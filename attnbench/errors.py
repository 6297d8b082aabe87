"""The exceptions that are not bugs."""

from __future__ import annotations

import contextlib
import difflib
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

LONGEST = 2000  # of what an exception says
MESSAGE, END = 380, 160  # characters of a line that tells something, and of its end, which says the way on
MORE = "…"


def one_line(text: object) -> str:
    """Put any text on one line: control characters and line breaks are spaces."""
    told = str(text)
    if not told.isprintable():
        told = "".join(c if c.isprintable() else " " for c in told)
    return " ".join(told.split())


def message(text: object) -> str:
    """Put what is told on one line, one that is too long without its middle."""
    line = one_line(text)
    return line if len(line) <= MESSAGE else f"{line[: MESSAGE - END - 3]} {MORE} {line[-END:]}"


def tell(text: object) -> None:
    """Say on stderr, in one line, what is not as it was asked for and stops nothing."""
    if sys.stderr is not None:  # where it is closed print would take stdout
        print(f"attnbench: {message(text)}", file=sys.stderr)


class Told(Exception):
    """What is told in one line, whatever the names and texts in it hold."""

    def __init__(self, text: object = "") -> None:
        super().__init__(message(text))


class UserError(Told):
    """A mistake in what was asked for: one line that names the token and says the next command."""


class TaskMistake(UserError):
    """A mistake in a task's YAML, at one of its keys: who reads the file adds its name and line."""

    def __init__(self, text: str, key: str) -> None:
        super().__init__(text)
        self.key = key


class Misfit(UserError):
    """A model whose head or labels are for other tasks: among several a cell that is not applicable."""


class NotApplicable(Told):
    """A (model, task, method) cell that has no meaning, with the reason."""


def near(token: str, known: Iterable[str], cutoff: float = 0.6, most: int = 3) -> str:
    """Write " Did you mean X or Y?" of the names that are like a token, nothing where none is."""
    found = difflib.get_close_matches(token.lower(), list(known), n=most, cutoff=cutoff)
    return f" Did you mean {' or '.join(found)}?" if found else ""


def near_file(path: str | Path, endings: Sequence[str] = ()) -> str:
    """Write " Did you mean X?" for a path that is not there: of the files with these endings, or the folders.

    X has the folder before it that the path has.
    """
    written, path = str(path).rstrip("/"), Path(path).expanduser()
    try:
        beside = [
            each for each in path.parent.iterdir() if (each.suffix in endings if endings else each.is_dir())
        ]
    except OSError:
        return ""
    names = {each.name.lower(): each.name for each in beside}
    found = difflib.get_close_matches(path.name.lower(), names, n=1)
    return f" Did you mean {written.removesuffix(path.name)}{names[found[0]]}?" if found else ""


def require_folder(option: str, folder: str | Path) -> None:
    """Raise UserError where an option names a file and has to name a folder."""
    if Path(folder).is_file():
        raise UserError(f"{option} {folder}: is a file; give a folder")


def unknown(kind: str, token: str, known: Iterable[str], hint: str) -> UserError:
    """Build the error for a name that does not exist: the token, the near names, the next command."""
    return UserError(f"unknown {kind} '{token}'.{near(token, known)} {hint}")


def described(error: BaseException) -> str:
    """Return an exception's kind, words and notes on one line; of a mistake of the user's its words alone."""
    kind = "" if isinstance(error.__cause__, UserError) else f"{type(error).__name__}: "
    notes = "; ".join(filter(None, dict.fromkeys(map(said, getattr(error, "__notes__", [])))))
    return _line(f"{kind}{said(error)}" + (f" ({notes})" if notes else ""))


def said(value: object) -> str:
    """Return what an exception says, on one line that can be written, whatever its `__str__` does."""
    try:
        return _line(str(value))
    except KeyboardInterrupt:
        raise
    except BaseException as fault:
        return f"its __str__ raises {_line(type(fault).__name__)}"


def _line(text: str) -> str:
    line = one_line(text)
    return line if len(line) <= LONGEST else line[: LONGEST - 1] + MORE


@contextlib.contextmanager
def own_fault(methods: Sequence[object]) -> Iterator[None]:
    """Take a UserError for the fault of methods, which fails their cell; without any it ends the command."""
    try:
        yield
    except UserError as error:
        if not methods:
            raise
        failure = RuntimeError(said(error))
        for note in getattr(error, "__notes__", []):
            failure.add_note(note)
        raise failure from error
