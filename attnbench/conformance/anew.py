"""The same methods made anew: from their spec, or from a file that has seen no sample yet."""

from __future__ import annotations

import contextlib
import copy
import importlib.util
import sys
from collections.abc import Iterator, Sequence
from types import ModuleType

from attnbench.methods import spec
from attnbench.methods.plugins import registry
from attnbench.methods.protocol import Method


def made(terms: Sequence[Method]) -> tuple[Method, ...]:
    """Make unfitted methods again, as a run does: from their spec; copy them where it does not give them."""
    with contextlib.suppress(Exception):  # of what is wrong with a spec the check `spec` tells
        again = spec.parse(spec.format(terms))
        if again == tuple(terms):
            return again
    return copy.deepcopy(tuple(terms))


@contextlib.contextmanager
def reloaded(methods: Sequence[Method]) -> Iterator[tuple[Method, ...] | None]:
    """Give methods the code of their files read once more, what they learned kept; None where that fails.

    What a stage keeps beside its method, in its class or its file, starts empty there.
    """
    modules: dict[str, ModuleType | None] = {}
    try:
        for cls in dict.fromkeys(map(type, methods)):
            if cls.__module__ not in modules:
                modules[cls.__module__] = _copy(cls.__module__) if is_plugin(cls) else None
        moved = copy.deepcopy(tuple(methods))
        try:
            for method in moved:
                method.__class__ = getattr(modules[type(method).__module__], type(method).__qualname__)
        except (AttributeError, TypeError):  # a class in a function, slots
            yield None
        else:
            yield moved
    finally:
        for module in filter(None, modules.values()):
            sys.modules.pop(module.__name__, None)


def is_plugin(cls: type[Method]) -> bool:
    """Tell whether a class's file may be read again: a script that checks its own would do so without end."""
    return cls.__module__ != "__main__" and registry().methods.get(cls.name) is cls


def _copy(name: str) -> ModuleType | None:
    module = sys.modules.get(name)
    file = getattr(module, "__file__", None)
    if file is None or hasattr(module, "__path__"):
        return None
    found = importlib.util.spec_from_file_location(f"{name}_again", file)
    if found is None or found.loader is None:
        return None
    again = importlib.util.module_from_spec(found)
    sys.modules[found.name] = again  # dataclasses look their module up there
    try:
        found.loader.exec_module(again)
    except Exception:
        sys.modules.pop(found.name, None)
        return None
    return again
