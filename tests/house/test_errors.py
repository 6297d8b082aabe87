"""docs/errors.md: as the code has it, and what commands really say is in it."""

from __future__ import annotations

import importlib.util
import itertools
import re
from pathlib import Path
from types import ModuleType

import pytest

from attnbench.cli.main import main

LEAST, ENOUGH = 8, 12  # letters of a message's own
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("errors_document", ROOT / "docs" / "errors.py")
    assert spec is not None and spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


def test_the_document_is_what_the_code_says(generator):
    text = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
    assert text == generator.render(), "run: python docs/errors.py"


def test_every_wing_that_can_be_wrong_has_its_group(generator):
    assert {wing for wing, *_ in generator.messages()} <= set(generator.GROUPS)


@pytest.fixture(scope="module")
def known(generator) -> list[re.Pattern[str]]:
    """How every message begins, whatever is filled in: what follows may depend on it."""
    names = re.compile(r" Did you mean NAME\?|\b[A-Z][A-Z0-9]+(?: [A-Z0-9]+)*\b")
    found = []
    for *_, text in generator.messages():
        parts = names.split(re.sub(r"\s+", " ", text).strip())
        sizes = [*itertools.accumulate(map(len, parts))]
        if sizes[-1] >= LEAST:
            count = next(k + 1 for k, size in enumerate(sizes) if size >= min(ENOUGH, sizes[-1]))
            found.append(re.compile(".*?".join(map(re.escape, parts[:count]))))
    return found


@pytest.mark.parametrize(
    "command",
    [
        "run",
        "run --models bert --methods prun80",
        "run --models bert --methods prune180",
        "run --models bert --methods prune",
        "run --models bert --tasks sst3 --methods prune80",
        "run --models ./nowhere --methods prune80",
        "run nowhere.toml",
        "run --models bert --methods prune80 --limitt 3",
        "run --models bert --methods prune80 --limit 0",
        "run --models bert --methods prune80 --shard 3",
        "run --models bert --methods prune80 --device-map auto --device cpu",
        "leaderboard --records nowhere",
        "leaderboard --format pdf",
        "compare ./a ./b",
        "methods voitaa",
        "studies sparsit",
        "verify nowhere.json",
        "check prune80 --plugin nowhere.py",
    ],
)
def test_what_a_command_says_is_in_it(known, command, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert main(command.split()) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1].removeprefix("attnbench: ")
    assert any(pattern.search(said) for pattern in known), said
