"""A method's code as one hash: what is written there decides numbers, its words and layout do not."""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.util
import inspect
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from attnbench.errors import UserError
from attnbench.method import Method

LEARNING = ("attnbench.gates", "attnbench.training")  # of the core, what fits are made of


def code_of(methods: Sequence[Method]) -> str:
    """Hash the methods' code: each class and its parents, and what else their files hold and import.

    Of a file count its functions, constants and classes that are no methods; of its imports, those from its
    own package and from LEARNING, and theirs. Comments, docstrings and layout do not count: the hash is over
    the syntax tree. What the core does is counted by NUMERICS.
    """
    classes = [
        cls
        for cls in dict.fromkeys(cls for method in methods for cls in type(method).__mro__)
        if issubclass(cls, Method) and cls is not Method
    ]
    digest, read = hashlib.sha256(), {cls.__module__ for cls in classes}
    waiting: list[str] = []
    for cls in classes:
        own = [node for node in _tree(cls.__module__).body if _defines(node, cls.__name__)]
        nodes = [*_shared(cls.__module__), *own]
        _add(digest, nodes)
        waiting += _imported(cls.__module__, nodes)
    while waiting:
        module = waiting.pop(0)
        if module not in read:
            read.add(module)
            nodes = list(_shared(module))
            _add(digest, nodes)
            waiting += _imported(module, nodes)
    return digest.hexdigest()


def _add(digest: Any, nodes: Iterable[ast.AST]) -> None:
    for node in nodes:
        digest.update(_text(node))


def _defines(node: ast.AST, name: str) -> bool:
    return isinstance(node, ast.ClassDef) and node.name == name


def _shared(module: str) -> Iterator[ast.stmt]:
    """List what all methods of a file may use: everything but the methods and the imports."""
    for node in _tree(module).body:
        if isinstance(node, ast.ClassDef):
            found = getattr(sys.modules.get(module), node.name, None)
            if isinstance(found, type) and issubclass(found, Method) and module not in LEARNING:
                continue
        if not isinstance(node, ast.Import | ast.ImportFrom):
            yield node


def _imported(module: str, nodes: Sequence[ast.AST]) -> list[str]:
    """Name the modules of its own package, and of LEARNING, that a file's head and these nodes import."""
    heads = [node for node in _tree(module).body if isinstance(node, ast.Import | ast.ImportFrom)]
    package = module.partition(".")[0]
    found: list[str] = []
    for node in (inner for outer in (*heads, *nodes) for inner in ast.walk(outer)):
        if isinstance(node, ast.ImportFrom):
            base = _absolute(module, node)
            found += [base, *(f"{base}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
    return [
        name
        for name in dict.fromkeys(found)
        if name in LEARNING
        or (package != "attnbench" and name.startswith(f"{package}.") and _is_module(name))
    ]


def _absolute(module: str, node: ast.ImportFrom) -> str:
    """Return the module that names come from: `from .maths import f` in pack.methods is pack.maths."""
    if not node.level:
        return node.module or ""
    found = importlib.util.find_spec(module)
    parts = ((found and found.parent) or "").split(".")
    return ".".join(filter(None, [*parts[: len(parts) - node.level + 1], node.module or ""]))


def _is_module(name: str) -> bool:
    try:
        return name in sys.modules or importlib.util.find_spec(name) is not None
    except ImportError:  # a name inside a module
        return False


@functools.cache
def _source(module: str) -> str:
    # read once: what was loaded is what runs, whatever happens to its file meanwhile
    if module in sys.modules:
        try:
            return inspect.getsource(sys.modules[module])
        except (OSError, TypeError):
            raise UserError(
                f"the code of {module} stands in no file, as that of a method has to: put it into one. "
                "`attnbench new-method` writes a first one."
            ) from None
    found = importlib.util.find_spec(module)
    return "" if found is None or found.origin is None else Path(found.origin).read_text(encoding="utf-8")


def _tree(module: str) -> ast.Module:
    return _parsed(_source(module))


@functools.cache
def _parsed(source: str) -> ast.Module:
    return ast.parse(source)


@functools.cache
def _text(node: ast.AST) -> bytes:
    return ast.unparse(without_docstrings(node)).encode()


def without_docstrings(tree: ast.AST) -> ast.AST:
    """Drop the docstrings of a syntax tree, in place."""
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if (
            isinstance(body, list)
            and body
            and isinstance(body[0], ast.Expr)
            and isinstance(body[0].value, ast.Constant)
        ):
            node.body = body[1:] or [ast.Pass()]  # type: ignore[attr-defined]
    return tree
