"""The suites that are shipped: they read, their claims are about what they measure, their files are true."""

from __future__ import annotations

from pathlib import Path

import pytest

from attnbench.boards import suite
from attnbench.boards.findings import asked
from attnbench.cli.main import main

FOLDER = Path(__file__).parents[2] / "leaderboards"
BOARDS = sorted(FOLDER.glob("*.toml"))
LOOKS = [path for path in BOARDS if asked.is_of_looks(path)]
SUITES = [path for path in BOARDS if path not in LOOKS]


def test_every_paper_has_its_suite():
    names = {"minilm", "pocket", "ji2021", "voita2019", "michel2019", "rugina2020", "head-importance"}
    assert names <= {path.stem for path in SUITES}


@pytest.mark.parametrize("path", SUITES, ids=lambda path: path.stem)
def test_a_suite_reads_and_has_controls(path):
    found = suite.load(path)
    assert found.claims and found.about and any(":random" in method for method in found.methods)


@pytest.mark.parametrize("path", LOOKS, ids=lambda path: path.stem)
def test_looks_read_and_claim(path):
    found = asked.load(path)
    assert found.about and any(look.claims for look in found.looks)


@pytest.mark.parametrize("path", BOARDS, ids=lambda path: path.stem)
def test_records_and_what_is_rendered_are_true(path, capsys):
    assert main(["leaderboard", str(path), "--check"]) == 0, capsys.readouterr().out


def test_the_readme_names_every_suite():
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert all(f"`{path.stem}`" in text for path in BOARDS)
