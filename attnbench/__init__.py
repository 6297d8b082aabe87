"""Benchmark attention-compression methods over a matrix of models and tasks.

>>> import attnbench
>>> with attnbench.apply(model, "prune80+logquant3"):  # doctest: +SKIP
...     model(**batch)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attnbench.method import Method, Site
from attnbench.plugins import hookimpl
from attnbench.spec import format, parse

if TYPE_CHECKING:
    from attnbench.attention import apply, transform, watch
    from attnbench.models import checkpoint
    from attnbench.realised import realize
    from attnbench.runner import run

__version__ = "0.1.0"

__all__ = [
    "Method",
    "Site",
    "apply",
    "checkpoint",
    "format",
    "hookimpl",
    "parse",
    "realize",
    "run",
    "transform",
    "watch",
]

_LAZY = {
    "apply": "attnbench.attention",
    "checkpoint": "attnbench.models",
    "realize": "attnbench.realised",
    "run": "attnbench.runner",
    "transform": "attnbench.attention",
    "watch": "attnbench.attention",
}


def __getattr__(name: str) -> Any:
    # torch is imported only by what needs it: `attnbench --help` answers at once
    if name in _LAZY:
        import importlib

        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'attnbench' has no attribute '{name}'")
