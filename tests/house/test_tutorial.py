"""What docs/tutorial.md shows is what its commands print."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
NUMBER = r"\d[\d,]*(?:\.\d+)?"
MOST = 6.0  # points of a score or an interval's end on another processor: one sample in 100 is one
VERSIONS = r"; torch \S+; transformers [^;]+"


def _tutorial():
    spec = importlib.util.spec_from_file_location("tutorial", DOCS / "tutorial.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def words(text: str) -> list[str]:
    """Return the words of a text without its numbers, its widths, and what an interval's end may decide."""
    sure = re.sub(r"On pocket models .*?evidence\.", "", text.replace("yes?", "yes"), flags=re.DOTALL)
    plain = re.sub(NUMBER, "#", re.sub(VERSIONS, "", sure))
    return re.sub(r"[-:─|+−]+", " ", plain).split()


def numbers(text: str) -> list[float]:
    return [float(each.replace(",", "")) for each in re.findall(NUMBER, re.sub(VERSIONS, "", text))]


def test_it_shows_what_its_commands_print(fresh_registry, tmp_path, monkeypatch):
    tutorial = _tutorial()
    (tmp_path / "idea").mkdir()
    monkeypatch.chdir(tmp_path / "idea")
    monkeypatch.delenv("COLUMNS", raising=False)
    blocks = tutorial.play(tutorial.DOCUMENT.read_text(encoding="utf-8"))
    assert len(blocks) == 7
    for shown, printed in blocks:
        assert words(printed) == words(shown), "run: python docs/tutorial.py"
        assert numbers(printed) == pytest.approx(numbers(shown), abs=MOST)
    for name, made in tutorial.PICTURES.items():
        assert f"]({name})" in tutorial.DOCUMENT.read_text(encoding="utf-8")
        assert (DOCS / name).is_file() and Path(made).is_file()
