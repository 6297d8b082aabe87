"""Evaluation backends, registered through the same hook as anybody's."""

from __future__ import annotations

from collections.abc import Callable

from attnbench.plugins import hookimpl


@hookimpl
def register_backends(register: Callable[[str, str], None]) -> None:
    register("lm-eval", "attnbench.backends.lm_eval")
