"""Read a JSON that anybody may have written: no number that is none, nothing too long or too deep."""

from __future__ import annotations

import json
import math
import re
from typing import Any, NoReturn

DEEPEST = 50  # levels
DIGITS = 1000  # of a whole number


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number of JSON")


def _whole(digits: str) -> int:
    if len(digits) > DIGITS:
        raise ValueError(f"a number of {len(digits):,} digits")
    return int(digits)


def _depth(value: Any) -> int:
    deepest, waiting = 0, [(value, 0)]
    while waiting:
        inner, depth = waiting.pop()
        deepest = max(deepest, depth)
        if isinstance(inner, dict | list):
            waiting += [(each, depth + 1) for each in (inner.values() if isinstance(inner, dict) else inner)]
    return deepest


def _real(digits: str) -> float:
    if math.isinf(value := float(digits)):
        raise ValueError(f"a number of {len(digits):,} characters that is too large")
    return value


_DECODER = json.JSONDecoder(parse_constant=_refuse, parse_int=_whole)
_CAREFUL = json.JSONDecoder(parse_constant=_refuse, parse_int=_whole, parse_float=_real)  # a third slower
LARGE = re.compile(r"[eE]\+?\d{3}|\d{300}")  # that a number beyond any other has


def of(text: str) -> Any:
    """Return what a JSON holds. Raises ValueError for what is none, RecursionError for one too deep."""
    return (_CAREFUL if LARGE.search(text) else _DECODER).decode(text)


def deep(text: str, body: Any) -> bool:
    """Tell whether what a text holds is nested deeper than any record is."""
    return text.count("{") + text.count("[") > DEEPEST and _depth(body) > DEEPEST
