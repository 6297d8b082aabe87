"""Braces in lists of specs: heads{10,30}:entropy is two, prune{50..90..10} five. Imports nothing heavy."""

from __future__ import annotations

import re
from collections.abc import Iterator

from attnbench.errors import UserError

RANGE = re.compile(r"(-?\d+)\.\.(-?\d+)(?:\.\.(-?\d+))?")
MOST = 1000  # specs of one text


def expand(text: str) -> list[str]:
    """Write out the braces of a comma list of specs, as a shell would, and part it at its other commas.

    {a,b} is a and b; {50..90..10} is 50, 60 to 90, both ends included, {1..3} is 1, 2, 3; several multiply.
    Raises UserError for a brace without its other one, for an empty one, and for more than 1,000 specs.

    >>> expand("heads{10,30}:entropy,prune80")
    ['heads10:entropy', 'heads30:entropy', 'prune80']
    """
    found: list[str] = []
    for part in _parts(text, text):
        for each in _expanded(part.strip(), text):
            found.append(each)
            if len(found) > MOST:
                raise UserError(f"'{text}' stands for more than {MOST:,} specs")
    return [each for each in found if each]


def _parts(text: str, whole: str) -> list[str]:
    """Part a text at the commas that stand in no brace."""
    parts, depth = [""], 0
    for character in text:
        depth += (character == "{") - (character == "}")
        if depth < 0:
            raise UserError(f"'{whole}': a brace is closed that was never opened")
        if character == "," and not depth:
            parts.append("")
        else:
            parts[-1] += character
    if depth:
        raise UserError(f"'{whole}': a brace is never closed")
    return parts


def _expanded(text: str, whole: str) -> Iterator[str]:
    start = text.find("{")
    if start < 0:
        yield text
        return
    depth = 0
    for stop in range(start, len(text)):
        depth += (text[stop] == "{") - (text[stop] == "}")
        if not depth:
            break
    for middle in _choices(text[start + 1 : stop], whole):
        for rest in _expanded(text[stop + 1 :], whole):
            yield f"{text[:start]}{middle}{rest}"


def _choices(inside: str, whole: str) -> Iterator[str]:
    if found := RANGE.fullmatch(inside.strip()):
        first, last = int(found[1]), int(found[2])
        step = abs(int(found[3] or 1))
        if not step or abs(last - first) // step >= MOST:
            raise UserError(f"'{whole}': {{{inside}}} is no range of up to {MOST:,} steps")
        down = -1 if last < first else 1
        yield from map(str, range(first, last + down, down * step))
        return
    parts = [part.strip() for part in _parts(inside, whole)]
    if not all(parts):
        raise UserError(f"'{whole}': {{{inside}}} has an empty choice; write {{10,30}} or {{10..50..10}}")
    for part in parts:
        yield from _expanded(part, whole)
