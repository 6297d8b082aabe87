"""Write docs/errors.md: the message of every mistake, from the code itself, with what to do.

python docs/errors.py
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DOCUMENT = Path(__file__).with_name("errors.md")
HEAD = """# What a message means

<!-- written by: python docs/errors.py -->

A command that cannot do what it was asked for says so in one line that begins with `attnbench:` and ends
with status 2. Here are all these lines by what one was doing, with words in capitals in place of names and
numbers. The right column has the advice that a message ends with; where it is empty, do what stands above
the table. `--debug` shows where in the code a message comes from.

A cell without a meaning, such as a method for caches on an encoder, is no mistake: the table has `n/a` in
its row, and one of the lines marked *n/a* says why. A cell that fails has the reason in its row, and the
run ends with status 1. A traceback is a fault of attnbench or of a plugin.
"""
KINDS = {"UserError": "", "Misfit": "", "TaskMistake": "", "Undefined": "", "NotApplicable": "*n/a* "}
# what one was doing, and what helps where the message does not say it
GROUPS = {
    "cli": ("Giving a command", "Look the option up with `attnbench COMMAND --help`."),
    "inputs": (
        "Naming models, tasks, data and settings",
        "Correct the name or the file: `attnbench models` and `attnbench tasks` list what there is.",
    ),
    "methods": (
        "Writing specs, methods, studies and plugins",
        "Correct the spec: `attnbench methods NAME` or `attnbench studies NAME` shows how it is written.",
    ),
    "backends": (
        "Loading a model, a task and its data",
        "Correct the file that is named, or choose a task that fits the model: `attnbench tasks` lists them.",
    ),
    "engine": (
        "Applying, fitting and realising a method",
        "Choose another method or model for this cell: `attnbench methods NAME` says what a method needs.",
    ),
    "measures": ("Measuring costs", "Run without `--measure`, or choose another method."),
    "matrix": (
        "Running cells, sharing them, verifying and exporting",
        "Correct the request; what is recorded stays, and the same command goes on from there.",
    ),
    "records": (
        "Reading and merging records",
        "Measure the cell again with `attnbench run ... --force`, or give another folder with `--records`.",
    ),
    "statistics": (
        "Comparing records",
        "Compare records of the same samples: `attnbench run` measures them.",
    ),
    "boards": (
        "Writing suites and boards",
        "Correct the line of the TOML file: leaderboards/README.md shows all that it may hold.",
    ),
    "studies": (
        "Looking inside a model",
        "Correct the request: `attnbench studies NAME` says what a study needs.",
    ),
    "doors": (
        "Calling from Python, lm-eval or lighteval",
        "Correct the arguments: `help(attnbench.NAME)` says what they may be.",
    ),
    "conformance": ("Checking a method", "Correct the method: docs/plugins.md says what it has to keep to."),
    "pocket": ("Making the pocket models", "Correct the arguments of `python -m attnbench.pocket.train`."),
    "plugins": (
        "Giving a built-in method or study its amounts",
        "Correct the amount or the setting: `attnbench methods NAME` says what they may be.",
    ),
}
THROUGH = ("join", "sorted", "map", "str", "repr", "len", "shown")  # what is filled in is their argument
OF_TEXTS = ("replace", "removeprefix", "removesuffix", "partition", "rpartition", "strip", "rstrip", "lower")
WORDS = {"e": "REASON", "error": "REASON", "exc": "REASON", "told": "DETAILS", "why": "REASON", "near": ""}
HINT = re.compile(
    r"(?<=[.?!]) (?=[A-Z`(])(?!Did you)|: (?=(?:give|leave|name|write|set|use|run|choose|install)\b)"
)
Place = tuple[str, str, str]  # file, kind, template


def render() -> str:
    """Return docs/errors.md."""
    parts = [HEAD]
    found = list(dict.fromkeys(messages()))
    for group, (title, helps) in GROUPS.items():
        mine = [(kind, text) for wing, kind, text in found if wing == group]
        if mine:
            rows = [_row(kind, text) for kind, text in dict.fromkeys(mine)]
            head = [f"## {title}\n", f"{helps}\n", "| message | what to do |", "| --- | --- |"]
            parts.append("\n".join([*head, *rows]) + "\n")
    return "\n".join(parts)


def messages() -> Iterator[Place]:
    """Yield wing, kind and template of every message, in the order of the files."""
    for path in [*sorted((ROOT / "attnbench").rglob("*.py")), *sorted((ROOT / "plugins").rglob("*.py"))]:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        where = path.relative_to(ROOT).parts
        wing = "plugins" if where[0] == "plugins" else where[1] if len(where) > 2 else "cli"
        for scope in _scopes(tree):
            known = _assigned(scope)
            for node in _own(scope):
                told = _told(node, known, wing)
                if told is not None and re.search(r"[a-z]{3}", told[1]):  # not what another one said
                    yield wing, *told


def _told(node: ast.AST, known: dict[str, ast.expr], wing: str) -> tuple[str, str] | None:
    """Return the kind and the template of a call that makes a message."""
    if not isinstance(node, ast.Call) or not node.args:
        return None
    name = ast.unparse(node.func).rpartition(".")[2]
    if name == "unknown" and len(node.args) == 4:
        kind, _, _, hint = (template(each, known) for each in node.args)
        return "", f"unknown {kind} 'NAME'. Did you mean NAME? {hint}"
    if name in KINDS:
        return KINDS[name], template(node.args[0], known)
    if name == "ArgumentTypeError" or (name == "ValueError" and wing == "plugins"):
        return "", template(node.args[0], known)
    return None


def template(node: ast.expr, known: dict[str, ast.expr], depth: int = 0) -> str:
    """Write a message with words in capitals in place of what is filled in."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        text = ""
        for part in node.values:
            more = template(part, known, depth)
            text += f" {more}" if text[-1:].isupper() and more[:1].isupper() else more
        return text
    if isinstance(node, ast.FormattedValue):
        return template(node.value, known, depth)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return template(node.left, known, depth) + template(node.right, known, depth)
    if isinstance(node, ast.IfExp):
        first, other = (template(each, known, depth) for each in (node.body, node.orelse))
        return first if len(first) >= len(other) else other
    if isinstance(node, ast.Name) and node.id in known and depth < 3:
        return template(known[node.id], known, depth + 1)
    return _word(node)


