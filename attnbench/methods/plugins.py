"""Find methods, studies and backends: built-ins, entry points, files, all through the same hooks."""

from __future__ import annotations

import functools
import hashlib
import importlib
import importlib.util
import re
import shlex
import sys
from collections.abc import Callable, Iterable
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

import pluggy

from attnbench.errors import UserError, described, near, near_file, said, tell
from attnbench.methods import declared, hooks
from attnbench.methods.declared import place
from attnbench.methods.hooks import PROJECT, Hooks, Misnamed
from attnbench.methods.protocol import Method
from attnbench.methods.study import Study

__all__ = ["load", "registry"]


class Registry:
    """What plugins register in this process; of a name registered twice, the first is kept and named."""

    def __init__(self) -> None:
        self.methods: dict[str, type[Method]] = {}
        self.studies: dict[str, type[Study]] = {}
        self.backends: dict[str, str] = {}
        self.broken: list[str] = []  # one line a plugin that could not be loaded
        self.contested: dict[str, str] = {}  # a method's name that several classes want -> where they are
        self._taken = 0
        self._manager = pluggy.PluginManager(PROJECT)
        self._manager.add_hookspecs(Hooks)

    def add(self, module: Any) -> None:
        """Register one plugin module through the hooks; a second time changes nothing."""
        if self._manager.is_registered(module):
            return
        hooks.require(self._manager, module)
        others = self._manager.get_plugins()
        self._manager.register(module)
        try:
            self._manager.check_pending()
            for hook, register in (
                ("register_methods", self._add_method),
                ("register_studies", self._add_study),
                ("register_backends", self._add_backend),
            ):
                self._manager.subset_hook_caller(hook, remove_plugins=others)(register=register)
        except BaseException:
            self._manager.unregister(module)  # else every later plugin would be blamed for it
            raise

    def _add_method(self, cls: type[Method]) -> None:
        self._taken += 1
        declared.require(cls)
        if self.methods.setdefault(cls.name, cls) is not cls:
            self.contested[cls.name] = _twice("method", self.methods[cls.name], cls)
            tell(self.contested[cls.name])

    def _add_study(self, cls: type[Study]) -> None:
        self._taken += 1
        declared.require_study(cls)
        if self.studies.setdefault(cls.name, cls) is not cls:
            tell(_twice("study", self.studies[cls.name], cls))

    def _add_backend(self, name: str, module: str) -> None:
        self._taken += 1
        if self.backends.get(name, module) != module:
            raise UserError(
                f"backend '{name}' is registered twice: {self.backends[name]} and {module}. Rename one."
            )
        self.backends[name] = module

    def backend(self, name: str) -> Callable[[list[str]], int]:
        """Import the module of a backend and return its `main`. Raises UserError where there is none."""
        module = self.backends[name]
        try:
            main: Callable[[list[str]], int] = importlib.import_module(module).main
        except (ImportError, AttributeError) as error:
            raise UserError(f"backend '{name}' cannot be had from {module}: {error}") from error
        return main

    def try_add(self, source: str, load: Callable[[], Any], asked: bool = False) -> None:
        """Load a plugin that is not ours: when it breaks it is named on stderr and the rest goes on.

        Raises UserError for a mistake in what it registers, where it was `asked` for by its own path.
        """
        before = {name: dict(vars(self)[name]) for name in ("methods", "studies", "backends", "contested")}
        taken = self._taken
        try:
            module = load()
            new = not self._manager.is_registered(module)
            self.add(module)
            if new and self._taken == taken:
                self._idle(source, module, asked)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            if asked and isinstance(error, UserError):
                raise
            vars(self).update(before)
            told = isinstance(error, UserError | Misnamed)
            reason = said(error) if told else _reason(error)
            self._leave_out(f"plugin {source} is left out: {reason}")

    def _idle(self, source: str, module: Any, asked: bool) -> None:
        """Tell of a plugin that registers nothing, where it was asked for or holds a method or a study."""
        held = getattr(module, "__dict__", {})
        own = [
            name
            for name, each in held.items()
            if isinstance(each, type)
            and issubclass(each, Method | Study)
            and each.__module__ == held.get("__name__")
        ]
        if not asked and not own:  # a test, or what the plugins of a folder share
            return
        self._manager.unregister(module)
        cls = own[0] if own else "METHOD"
        hook = "register_studies" if own and issubclass(held[cls], Study) else "register_methods"
        text = f"plugin {source} registers nothing: "
        if any(self._manager.parse_hookimpl_opts(module, name) for name in held):
            text += f"its hook never calls register({cls})"
        elif hook in held:
            text += f"@hookimpl is missing above its def {hook}(register)"
        else:
            text += f"end it with @hookimpl def {hook}(register): register({cls})"
        if asked:
            raise UserError(text)
        self._leave_out(text)

    def _leave_out(self, line: str) -> None:
        if line not in self.broken:
            self.broken.append(line)
            tell(line)


