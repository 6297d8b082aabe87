"""The words that are ours: one text in code and documents, reached from every board."""

from __future__ import annotations

import re
from pathlib import Path

from parsed_html import parsed

from attnbench.boards import board
from attnbench.boards.page import document
from attnbench.boards.tables import glossary

ROOT = Path(__file__).resolve().parents[2]


def test_the_document_has_the_words_of_the_code():
    text = (ROOT / glossary.DOCUMENT).read_text(encoding="utf-8")
    heading = glossary.ANCHOR.replace("-", " ").capitalize()
    rows = re.findall(r"^\| (.+?) \| (.+) \|$", text.partition(f"## {heading}")[2], re.M)
    assert dict(rows[1:]) == glossary.WORDS


def test_every_board_links_them(tmp_path):
    pages = [path.with_suffix(".md") for path in (ROOT / "leaderboards").glob("*.toml")]
    pages = [path for path in pages if path.exists()]
    assert pages
    for page in pages:
        (where,) = re.findall(r"\[glossary\]\((.+?)#(?:.+?)\)", page.read_text(encoding="utf-8"))
        assert (page.parent / where).resolve() == ROOT / glossary.DOCUMENT
    assert "](" not in glossary.link(tmp_path / "mine.toml")


def test_the_page_has_them_itself():
    page = parsed(document.to_html(board.build([])))
    assert page.tags.count("dt") == len(glossary.WORDS)
