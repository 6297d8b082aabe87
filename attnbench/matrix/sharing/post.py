"""Where tasks of a cluster put what they have, until their driver takes it. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass
class Began:
    """The first that a task posts: where it is, by which it is named if it is lost."""

    node: str


@dataclass
class Ended:
    """The last that a task posts: what kept its column from being measured, if anything did."""

    mistake: str | None


class Post:
    """Where tasks put what they have, until the driver takes it."""

    def __init__(self) -> None:
        self._items: list[tuple[int, Any, bool]] = []

    def put(self, column: int, item: Any, reused: bool) -> None:
        self._items.append((column, item, reused))

    def take(self) -> list[tuple[int, Any, bool]]:
        items, self._items = self._items, []
        return items
