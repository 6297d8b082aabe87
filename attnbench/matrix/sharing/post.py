"""Where tasks of a cluster put what they have, until their driver takes it. Imports nothing heavy."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator
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
        self._items: dict[str, tuple[int, Any, bool]] = {}

    def put(self, column: int, item: Any, reused: bool) -> None:
        self._items[uuid.uuid4().hex] = (column, item, reused)

    def take(self, done: Iterable[str]) -> dict[str, tuple[int, Any, bool]]:
        """Return what is there but for what the driver is done with: Ctrl-C may end it while it takes."""
        for key in done:
            self._items.pop(key, None)
        return self._items


class Box:
    """The driver's side of a post."""

    def __init__(self, ray: Any) -> None:
        self._ray = ray
        self.post = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(Post).remote()
        self._done: list[str] = []  # what the post may forget

    def posted(self, timeout: float | None = None) -> Iterator[tuple[int, Any, bool]]:
        """Yield what tasks have posted; each is done with once the next is asked for."""
        found = self._ray.get(self.post.take.remote(self._done), timeout=timeout)
        self._done = []
        for key, item in found.items():
            yield item
            self._done.append(key)

    def close(self) -> None:
        self._ray.kill(self.post)
