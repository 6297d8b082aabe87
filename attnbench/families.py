"""What a spec is apart from its amounts: a sweep is one family."""

from __future__ import annotations

import re

AMOUNT = re.compile(r"(?<=[a-z])\d+(?:\.\d+)?$")


def family(method: str) -> str:
    """Return a spec without its amounts: prune80:random+logquant3 is prune:random+logquant."""
    terms = [term.partition(":") for term in re.sub(r":seed=[^:+]*", "", method).split("+")]
    return "+".join(AMOUNT.sub("", name) + colon + rest for name, colon, rest in terms)


def amounts(method: str) -> tuple[float, ...]:
    """Return the amounts of a spec's terms: a sweep goes along them."""
    found = [AMOUNT.search(term.partition(":")[0]) for term in method.split("+")]
    return tuple(float(match[0]) if match else 0.0 for match in found)
