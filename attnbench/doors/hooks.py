"""The command lines that attnbench hands over to, by the hook that other frameworks use too."""

from __future__ import annotations

from collections.abc import Callable

from attnbench.methods.hooks import hookimpl


@hookimpl
def register_backends(register: Callable[[str, str], None]) -> None:
    register("lm-eval", "attnbench.doors.lm_eval_cli")
    register("lighteval", "attnbench.doors.lighteval_cli")
