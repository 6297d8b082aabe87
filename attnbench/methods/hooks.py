"""The hooks of a plugin, and what is wrong with one that is none of them."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pluggy

from attnbench.errors import near
from attnbench.methods.protocol import Method
from attnbench.methods.study import Study

PROJECT = "attnbench"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


class Hooks:
    """What a plugin may implement. Each hook hands over a `register` callable."""

    @hookspec
    def register_methods(self, register: Callable[[type[Method]], None]) -> None:
        """Call `register(MethodClass)` for every method the plugin brings."""

    @hookspec
    def register_studies(self, register: Callable[[type[Study]], None]) -> None:
        """Call `register(StudyClass)` for every study the plugin brings."""

    @hookspec
    def register_backends(self, register: Callable[[str, str], None]) -> None:
        """Call `register(name, "package.module")` for every evaluation framework the plugin hands over to.

        `attnbench NAME ARGUMENTS` then calls `main(ARGUMENTS)` of the module, a list of texts; what it
        returns is the exit status.
        """


class Misnamed(Exception):
    """A hook of another name or argument than any there is."""


def require(manager: pluggy.PluginManager, module: Any) -> None:
    """Raise Misnamed for a hook of another name, or one with another argument than `register`."""
    known = [name for name in vars(Hooks) if name.startswith("register_")]
    for name in dir(module):
        options = manager.parse_hookimpl_opts(module, name)
        if options is None:
            continue
        hook = options.get("specname") or name
        if hook not in known:
            shown = " and ".join(f"{each}(register)" for each in known)
            raise Misnamed(f"unknown hook '{hook}'.{near(hook, known, 0.8)} There are {shown}.")
        given = [*inspect.signature(getattr(module, name)).parameters]
        if given != ["register"]:
            raise Misnamed(f"{hook}({', '.join(given)}): its argument is register: def {hook}(register)")
