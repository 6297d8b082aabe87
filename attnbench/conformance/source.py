"""What a method's source promises: its spec, its docstring, its imports, its stages."""

from __future__ import annotations

import difflib
import functools
import inspect
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

from attnbench.conformance.anew import is_plugin
from attnbench.conformance.subject import Fault
from attnbench.errors import NotApplicable
from attnbench.methods import spec
from attnbench.methods.plugins import registry
from attnbench.methods.protocol import STAGES, Method, needs_fit, overridden

HEAVY = ("torch", "transformers", "datasets", "lm_eval", "pandas")  # none may be imported with a plugin
PRESENT_S = {"bias", "compress", "discuss", "express", "focus", "guess", "pass", "process", "suppress"}
LIKE, ALIKE = 0.6, 0.8  # how near a name is to one that nothing overrides; where something does
NO_VERBS = {"a", "an", "the", "this", "these", "it", "class", "method", "implementation"}


def round_trip(terms: tuple[Method, ...]) -> str:
    """The canonical spec reads back as the same methods."""
    for term in terms:
        cls = type(term)
        known = {item.name for item in fields(cls)}
        bare = [
            key for key, kind in vars(cls).get("__annotations__", {}).items() if "ClassVar" not in str(kind)
        ]
        if set(bare) - known:
            raise Fault(
                f"{cls.__name__} annotates {', '.join(sorted(set(bare) - known))}: is @dataclass missing?"
            )
        if registry().methods.get(cls.name) is not cls:
            raise Fault(f"{cls.__name__} is not registered as '{cls.name}'")
        for example in cls.examples:
            spec.parse(example)
        if not cls.examples:
            raise Fault(f"{cls.name} has no `examples`: specs that tests and docs run")
    text = spec.format(terms)
    again = spec.parse(text)
    if again != terms:
        raise Fault(f"{text} reads back as {spec.format(again)}, {again} for {terms}")
    return text


def docstring(terms: tuple[Method, ...]) -> str:
    """The first line says in the imperative what the method does, and a link says where it comes from."""
    for cls in map(type, terms):
        text = (cls.__doc__ or "").strip()
        if not text or text.startswith(f"{cls.__name__}("):
            raise Fault(f"{cls.__name__} has no docstring")
        first, _, rest = text.partition("\n")
        verb = (re.findall(r"[a-z]+", first.lower()) or [""])[0]
        if not first.endswith((".", ":")) or (rest and rest.splitlines()[0].strip()):
            raise Fault(f"the first line of {cls.__name__}'s docstring is no sentence of its own: {first!r}")
        if verb in NO_VERBS or verb.endswith("ing") or (verb.endswith("s") and verb not in PRESENT_S):
            raise Fault(
                f"{cls.__name__}'s docstring begins with '{verb}', not with a verb as in 'Zero every ...'"
            )
        if not re.search(r"https://\S+\.\S+", text):
            raise Fault(f"{cls.__name__}'s docstring has no link (https://...) to its source")
    return "imperative, with a source"


def imports(terms: tuple[Method, ...]) -> str:
    """A fresh interpreter imports the plugin's file without torch."""
    seen = []
    for cls in map(type, terms):
        module = sys.modules.get(cls.__module__)
        file = getattr(module, "__file__", None)
        if not is_plugin(cls):
            raise NotApplicable(f"{cls.__name__} is no registered plugin's")
        if file is None:
            raise NotApplicable(f"{cls.__name__} is in no file")
        package = getattr(module, "__package__", "")
        heavy, problem = heavy_imports(cls.__module__ if package else "", file, Path(file).stat().st_mtime_ns)
        if problem:
            raise Fault(f"{file} does not import by itself: {problem}")
        if heavy:
            raise Fault(
                f"{file} imports {heavy} at its top, or takes from attnbench there what imports it: "
                "import it inside the functions that need it"
            )
        seen.append(Path(file).name)
    return ", ".join(dict.fromkeys(seen))


@functools.cache
def heavy_imports(name: str, file: str, changed: int) -> tuple[str, str]:
    code = (
        "import importlib, pathlib, sys, attnbench, attnbench.methods.plugins as p\n"
        f"importlib.import_module({name!r}) if {name!r} else p.import_file(pathlib.Path({file!r}))\n"
        f"print(*[m for m in {HEAVY!r} if m in sys.modules])"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    problem = (done.stderr.strip().splitlines() or ["?"])[-1] if done.returncode else ""
    return done.stdout.strip(), problem


def _misspelt(cls: type[Method], inert: bool) -> Iterator[str]:
    """Yield which public method of a class looks like one of the protocol that it does not override.

    Where the class is not `inert`, the name has to be nearer and to take as many arguments.
    """
    known = [name for name in (*STAGES, "fit", "realize") if getattr(cls, name) is getattr(Method, name)]
    own = {
        name: len(inspect.signature(item).parameters)
        for base in cls.__mro__
        if issubclass(base, Method)
        for name, item in vars(base).items()
        if inspect.isfunction(item) and not name.startswith("_") and not hasattr(Method, name)
    }
    for name, takes in own.items():
        fitting = [each for each in known if inert or takes == _arguments(each)]
        for found in difflib.get_close_matches(name, fitting, 1, LIKE if inert else ALIKE):
            yield f"'{name}' looks like {found}"


def _arguments(name: str) -> int:
    return len(inspect.signature(getattr(Method, name)).parameters)


def stages(terms: tuple[Method, ...]) -> str:
    """Every method overrides a stage, or learns."""
    for cls, term in ((type(term), term) for term in terms):
        inert = not overridden(term) and not needs_fit(term)
        near = "; ".join(_misspelt(cls, inert))
        if inert:
            raise Fault(f"{cls.__name__} overrides none of {', '.join(STAGES)}{near and f': {near}'}")
        if near:
            raise Fault(f"{cls.__name__}: {near}, but nothing calls it: rename it, or begin it with _")
    return ", ".join(dict.fromkeys(stage for term in terms for stage in overridden(term))) or "none"
