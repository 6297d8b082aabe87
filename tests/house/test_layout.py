"""The folders are the architecture: who may import whom, no circles, no crowded room, no long file."""

from __future__ import annotations

import ast
import re
import shutil
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# from the ground up: a wing imports from itself and from those before it
WINGS = (
    "methods", "inputs", "records", "engine", "statistics", "measures", "backends", "matrix", "doors",
    "studies", "boards", "conformance", "cli", "pocket",
)  # fmt: skip
GROUND, FACES = "errors", ("__init__", "__main__", "testing")
WIDEST, LONGEST = 20, 260
PACKAGES = {"attnbench": "attnbench", "plugins": "attnbench_plugins", "tasks": "attnbench_tasks"}


def modules(root: Path) -> dict[str, Path]:
    """Return every module of the product by its dotted name."""
    found = {}
    for folder, package in PACKAGES.items():
        for path in sorted((root / folder).rglob("*.py")):
            parts = path.relative_to(root / folder).with_suffix("").parts
            found[".".join((package, *parts)).removesuffix(".__init__")] = path
    return found


def imports(name: str, path: Path, known: dict[str, Path]) -> set[str]:
    """List the modules of the product that a file imports, at its top, in functions and for type checkers."""
    package = name.split(".") if path.stem == "__init__" else name.split(".")[:-1]
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(
                [*package[: len(package) - node.level + 1], node.module or ""] if node.level else []
            )
            base = base.strip(".") or node.module or ""
            names = {f"{base}.{alias.name}" for alias in node.names}
            found |= {each if each in known else base for each in names}
    return {each for each in found if each in known and each != name}


def wing(name: str) -> str:
    """Return the wing of a module, or its own name where it stands in none."""
    package, _, rest = name.partition(".")
    return (rest.partition(".")[0] or "__init__") if package == "attnbench" else package


def problems(root: Path) -> list[str]:
    """Say in a line each what is not as the house has it."""
    known = modules(root)
    ties = {name: imports(name, path, known) for name, path in known.items()}
    lines = []
    for name, path in known.items():
        mine, text = wing(name), path.read_text(encoding="utf-8")
        if mine not in (*WINGS, GROUND, *FACES, *PACKAGES.values()):
            lines.append(f"{name} stands in no wing")
        if mine in WINGS and path.stem == "__init__":
            body, said = ast.parse(text).body, ast.get_docstring(ast.parse(text)) or ""
            if len(body) > 1 or not said:
                lines.append(f"{name} is more, or less, than a docstring")
            if not re.search(r"^May import .*\bBegin\s+with\s+`", said, re.MULTILINE | re.DOTALL):
                lines.append(f"{name} does not say what it may import and where to begin")
            lines += [
                f"{name} names {file}, which is not there"
                for file in re.findall(r"`([\w/]+\.py)`", said)
                if not (path.parent / file).is_file()
            ]
        if len(text.splitlines()) > LONGEST:
            lines.append(f"{name} has more than {LONGEST} lines")
        lines += [
            f"{name} imports {other}, which is above it"
            for other in sorted(ties[name])
            if not _may(mine, wing(other))
        ]
    for folder, count in _counts(root).items():
        if count > WIDEST:
            lines.append(f"{folder} has {count} files, more than {WIDEST}")
    return lines + [f"a circle: {' -> '.join(circle)}" for circle in circles(ties)]


def _may(mine: str, other: str) -> bool:
    if other == GROUND or mine in ("__init__", "__main__", "testing"):
        return True
    if mine.startswith("attnbench_"):
        return other in (mine, "__init__")
    if mine == GROUND or other not in WINGS:
        return False
    return WINGS.index(other) <= WINGS.index(mine)


def _counts(root: Path) -> dict[str, int]:
    found: dict[str, int] = defaultdict(int)
    for folder in (*PACKAGES, "tests", "benchmarks"):
        for path in (root / folder).rglob("*.py"):
            found[str(path.parent.relative_to(root))] += 1
    return dict(found)


def circles(ties: dict[str, set[str]]) -> list[list[str]]:
    """Return the groups of files that import each other, the roof aside, which hands out everything."""
    kept = {name: {other for other in others if other != "attnbench"} for name, others in ties.items()}
    kept.pop("attnbench", None)
    order: list[str] = []
    seen: set[str] = set()

    def visit(name: str, graph: dict[str, set[str]], out: list[str]) -> None:
        stack = [(name, iter(sorted(graph.get(name, ()))))]
        seen.add(name)
        while stack:
            current, rest = stack[-1]
            following = next((each for each in rest if each not in seen), None)
            if following is None:
                stack.pop()
                out.append(current)
            else:
                seen.add(following)
                stack.append((following, iter(sorted(graph.get(following, ())))))

    for name in sorted(kept):
        if name not in seen:
            visit(name, kept, order)
    back: dict[str, set[str]] = defaultdict(set)
    for name, others in kept.items():
        for other in others:
            back[other].add(name)
    seen.clear()
    found = []
    for name in reversed(order):
        if name not in seen:
            group: list[str] = []
            visit(name, back, group)
            if len(group) > 1:
                found.append(sorted(group))
    return found


def test_the_house_is_as_it_is_drawn():
    assert problems(ROOT) == []


@pytest.fixture
def copy(tmp_path):
    for folder in (*PACKAGES, "tests", "benchmarks"):
        shutil.copytree(
            ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__", "weights")
        )
    return tmp_path


def _append(path: Path, line: str) -> None:
    path.write_text(path.read_text(encoding="utf-8") + f"\n\ndef planted():\n    {line}\n", encoding="utf-8")


PLANTED = {
    "upward": ("attnbench/methods/spec.py", "from attnbench.boards import suite", "which is above it"),
    "for type checkers": ("attnbench/engine/whole.py", "import attnbench.matrix.plan", "which is above it"),
    "the roof": ("attnbench/matrix/plan.py", "from attnbench import parse", "which is above it"),
    "a plugin": ("plugins/pruning.py", "from attnbench.engine.serving import kernels", "which is above it"),
    "a circle": (
        "attnbench/engine/places/blocks.py", "from attnbench.engine.serving import tiles", "a circle: ",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PLANTED)
def test_what_is_planted_is_found(name, copy):
    file, line, told = PLANTED[name]
    _append(copy / file, line)
    assert any(told in each for each in problems(copy))


def test_a_room_that_says_nothing_or_what_is_not_there_is_found(copy):
    (copy / "attnbench" / "records" / "__init__.py").write_text('"""Records."""\n', encoding="utf-8")
    place = copy / "attnbench" / "engine" / "places" / "__init__.py"
    place.write_text(place.read_text(encoding="utf-8").replace("sites.py", "gone.py"), encoding="utf-8")
    found = problems(copy)
    assert "attnbench.records does not say what it may import and where to begin" in found
    assert "attnbench.engine.places names gone.py, which is not there" in found


def test_a_crowded_room_a_long_file_and_a_stray_module_are_found(copy):
    room = copy / "attnbench" / "methods"
    for number in range(WIDEST + 1 - len(list(room.glob("*.py")))):
        (room / f"planted{number}.py").touch()
    (room / "long.py").write_text("x = 1\n" * (LONGEST + 1), encoding="utf-8")
    (copy / "attnbench" / "stray.py").touch()
    found = "\n".join(problems(copy))
    assert f"attnbench/methods has {WIDEST + 2} files" in found
    assert "attnbench.methods.long has more than" in found and "attnbench.stray stands in no wing" in found
