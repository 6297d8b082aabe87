"""The README's code runs as it stands there."""

from __future__ import annotations

import importlib.util
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from attnbench.cli.main import HANDED_OVER, main, parser

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def _blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_the_two_set_up_lines_stand_alone():
    lines = [block.strip() for block in _blocks("bash") if block.startswith("python3 -m venv")]
    assert len(lines) == 2 and all("\n" not in line and "constraints.txt" in line for line in lines)
    assert lines[0].endswith("attnbench run --models bert,roberta --methods logquant3,prune80")


COMMANDS = [line for block in _blocks("bash") for line in block.splitlines() if line.startswith("attnbench")]


@pytest.mark.parametrize("line", COMMANDS)
def test_every_command_is_one_that_exists(line):
    words = shlex.split(line, comments=True)[1:]
    if words[0] not in HANDED_OVER:
        assert parser().parse_args(words).command.removeprefix("list_") == words[0]


CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
STEPS = re.findall(r"^attnbench .*", CONTRIBUTING, re.MULTILINE)


def test_contributing_shows_every_step_as_a_command():
    commands = [parser().parse_args(line.partition("#")[0].split()[1:]) for line in STEPS]
    ten, five = (CONTRIBUTING.partition(f"\n## {title}\n")[2] for title in ("A method", "A row on a board"))
    order = ["new-method", "check", "run", "run", "run", "leaderboard", "leaderboard", "verify"]
    assert [each.command for each in commands] == order
    assert "--plugin my_method.py" in ten.partition("\n## ")[0]
    assert "(docs/one-run.md)" in CONTRIBUTING
    assert "pull request" in five.partition("\n## ")[0]
    for suite in (path for each in commands for path in getattr(each, "suites", [])):
        assert (ROOT / suite).is_file(), suite


FOLDERS = "attnbench|plugins|tasks|tests|benchmarks|docs|leaderboards"
TEXTS = ["README.md", "CONTRIBUTING.md", *(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]
FENCED = r"```\w*\n(.*?)```"


def absent(text: str) -> list[str]:
    """List the paths, files and modules that a text names and that are not there.

    A word in capitals stands for any name. What begins with `my`, and a file that a code block names without
    its folder, is the reader's own.
    """
    paths = re.findall(rf"(?<![\w./-])((?:{FOLDERS})/[\w./*-]*[\w/])", text)
    paths = [path for path in paths if not path.rpartition("/")[2].startswith("my-")]
    found = [path for path in paths if not any(ROOT.glob(re.sub("[A-Z]{4,}(?!\\.md)", "*", path)))]
    blocks = "\n".join(re.findall(FENCED, text, re.DOTALL))
    names = {path.name for folder in FOLDERS.split("|") for path in (ROOT / folder).rglob("*.py")}
    bare = re.findall(r"`(\w+\.py)`", re.sub(FENCED, "", text, flags=re.DOTALL))
    found += [name for name in bare if name not in names and name not in blocks]
    modules = re.findall(r"python -m (attnbench[\w.]*)", text)
    return found + [name for name in modules if importlib.util.find_spec(name) is None]


@pytest.mark.parametrize("name", TEXTS)
def test_what_a_text_names_is_there(name):
    assert absent((ROOT / name).read_text(encoding="utf-8")) == []


def test_what_is_not_there_is_told():
    gone = ["attnbench/gone.py", "plugins/GONE/NAME.toml", "tile.py"]
    text = "`attnbench/gone.py` plugins/GONE/NAME.toml `tile.py` `mine.py` plugins/FAMILY.py tasks/my-task"
    assert absent(f"{text}\n```bash\nedit mine.py\n```\n") == gone
    assert absent("python -m attnbench.cli.gone > docs/commands.md") == ["attnbench.cli.gone"]


def test_the_method_in_ten_lines_is_what_check_asks_for(tmp_path, fresh_registry):
    from attnbench.conformance import source
    from attnbench.methods.spec import parse

    (code,) = [block for block in _blocks("python") if "# clip.py" in block]
    (tmp_path / "clip.py").write_text(code, encoding="utf-8")
    fresh_registry.load([str(tmp_path / "clip.py")])
    assert "attnbench check clip --plugin clip.py" in README
    for check in (source.round_trip, source.docstring, source.stages):
        check(parse("clip50"))


def test_every_file_of_a_command_is_there():
    given = re.findall(r"--custom-tasks (\S+)", README)
    assert given and all((ROOT / path).is_file() for path in given)


def test_every_name_of_a_split_is_explained():
    from attnbench.backends.own_data import SPLITS

    text = (ROOT / "docs" / "models-and-data.md").read_text(encoding="utf-8")
    said = text.partition("learn from the rows whose split is")[2].partition("are measured")[0]
    assert set(re.findall("`([a-z]+)`", said)) == set(SPLITS)


def test_the_method_in_ten_lines_runs(tmp_path, fresh_registry, capsys):
    (code,) = [block for block in _blocks("python") if "# clip.py" in block]
    (tmp_path / "clip.py").write_text(code, encoding="utf-8")
    (tmp_path / "broken.py").write_text("import nothing_of_this_name\n", encoding="utf-8")
    arguments = ["run", "--models", "bert", "--tasks", "pocket-sentiment", "--limit", "20"]
    where = ["--plugins-dir", str(tmp_path), "--records", str(tmp_path / "records")]
    assert main([*arguments, "--methods", "clip50,clip20+logquant3", *where]) == 0
    captured = capsys.readouterr()
    assert "clip50" in captured.out and "clip20+logquant3" in captured.out
    assert "broken.py" in captured.err


def test_the_python_example_runs(tmp_path):
    (code,) = [block for block in _blocks("python") if "attnbench.run(" in block]
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "pocket-bert pocket-sentiment (100)" in done.stdout
    assert list((tmp_path / "attnbench-records").rglob("*.json"))


def test_links_lead_somewhere():
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / target).exists(), target


def test_the_tables_are_the_boards():
    def rows(text: str) -> list[list[str]]:
        lines = [line.strip().strip("|").split("|") for line in text.splitlines() if line.startswith("|")]
        return [[cell.strip() for cell in cells] for cells in lines]

    boards = [
        row
        for name in ("minilm", "smollm2")
        for row in rows((ROOT / "leaderboards" / f"{name}.md").read_text(encoding="utf-8"))
    ]
    shown = [cells for cells in rows(README) if any("±" in cell for cell in cells)]
    assert len(shown) > 10
    for cells in shown:
        found = [row for row in boards if len(row) > 3 and row[2] == cells[0] and set(cells) <= set(row)]
        assert len(found) == 1, cells


def test_the_first_page_is_short():
    assert len(README.splitlines()) <= 120
