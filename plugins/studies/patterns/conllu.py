"""Sentences of a treebank in CoNLL-U: words, where they stand in the text, and what they depend on."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from attnbench import UserError

FORMAT = "https://universaldependencies.org/format.html"
COLUMNS = 10
ID = re.compile(r"([1-9][0-9]*)(?:-([1-9][0-9]*)|\.([1-9][0-9]*))?|(0)\.([1-9][0-9]*)")


@dataclass(frozen=True)
class Word:
    """A word of the tree: `head` is the number of the word it depends on, from 1, and 0 for the root.

    `span` are its characters in the sentence's text (first, one past the last), None where it is part of a
    longer surface token that is not its words one after another ("du" of "de le").
    """

    form: str
    head: int
    relation: str
    span: tuple[int, int] | None


@dataclass(frozen=True)
class Sentence:
    """A sentence, its text as written, and `place`, the file and line of its first word."""

    text: str
    words: tuple[Word, ...]
    place: str = ""


@dataclass
class _Open:
    """The lines of one sentence so far."""

    words: list[tuple[str, int, str, int]] = field(default_factory=list)  # form, head, relation, line
    surface: list[tuple[str, int, int, bool]] = field(default_factory=list)  # form, first, last, space after
    empty: int = 0  # the last empty node after the last word


def read(path: str | Path) -> list[Sentence]:
    """Read a CoNLL-U file. Raises UserError that names file and line where it is none.

    Comments and empty nodes (5.1) are passed over; a multi-word token (3-4) gives the text, its words the
    tree. The text is every surface token with a space after it, but for SpaceAfter=No. Source:
    https://universaldependencies.org/format.html. Differs: lines may end in \\r\\n, the file may begin with a
    byte order mark, and features, tags and the enhanced graph are not looked at.
    """
    try:
        raw = Path(path).expanduser().read_bytes()
    except OSError as error:
        raise UserError(f"treebank {path}: {error.strerror or error}. Give a CoNLL-U file.") from None
    found = list(_sentences(str(path), raw.removeprefix(b"\xef\xbb\xbf").split(b"\n")))
    if not found:
        raise UserError(f"treebank {path}: no sentence in it. Give a CoNLL-U file: {FORMAT}")
    return found


def _sentences(path: str, lines: Iterable[bytes]) -> Iterator[Sentence]:
    now = _Open()
    for number, raw in enumerate(lines, 1):
        try:
            line = raw.decode().rstrip("\r")
        except UnicodeDecodeError:
            raise _bad(path, number, "is not UTF-8") from None
        if not line.strip():
            if now.surface:
                yield _closed(path, now)
            now = _Open()
        elif not line.startswith("#"):
            _take(path, number, line, now)
    if now.surface:
        yield _closed(path, now)


def _take(path: str, number: int, line: str, now: _Open) -> None:
    """Add one line of a token."""
    columns = line.split("\t")
    if len(columns) != COLUMNS:
        raise _bad(path, number, f"has {len(columns)} columns between tabs, not {COLUMNS}")
    if not all(columns):
        raise _bad(path, number, f"leaves column {columns.index('') + 1} empty, where _ has to stand")
    name, form, head, relation, misc = columns[0], columns[1], columns[6], columns[7], columns[9]
    match, words = ID.fullmatch(name), len(now.words)
    if match is None:
        raise _bad(path, number, f"begins with '{name}', which is no number of a token")
    if "." in name:
        before, count = map(int, name.split("."))
        if (before, count) != (words, now.empty + 1):
            raise _bad(path, number, f"numbers an empty node {name} after {words}.{now.empty}")
        now.empty = count
        return
    covered = now.surface[-1][2] if now.surface else 0
    spaced = "SpaceAfter=No" not in misc.split("|")
    if "-" in name:
        first, last = map(int, name.split("-"))
        if first != words + 1 or covered != words or last <= first:
            raise _bad(path, number, f"is a token of words {name} after word {words}")
        now.surface.append((form, first, last, spaced))
        return
    if int(name) != words + 1:
        raise _bad(path, number, f"is word {name} after word {words}")
    if not head.isascii() or not head.isdecimal():
        raise _bad(path, number, f"has the head '{head}', which is no word's number")
    now.words.append((form, int(head), relation, number))
    now.empty = 0
    if covered < int(name):
        now.surface.append((form, int(name), int(name), spaced))


def _closed(path: str, now: _Open) -> Sentence:
    """Make a sentence of its lines."""
    count, first = len(now.words), now.words[0][3] if now.words else 0
    last = now.surface[-1]
    if last[2] > count:
        at = now.words[-1][3] if now.words else first
        raise _bad(path, at, f"ends a sentence of {count} words with a token of words {last[1]}-{last[2]}")
    for form, head, _, number in now.words:
        if head > count:
            raise _bad(path, number, f"says that '{form}' depends on word {head} of {count}")
    text, spans = "", list[tuple[int, int] | None]()
    for form, start, stop, spaced in now.surface:
        spans += _spans(form, [each[0] for each in now.words[start - 1 : stop]], len(text))
        text += form + " " * spaced
    words = (
        Word(form, head, relation, span)
        for (form, head, relation, _), span in zip(now.words, spans, strict=True)
    )
    return Sentence(text.rstrip(" "), tuple(words), f"{path}:{first}")


def _spans(surface: str, forms: Sequence[str], start: int) -> Iterator[tuple[int, int] | None]:
    """Say where the words of one surface token stand in the text."""
    spelled = "".join(forms) == surface
    for form in forms:
        yield (start, start + len(form)) if spelled else None
        start += len(form)


def _bad(path: str, number: int, what: str) -> UserError:
    return UserError(f"treebank {path}:{number}: the line {what}. Give a CoNLL-U file: {FORMAT}")