def _word(node: ast.expr) -> str:
    """Name what an expression fills in, by one word."""
    if isinstance(node, ast.Call):
        name = ast.unparse(node.func)
        if name.rpartition(".")[2] in ("near", "near_file", "_near"):
            return " Did you mean NAME?"
        if name.endswith(".join") or name.rpartition(".")[2] in (
            "sorted",
            "map",
            "str",
            "repr",
            "len",
            "shown",
        ):
            return _word(node.args[-1]) if node.args else "VALUE"
        if isinstance(node.func, ast.Attribute) and node.func.attr in OF_TEXTS:
            return _word(node.func.value)
        return _word(node.func) if not node.args else _word(node.args[0])
    if isinstance(node, ast.BoolOp):
        return _word(node.values[-1])
    if isinstance(node, ast.Subscript):
        return _word(node.value)
    if isinstance(node, ast.Starred):
        return _word(node.value)
    if isinstance(node, ast.GeneratorExp | ast.ListComp | ast.SetComp):
        return _word(node.generators[0].iter)
    if isinstance(node, ast.BinOp | ast.UnaryOp):
        return "N"
    if isinstance(node, ast.Name | ast.Attribute):
        name = (node.id if isinstance(node, ast.Name) else node.attr).strip("_")
        return WORDS.get(name, name.replace("_", " ").upper())
    if isinstance(node, ast.Constant):
        return str(node.value)
    return "VALUE"


def _scopes(tree: ast.Module) -> Iterator[ast.AST]:
    yield tree
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def _own(scope: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes of a scope in order, not those of the functions inside it."""
    for child in ast.iter_child_nodes(scope):
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield child
            yield from _own(child)


def _assigned(scope: ast.AST) -> dict[str, ast.expr]:
    """Return the texts that a scope gives a name to, once."""
    found: dict[str, list[ast.expr]] = {}
    for node in _own(scope):
        if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
            found.setdefault(node.targets[0].id, []).append(node.value)
    texts = (ast.JoinedStr, ast.Constant, ast.IfExp)
    return {
        name: values[0] for name, values in found.items() if len(values) == 1 and isinstance(values[0], texts)
    }


def _row(kind: str, text: str) -> str:
    line = re.sub(r"\s+", " ", text).strip()
    said, *advice = HINT.split(line, maxsplit=1)
    told = advice[0].strip() if advice else ""
    return f"| {kind}{_inert(said)} | {_inert(told[:1].upper() + told[1:])} |"


def _inert(text: str) -> str:
    return re.sub(r"([|<>*_\[\]])", r"\\\1", text) if "`" not in text else text.replace("|", "\\|")


if __name__ == "__main__":
    DOCUMENT.write_text(render(), encoding="utf-8")
