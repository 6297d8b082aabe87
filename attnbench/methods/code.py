"""The code of a method or a study as one hash: what it does counts, its words and layout do not."""

from __future__ import annotations

import ast
import copy
import functools
import hashlib
import importlib.util
import inspect
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TypeGuard

from attnbench.errors import UserError
from attnbench.methods.protocol import Method
from attnbench.methods.study import Study

MARK = "PART_OF_METHODS"  # a file of the core that sets it counts for whatever imports from it


def code_of(methods: Sequence[Method | Study]) -> str:
    """Hash the methods' code: each class and its parents, and what else their files hold and use of others.

    Of a file count its functions, constants and classes that are no methods. Where something imported is
    defined counts too: in the file's own package, or in a file of the core that sets MARK. Import lines,
    comments, docstrings and layout do not count, nor does where a file lies or how often what it defines is
    passed on: the hash is over syntax trees. What the rest of the core does is counted by NUMERICS.
    """
    classes = [
        cls
        for cls in dict.fromkeys(cls for method in methods for cls in type(method).__mro__)
        if issubclass(cls, Method | Study) and cls not in (Method, Study)
    ]
    parts = set()
    waiting: list[str] = []
    for cls in classes:
        own = [node for node in _tree(cls.__module__).body if _defines(node, cls.__name__)]
        parts |= {_hash(own), _hash(_shared(cls.__module__))}
        waiting += _used(cls.__module__, own)
    read = {cls.__module__ for cls in classes}
    waiting += [used for module in read for used in _used(module, _shared(module))]
    while waiting:
        module = waiting.pop()
        if module not in read:
            read.add(module)
            parts.add(_hash(_shared(module)))
            waiting += _used(module, _shared(module))
    return hashlib.sha256("".join(sorted(parts)).encode()).hexdigest()


def _hash(nodes: Sequence[ast.stmt]) -> str:
    return hashlib.sha256(b"\n".join(map(_text, nodes))).hexdigest()


def _defines(node: ast.AST, name: str) -> bool:
    return isinstance(node, ast.ClassDef) and node.name == name


def _shared(module: str) -> list[ast.stmt]:
    """List what all methods of a file may use: everything but the methods and the imports."""
    kept = []
    for node in _tree(module).body:
        if isinstance(node, ast.ClassDef) and not _is_marked(module):
            found = getattr(sys.modules.get(module), node.name, None)
            if isinstance(found, type) and issubclass(found, Method | Study):
                continue
        if not _only_imports(node):
            kept.append(node)
    return kept


def _only_imports(node: ast.AST) -> bool:
    """Tell whether a statement imports and does nothing else, for type checkers too."""
    return isinstance(node, ast.Import | ast.ImportFrom) or (_for_checkers(node) and not node.orelse)


def _for_checkers(node: ast.AST) -> TypeGuard[ast.If]:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def _is_marked(module: str) -> bool:
    return module.partition(".")[0] == "attnbench" and MARK in _bound(_source(module))


def _used(module: str, nodes: Sequence[ast.AST]) -> list[str]:
    """Name the modules whose definitions a file's head and these nodes import, of those that count."""
    heads = [node for node in _tree(module).body if isinstance(node, ast.Import | ast.ImportFrom)]
    walked = [inner for outer in (*heads, *nodes) for inner in ast.walk(outer)]
    found: list[str] = []
    whole: dict[str, str] = {}  # a name -> the module it stands for
    for node in walked:
        if isinstance(node, ast.ImportFrom):
            base = _absolute(module, node)
            found += [_definer(base, alias.name) for alias in node.names if _ours(base, module)]
        elif isinstance(node, ast.Import):
            names = [alias for alias in node.names if _ours(alias.name, module)]
            found += [alias.name for alias in names]
            whole |= {alias.asname or alias.name: alias.name for alias in names}
    for node in walked:
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in whole:
            found.append(_definer(whole[node.value.id], node.attr))
    own = module.partition(".")[0]
    return [
        name
        for name in dict.fromkeys(found)
        if _is_marked(name) or (own != "attnbench" and _ours(name, own) and not name.startswith("attnbench."))
    ]


def _ours(name: str, module: str) -> bool:
    return name.partition(".")[0] in ("attnbench", module.partition(".")[0])


def _definer(module: str, name: str) -> str:
    """Return the module that defines what can be imported from another one, which may just pass it on."""
    seen = set[tuple[str, str]]()
    while (module, name) not in seen:
        seen.add((module, name))
        node = _bound(_source(module)).get(name)
        if node is None and _is_module(f"{module}.{name}"):
            return f"{module}.{name}"
        if isinstance(node, ast.ImportFrom):
            original = next(alias.name for alias in node.names if name in (alias.asname, alias.name))
            module, name = _absolute(module, node), original
        elif node is None and module in sys.modules:  # made when it is asked for
            made = getattr(sys.modules[module], name, None)
            return str(getattr(made, "__name__" if inspect.ismodule(made) else "__module__", module))
    return module


@functools.cache
def _bound(source: str) -> dict[str, ast.stmt]:
    """Return the names that a file's top level binds, or makes when asked and tells type checkers of."""
    found: dict[str, ast.stmt] = {}
    body = _parsed(source).body
    told = [inner for node in body if _for_checkers(node) for inner in node.body]
    for node in (*told, *body):
        if isinstance(node, ast.ImportFrom):
            found |= {alias.asname or alias.name: node for alias in node.names}
        elif isinstance(node, ast.ClassDef | ast.FunctionDef):
            found[node.name] = node
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = [each.id for target in targets for each in ast.walk(target) if isinstance(each, ast.Name)]
            found |= dict.fromkeys(names, node)
    return found


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
    return text_of(node).encode()


def text_of(tree: ast.AST) -> str:
    """Return a syntax tree as text without docstrings and import lines."""
    return ast.unparse(_Bare().visit(copy.deepcopy(tree)))


class _Bare(ast.NodeTransformer):
    def generic_visit(self, node: ast.AST) -> ast.AST:
        body = getattr(node, "body", None)
        if isinstance(body, list):
            first = body[0] if body else None
            docstring = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
            kept = [each for each in body[docstring:] if not _only_imports(each)]
            node.body = kept or [ast.Pass()]  # type: ignore[attr-defined]
        return super().generic_visit(node)
