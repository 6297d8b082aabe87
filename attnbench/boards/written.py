"""TOML files that hold boards: read, their keys and lists checked. Imports nothing heavy."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from attnbench.errors import UserError, near_file, unknown
from attnbench.inputs import files

LARGEST = 1 << 20  # bytes of a file
TOML = ".toml"
LOOK = "look"  # tables of this name make a file one of looks, which `findings` reads; others are suites


def content(path: Path) -> dict[str, Any]:
    """Read a TOML file. Raises UserError where that cannot be."""
    try:
        return tomllib.loads(files.content(path, LARGEST).decode("utf-8"))
    except FileNotFoundError:
        raise UserError(
            f"suite {path}: no such file.{near_file(path, (TOML,))} A suite is a TOML file."
        ) from None
    except OSError as error:
        raise UserError(f"suite {path}: {error.strerror or error}") from None
    except files.Unreadable as error:
        raise UserError(f"suite {path}: {error}") from None
    except (ValueError, RecursionError) as error:
        data = "" if path.suffix == TOML else f" Data of your own: --tasks {path}"
        raise UserError(f"suite {path}: not TOML: {error}.{data}") from None


def check_keys(where: str, body: dict[str, Any], known: Sequence[str]) -> None:
    """Raise UserError for a key that is none of these."""
    for key in body:
        if key not in known:
            raise unknown("key", key, known, f"{where} may have {', '.join(known)}.")


def texts(where: str, key: str, value: Any) -> tuple[str, ...]:
    """Return a list of texts, each once. Raises UserError for anything else."""
    if not isinstance(value, list) or not all(isinstance(item, str) and item.strip() for item in value):
        raise UserError(f"{where}: {key} is a list of texts, as in {key} = ['...']")
    return tuple(dict.fromkeys(value))