def _twice(kind: str, first: type, second: type[Method | Study]) -> str:
    return f"{kind} '{second.name}' is registered twice: {place(first)}, {place(second)}. Rename one."


def _reason(error: BaseException) -> str:
    """Write an error as one line; of a name that attnbench does not have, with the near one."""
    text = described(error)
    missing = re.search(rf"cannot import name '(\w+)' from '{PROJECT}'", text)
    return f"{text[: missing.end()]}.{near(missing[1], dir(sys.modules[PROJECT]))}" if missing else text


def import_file(path: Path) -> ModuleType:
    """Import one file as a plugin. It is in `sys.modules` first: dataclasses look their module up there."""
    whole = str(path.resolve())
    digest = hashlib.sha256(whole.encode(errors="surrogateescape")).hexdigest()[:12]
    name = f"attnbench_plugin_{re.sub(r'[^a-zA-Z0-9]', '_', whole)}_{digest}"  # a-b.py is not a_b.py
    _typed.setdefault(name, str(path))
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UserError(f"--plugin {path}: not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def option(cls: type) -> str:
    """Return what a next command needs for a class of a file that was given: ` --plugin FILE`."""
    file = _typed.get(cls.__module__)
    return f" --plugin {shlex.quote(file)}" if file else ""


def builtin_modules() -> list[str]:
    folder = Path(importlib.import_module("attnbench_plugins").__path__[0])
    files = [*sorted(folder.glob("*.py")), *sorted(folder.glob("[!_]*/*.py"))]
    names = [path.relative_to(folder).with_suffix("").parts for path in files if path.stem[0] != "_"]
    return ["attnbench.doors.hooks", *(".".join(("attnbench_plugins", *parts)) for parts in names)]


_registry: Registry | None = None
_typed: dict[str, str] = {}  # the module of a plugin file -> its path as it was given


def registry() -> Registry:
    """Return this process's registry, loading the built-ins and the installed plugins the first time."""
    global _registry
    if _registry is None:
        loading = Registry()
        for name in builtin_modules():
            loading.add(importlib.import_module(name))
        # pluggy's own loader would let one bad entry point stop all the others
        for entry in sorted(metadata.entry_points(group=PROJECT), key=lambda entry: entry.value):
            loading.try_add(f"{entry.name} ({entry.value})", entry.load)
        _registry = loading
    return _registry


def load(files: Iterable[str] = (), folders: Iterable[str] = ()) -> None:
    """Add plugin files, and every `*.py` of plugin folders, each once.

    Raises UserError for a path that is not there, and for a mistake in what one of `files` registers.
    """
    paths = {Path(file).resolve(): Path(file) for file in files}
    asked = set(paths)
    for path in paths.values():
        if path.is_dir():
            raise UserError(f"--plugin {path}: is a folder: --plugins-dir {path}")
        if not path.is_file():
            raise UserError(f"--plugin {path}: no such file.{near_file(path, ['.py'])}")
    for folder in map(Path, folders):
        if folder.is_file():
            raise UserError(f"--plugins-dir {folder}: is a file: --plugin {folder}")
        if not folder.is_dir():
            raise UserError(f"plugins folder {folder}: no such folder.{near_file(folder)}")
        for path in sorted(folder.glob("*.py")):
            if not path.name.startswith("_"):
                paths.setdefault(path.resolve(), path)
    for whole, path in paths.items():
        registry().try_add(str(path), functools.partial(import_file, path), whole in asked)
