"""Read JSON Lines of somebody else's: an object a line, no key twice. Every mistake is named by its line."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

from attnbench.errors import UserError


def json_rows(path: str, content: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the objects of JSON Lines with the numbers of their lines. Raises UserError for what is none."""
    for number, line in enumerate(content.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line, object_pairs_hook=_object)
        except _Twice as twice:
            raise UserError(f"{path}, line {number}: '{twice}' stands there twice") from twice
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path}, line {number}: not JSON: {error}") from error
        if not isinstance(row, dict):
            raise UserError(f"{path}, line {number}: {type(row).__name__} instead of an object")
        yield number, row


class _Twice(Exception):
    """A key that an object has twice: JSON would take the last without a word."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise _Twice(Counter(key for key, _ in pairs).most_common(1)[0][0])
    return found
