"""Which control belongs to which method, by their specs alone: random draws at the same budget."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

CONTROLS = ("dense", "uniform")  # measured with every method
DRAWN = "random"  # the variant that every family calls its control
Key = tuple[str, ...]


class Line(Protocol):
    """What is known of a row of a table here."""

    method: str
    control_of: str | None


Lines = TypeVar("Lines", bound=Line)


def beside(blocks: Sequence[list[Lines]]) -> list[list[Lines]]:
    """Put each control (its metrics' rows) right after the first method that it is the control of.

    `prune80:random` belongs to `prune80`, `heads50:random` to the best of the `heads50:...`: first counts the
    spec without the word that makes it a control, then key=value modifiers that agree. The control's rows say
    so in `control_of`.
    """
    followers: dict[int, list[list[Lines]]] = {}
    methods = [block for block in blocks if not _is_control(block[0].method)]
    alone = []
    for block in blocks:
        if not _is_control(block[0].method):
            continue
        place = _owner(block[0].method, [each[0].method for each in methods])
        if place is None:
            alone.append(block)
            continue
        for row in block:
            row.control_of = methods[place][0].method
        followers.setdefault(place, []).append(block)
    homes = {id(block): followers.get(place, []) for place, block in enumerate(methods)}
    kept = {id(block) for block in (*methods, *alone)}
    return [each for block in blocks if id(block) in kept for each in (block, *homes.get(id(block), []))]


def _is_control(method: str) -> bool:
    return any(DRAWN in term.split(":")[1:] for term in method.split("+"))


def _owner(control: str, methods: Sequence[str]) -> int | None:
    plain = _plain(control)
    tests: tuple[Callable[[str], bool], ...] = (
        lambda method: _plain(method) == plain,
        lambda method: _budget(method, True) == _budget(control, True),
        lambda method: _budget(method, False) == _budget(control, False),
    )
    for fits in tests:
        for place, method in enumerate(methods):
            if method not in CONTROLS and fits(method):
                return place
    return None


def _plain(method: str) -> list[list[str]]:
    """Return the parts of every term but seeds and the word that makes it a control."""
    return [
        [part for part in term.split(":") if part != DRAWN and not part.startswith("seed=")]
        for term in method.split("+")
    ]


def _budget(method: str, exact: bool) -> tuple[Key, ...]:
    """Return name and amount of every term, and its key=value modifiers but seeds where `exact`."""
    terms = [term.split(":") for term in method.split("+")]
    pairs = [
        sorted(part for part in parts[1:] if exact and "=" in part and not part.startswith("seed="))
        for parts in terms
    ]
    return tuple((parts[0], *more) for parts, more in zip(terms, pairs, strict=True))
