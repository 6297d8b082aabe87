"""The exceptions that are not bugs, and how a line is told on a stream."""

from __future__ import annotations

import contextlib
import difflib
import os
import sys
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO

LONGEST = 2000  # of what an exception says
MESSAGE, END = 380, 160  # characters of a line that tells something, and of its end, which says the way on
MORE = "…"
NARROWEST, PIPED = 80, 120  # columns of the narrowest screen, and where nobody says how many there are
PARAGRAPH = 118  # of text in files, and of a paragraph's longest line on any screen


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
    say(f"attnbench: {message(text)}")


def say(line: str, stream: IO[str] | None = None, hang: int | None = None) -> None:
    """Write a line to stderr or another stream: whole, or on a terminal broken between its words."""
    target = stream or sys.stderr
    if target is not None:  # where it is closed print would take stdout
        print(broken(line, target, hang), file=target, flush=True)


def broken(line: str, stream: IO[str], hang: int | None = None) -> str:
    """Return a line as a stream takes it: as it is, but on a terminal broken between words.

    What reads a pipe or a file finds one thing on one line; `hang` indents the lines that follow.
    """
    seen = getattr(stream, "isatty", bool)()
    return wrap(line, screen_width(stream), hang) if seen else line


def wrap(line: str, width: int = PARAGRAPH, hang: int | None = None) -> str:
    """Break a line between its words, the rest indented by `hang` or by two more than the line."""
    indent = len(line) - len(line.lstrip(" ")) + 2 if hang is None else hang
    return textwrap.fill(
        line, min(width, PARAGRAPH), subsequent_indent=" " * indent, break_long_words=False,
        break_on_hyphens=False,
    )  # fmt: skip


def screen_width(stream: IO[str] | None = None) -> int:
    """Return the columns of the terminal that stdout or a stream goes to, or $COLUMNS; at least 80."""
    columns = os.environ.get("COLUMNS", "")
    found = int(columns) if columns.isdecimal() else 0
    with contextlib.suppress(AttributeError, ValueError, OSError):
        found = found or os.get_terminal_size((stream or sys.__stdout__).fileno()).columns  # type: ignore[union-attr]
    return max(NARROWEST, found or PIPED)


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
    written, path = str(path).rstrip("/"), Path(os.path.expanduser(path))
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
