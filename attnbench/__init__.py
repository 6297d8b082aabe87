"""Benchmark attention-compression methods over a matrix of models and tasks.

>>> import attnbench
>>> with attnbench.apply(model, "prune80+logquant3"):  # doctest: +SKIP
...     model(**batch)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attnbench.methods.plugins import hookimpl
from attnbench.methods.protocol import Method, Site
from attnbench.methods.spec import format, parse

if TYPE_CHECKING:
    from attnbench.boards.result import run
    from attnbench.engine.realised.removal import realize
    from attnbench.engine.serving.attention import apply, transform, watch
    from attnbench.inputs.models import checkpoint

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

_MODULES = {
    "plugins": "attnbench.methods.plugins",
    "sidecar": "attnbench.engine.realised.sidecar",
    "sites": "attnbench.engine.places.sites",
}
_LAZY = {
    "apply": "attnbench.engine.serving.attention",
    "checkpoint": "attnbench.inputs.models",
    "realize": "attnbench.engine.realised.removal",
    "run": "attnbench.boards.result",
    "transform": "attnbench.engine.serving.attention",
    "watch": "attnbench.engine.serving.attention",
}


def __getattr__(name: str) -> Any:
    # torch is imported only by what needs it: `attnbench --help` answers at once
    import importlib

    if name in _MODULES:
        return importlib.import_module(_MODULES[name])
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'attnbench' has no attribute '{name}'")
