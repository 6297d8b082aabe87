"""docs/one-run.md says where a run passes: the real run passes there, in this order."""

from __future__ import annotations

import ast
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "one-run.md").read_text(encoding="utf-8")
MOST = 12
SHORT = ["--tasks", "pocket-sentiment", "--limit", "8"]
TRACER = """
import json, sys, threading
from pathlib import Path

root, out, *argv = sys.argv[1:]
order, mine = {}, {}

def trace(frame, event, arg):
    if event != "call":
        return
    code = frame.f_code
    name = code.co_filename
    if name not in mine:
        mine[name] = str(Path(name).relative_to(root)) if name.startswith(root) else None
    if mine[name]:
        order.setdefault((mine[name], code.co_qualname))

threading.setprofile(trace)
sys.setprofile(trace)
from attnbench.cli.main import main
status = main(argv)
sys.setprofile(None)
Path(out).write_text(json.dumps(list(order)))
sys.exit(status)
"""


class Stop(NamedTuple):
    """A place where the document says that a run passes."""

    file: str
    function: str
    told: str


def stops(text: str) -> list[Stop]:
    """Read the document's numbered stops."""
    items = re.findall(r"^\d+\. (.*(?:\n {3,}\S.*)*)", text, re.MULTILINE)
    found = [re.fullmatch(r"`([^`]+)`, `([^`]+)`: (.+)", " ".join(item.split())) for item in items]
    assert found and all(found), "a stop is written `file`, `function`: two sentences"
    return [Stop(*each.groups()) for each in found if each]


def functions(path: Path) -> set[str]:
    """List the functions of a file as Python names them: `execute`, `Column.measure`."""
    found = set()

    def walk(node: ast.AST, before: str) -> None:
        for each in ast.iter_child_nodes(node):
            if isinstance(each, ast.FunctionDef | ast.ClassDef):
                found.add(before + each.name)
                walk(each, f"{before}{each.name}.")

    walk(ast.parse(path.read_text(encoding="utf-8")), "")
    return found


def problems(text: str, order: list[tuple[str, str]]) -> list[str]:
    """Say in a line each where the document is not what the run did; `order`: by the first call of each."""
    chosen, last, lines = stops(text), -1, []
    if len(chosen) > MOST:
        lines.append(f"{len(chosen)} stops, more than {MOST}")
    for stop in chosen:
        place = f"{stop.file}, {stop.function}"
        if len(re.findall(r"[.!?](?= |$)", stop.told)) != 2:
            lines.append(f"{place} is not told in two sentences")
        if not (ROOT / stop.file).is_file():
            lines.append(f"{stop.file} is not there")
        elif stop.function not in functions(ROOT / stop.file):
            lines.append(f"{place} is not there")
        elif (stop.file, stop.function) not in order:
            lines.append(f"{place} is not reached")
        else:
            now = order.index((stop.file, stop.function))
            if now < last:
                lines.append(f"{place} is reached before the stop above it")
            last = max(last, now)
    return lines


@pytest.fixture(scope="module")
def order(tmp_path_factory) -> list[tuple[str, str]]:
    """Run the document's command on a few samples, and list the product's functions by their first call."""
    ((command,),) = [block.split("\n")[:-1] for block in re.findall(r"```bash\n(.*?)```", TEXT, re.DOTALL)]
    program, *words = shlex.split(command)
    assert program == "attnbench"
    folder = tmp_path_factory.mktemp("one-run")
    out = folder / "order.json"
    argv = [str(ROOT) + "/", str(out), *words, *SHORT, "--records", str(folder / "records")]
    done = subprocess.run([sys.executable, "-c", TRACER, *argv], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "prune80" in done.stdout
    return [(file, function) for file, function in json.loads(out.read_text())]


def swapped(text: str, first: int) -> str:
    """Return the document with a stop and the next one in each other's place."""
    head, *items = re.split(r"^(?=\d+\. )", text, flags=re.MULTILINE)
    items[first], items[first + 1] = items[first + 1], items[first]
    return head + "".join(items)


def test_the_run_passes_every_stop_in_this_order(order):
    assert problems(TEXT, order) == []


def test_two_stops_that_are_swapped_are_told(order):
    for first in range(len(stops(TEXT)) - 1):
        (line,) = problems(swapped(TEXT, first), order)
        assert line.endswith("is reached before the stop above it")


LAST = stops(TEXT)[-1]
CHANGED = {
    "a stop too many": (TEXT + "13. `attnbench/cli/run.py`, `_show_table`: One. Two.\n", "13 stops"),
    "a wordy stop": (TEXT.rstrip() + " A third.\n", "is not told in two sentences"),
    "a file that is gone": (TEXT.replace(LAST.file, "attnbench/gone.py"), "attnbench/gone.py is not there"),
    "a function that is gone": (TEXT.replace(f"`{LAST.function}`", "`gone`"), "gone is not there"),
    "one that runs in no run": (TEXT.replace(f"`{LAST.function}`", "`to_json`"), "to_json is not reached"),
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGED)
def test_what_the_run_does_not_do_is_told(name, order):
    text, told = CHANGED[name]
    assert text != TEXT
    assert any(told in line for line in problems(text, order))
