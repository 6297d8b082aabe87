"""What `attnbench check` found of a method's code, kept for this user's runs by the code's hash."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Sequence
from pathlib import Path

from attnbench.errors import UserError
from attnbench.methods import spec
from attnbench.methods.code import code_of
from attnbench.methods.protocol import Method

SHIPPED, PASSED, FAILED, UNCHECKED = "shipped", "passed", "failed", "unchecked"
LARGEST = 1 << 16


def folder() -> Path:
    """Return where verdicts are kept: `attnbench/checks` in the user's state."""
    state = os.environ.get("XDG_STATE_HOME") or os.environ.get("LOCALAPPDATA")
    return Path(state or Path.home() / ".local" / "state") / "attnbench" / "checks"


def keep(methods: Sequence[Method], failed: Sequence[str]) -> None:
    """Keep which checks failed; nothing where the folder cannot be written or the code is in no file."""
    with contextlib.suppress(OSError, RuntimeError, UserError):
        code = code_of(methods)
        known = _known(code) | {spec.format(methods): list(failed)}
        path = folder() / f"{code}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.{os.getpid()}")
        part.write_text(json.dumps(known, indent=1), encoding="utf-8")
        os.replace(part, path)


def of(methods: Sequence[Method]) -> str:
    """Say what is known of methods' code: shipped, passed, unchecked, or "failed: " and the checks.

    What the package ships is checked by its own tests, and is failed only where it failed here. A spec that
    was checked itself speaks for itself, else one that failed for all of the same code.
    """
    whole = _known(code_of(methods)).get(spec.format(methods)) if len(methods) > 1 else None
    if whole is not None:
        return f"{FAILED}: {', '.join(whole)}" if whole else PASSED
    found = [_of(method) for method in methods]
    failed = [each for each in found if each.startswith(FAILED)]
    if failed:
        return failed[0]
    return next((word for word in (UNCHECKED, PASSED) if word in found), SHIPPED)


def _of(method: Method) -> str:
    known = _known(code_of([method]))
    own = known.get(spec.format([method]))
    checks = own if own is not None else next(filter(None, known.values()), [])
    if checks:
        return f"{FAILED}: {', '.join(checks)}"
    if type(method).__module__.partition(".")[0] in ("attnbench", "attnbench_plugins"):
        return SHIPPED
    return PASSED if known else UNCHECKED


def _known(code: str) -> dict[str, list[str]]:
    """Return the failed checks of every spec that was checked with this code."""
    try:
        path = folder() / f"{code}.json"
        content = json.loads(path.read_text(encoding="utf-8")) if path.stat().st_size < LARGEST else {}
    except (OSError, ValueError, RuntimeError, RecursionError):  # none, of another make, or no home
        return {}
    found = content if isinstance(content, dict) else {}
    return {name: list(map(str, failed)) for name, failed in found.items() if isinstance(failed, list)}
