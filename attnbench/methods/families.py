"""What a spec is apart from its amounts, or from one modifier: a sweep is one family."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

AMOUNT = re.compile(r"(?<=[a-z])\d+(?:\.\d+)?$")
NUMERIC = re.compile(r":(?!seed=)[^:+=]+=(\d+(?:\.\d+)?)(?=[:+]|$)")


def name_without_seed(method: str) -> str:
    """Return a spec without its seeds: all draws of one method share it."""
    return re.sub(r":seed=[^:+]*", "", method)


def family(method: str) -> str:
    """Return a spec without its amounts: prune80:random+logquant3 is prune:random+logquant."""
    terms = [term.partition(":") for term in name_without_seed(method).split("+")]
    return "+".join(AMOUNT.sub("", name) + colon + rest for name, colon, rest in terms)


def amounts(method: str) -> tuple[float, ...]:
    """Return the amounts of a spec's terms: a sweep goes along them."""
    found = [AMOUNT.search(term.partition(":")[0]) for term in method.split("+")]
    return tuple(float(match[0]) if match else 0.0 for match in found)


def order(method: str) -> tuple[list[tuple[str, float]], tuple[float, ...], list[tuple[str, float]], str]:
    """Return what sorts specs by family, then amount, then modifiers, in which 2 comes before 10."""
    return _natural(family(method)), amounts(method), _natural(method), method


def _natural(text: str) -> list[tuple[str, float]]:
    return [(word, float(number or 0)) for word, number in re.findall(r"(\D*)(\d*)", text) if word or number]


def modifier_sweeps(measured: Mapping[str, float]) -> dict[str, tuple[str, float]]:
    """Group specs that are alone in their family by the one numeric modifier in which they differ.

    `measured` has what each spec came to: where a modifier changes none of it there is no sweep. Returns a
    family such as gates:l0:penalty=*, and the modifier's value, for each spec that is in one.
    """
    names = [family(method) for method in measured]
    groups: dict[str, dict[str, float]] = {}
    for method, name in zip(measured, names, strict=True):
        if names.count(name) == 1:
            for opened, value in _opened(method):
                groups.setdefault(opened, {})[method] = value
    found: dict[str, tuple[str, float]] = {}
    for opened, members in sorted(groups.items(), key=lambda group: -len(group[1])):
        mine = {method: value for method, value in members.items() if method not in found}
        if len({measured[method] for method in mine}) > 1:
            found |= {method: (opened, value) for method, value in mine.items()}
    return found


def _opened(method: str) -> Iterator[tuple[str, float]]:
    """Yield a spec with each of its numeric modifiers left open, and that modifier's value."""
    for match in NUMERIC.finditer(method):
        yield method[: match.start(1)] + "*" + method[match.end(1) :], float(match[1])
