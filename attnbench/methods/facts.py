"""What is known of a method beside its code: what its numbers were held against, what its source publishes.

It stands in a `facts.toml` in the folder of the method's file or the one above, which no hash of code covers.
"""

from __future__ import annotations

import functools
import inspect
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attnbench.errors import UserError
from attnbench.methods.protocol import Method

FILE = "facts.toml"
TABLES = {"agrees": ("with", "test"), "published": ("says", "suite")}
UNCHECKED = "no test is named that holds it against its source"


@dataclass(frozen=True)
class Facts:
    """`agrees`: (with what, by which test); `published`: (what the source says, the suite that asks it)."""

    agrees: tuple[tuple[str, str], ...] = ()
    published: tuple[tuple[str, str], ...] = ()

    def lines(self) -> list[tuple[str, str]]:
        """Return label and text of each fact."""
        told = [("agrees", f"with {what} ({test})") for what, test in self.agrees] or [("agrees", UNCHECKED)]
        return told + [("paper", f"{says} ({suite} asks)") for says, suite in self.published]


def of(cls: type[Method]) -> Facts:
    """Return what is known of a method. Raises UserError for a file that is not as it should be."""
    folder = Path(inspect.getfile(cls)).resolve().parent
    for place in (folder, folder.parent):
        if (place / FILE).is_file():
            body = _read(place / FILE)
            found = [_those(body.get(key, []), cls.name, names) for key, names in TABLES.items()]
            return Facts(*found)
    return Facts()


def _those(entries: list[dict[str, Any]], name: str, keys: tuple[str, str]) -> tuple[tuple[str, str], ...]:
    first, second = keys
    return tuple((each[first], each[second]) for each in entries if name in each["methods"])


@functools.cache
def _read(path: Path) -> dict[str, Any]:
    """Read a file of facts: tables `agrees` and `published`, each with methods and two texts."""
    try:
        body = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not readable as TOML: {error}") from None
    for key, entries in body.items():
        texts = TABLES.get(key)
        if texts is None or not isinstance(entries, list) or not all(_fits(each, texts) for each in entries):
            form = " and ".join(
                f"[[{name}]] with methods, {', '.join(keys)}" for name, keys in TABLES.items()
            )
            raise UserError(f"{path}: {key} is not as it should be: {form}")
    return body


def _fits(entry: Any, texts: tuple[str, ...]) -> bool:
    return (
        isinstance(entry, dict)
        and {*entry} == {"methods", *texts}
        and isinstance(entry["methods"], list)
        and all(isinstance(each, str) for each in (*entry["methods"], *(entry[key] for key in texts)))
    )
