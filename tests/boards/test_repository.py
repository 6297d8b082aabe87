"""`attnbench publish`: a repository on disk, its workflow's own steps, and what they refuse."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from attnbench.boards.formats import parquet
from attnbench.boards.repository import layout, versions
from attnbench.cli.main import main
from attnbench.records import record

MEASURED = Path(__file__).parents[2] / "leaderboards" / "records" / "pocket"
COLUMN = Path("pocket-bert", "pocket-sentiment")
SUITE = """
title = "A small board"
repeats = 1
methods = [{methods}]
models = ["pocket-bert"]
tasks = ["pocket-sentiment"]
limit = 300
"""


def add(home: Path, *methods: str) -> Path:
    """Write a suite with what was measured of it: the records that are shipped."""
    for name in ("dense", "uniform", *methods):
        for ending in (".json", ".npz"):
            place = home / "records" / "small" / COLUMN / f"{name}{ending}"
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(MEASURED / COLUMN / place.name, place)
    path = home / "small.toml"
    path.write_text(SUITE.format(methods=", ".join(f'"{name}"' for name in methods)), encoding="utf-8")
    return path


def git(folder: Path, *words: str) -> str:
    command = ["git", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=a@b.c", *words]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def commit(folder: Path, told: str) -> str:
    git(folder, "add", ".")
    git(folder, "commit", "-qm", told)
    return git(folder, "rev-parse", "HEAD")


@pytest.fixture
def published(tmp_path):
    folder = tmp_path / "results"
    assert main(["publish", str(folder), str(add(tmp_path / "mine", "prune50"))]) == 0
    git(tmp_path, "init", "-q", str(folder))
    return folder, commit(folder, "Publish")


def check(folder: Path, base: str, temporary: Path, *names: str) -> tuple[dict[str, int], str]:
    """Run the workflow's steps as its file has them, in a clone; return their status and the comment."""
    steps = yaml.safe_load((folder / layout.WORKFLOW).read_text("utf-8"))["jobs"]["check"]["steps"]
    temporary.mkdir()
    (temporary / "comment.md").touch()
    clone = temporary / "another name"
    git(temporary, "clone", "-q", str(folder), str(clone))
    program = temporary / "bin" / "attnbench"  # this environment's, in the place of the one that is installed
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m attnbench "$@"\n', encoding="utf-8")
    program.chmod(0o755)
    (program.parent / "python").symlink_to(sys.executable)
    environment = {**os.environ, "BASE": base, "RUNNER_TEMP": str(temporary),
                   "PATH": f"{program.parent}:{os.environ['PATH']}"}  # fmt: skip
    done = {}
    for step in steps:
        if step.get("name") in (names or ("Check", "Compare", "Verify")):
            command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]]
            ran = subprocess.run(command, cwd=clone, env=environment, capture_output=True, text=True)
            done[step["name"]] = ran.returncode
            assert "Traceback" not in ran.stderr, ran.stderr
    return done, (temporary / "comment.md").read_text("utf-8")


def test_a_row_is_added_and_a_false_one_is_found(published, tmp_path):
    folder, base = published
    add(folder / layout.BOARDS, "prune50", "logquant3")
    assert main(["publish", str(folder)]) == 0
    row = commit(folder, "Add logquant3")
    done, comment = check(folder, base, tmp_path / "one")
    assert done == {"Check": 0, "Compare": 0, "Verify": 0}, comment
    assert comment.count("| new |") == 1 and "| logquant3 | acc | – |" in comment
    assert f"boards/records/small/{COLUMN}/logquant3.json: " in comment and "agrees" in comment

    path = folder / layout.BOARDS / "records" / "small" / COLUMN / "logquant3.json"
    forged = record.read(path)
    forged.scores["acc"] = np.ones(300)
    forged.metrics["acc"] |= {"value": 1.0, "stderr": 0.0}
    record.write(folder / layout.BOARDS / "records" / "small", forged)
    assert main(["leaderboard", str(folder / layout.BOARDS / "small.toml"), "--check"]) == 1
    assert main(["publish", str(folder)]) == 0  # now its boards hold what its records say
    commit(folder, "Better")
    done, comment = check(folder, row, tmp_path / "two", "Verify")
    assert done == {"Verify": 1} and "logquant3.json" in comment


def test_what_is_laid_out(published):
    folder, _ = published
    tracked = set(git(folder, "ls-files").splitlines())
    boards = {f"boards/small.{ending}" for ending in ("toml", "md", "csv", "html")}
    assert {"README.md", layout.WORKFLOW, "boards/small-parquet/README.md", *boards} <= tracked
    _, head, body = (folder / "README.md").read_text("utf-8").split("---\n", 2)
    (config,) = yaml.safe_load(head)["configs"]
    assert (folder / config["data_files"][0]["path"]).is_file() and "A small board" in body
    written = yaml.safe_load((folder / layout.WORKFLOW).read_text("utf-8"))
    assert written["permissions"] == {"contents": "read", "pull-requests": "write"}


def test_published_again_it_stays_as_it_is(published, tmp_path):
    folder, _ = published
    (folder / layout.WORKFLOW).write_text("mine\n")
    assert main(["publish", str(folder), str(tmp_path / "mine" / "small.toml")]) == 0
    assert (folder / layout.WORKFLOW).read_text() == "mine\n"
    assert git(folder, "status", "--porcelain") == f"M {layout.WORKFLOW}"


def test_a_version_stays_as_it_is(published, tmp_path, capsys):
    folder, _ = published
    assert main(["publish", str(folder), "--keep-as", "2026.1"]) == 0
    kept = folder / versions.FOLDER / "2026.1"
    page = (kept / "small.html").read_bytes()
    assert b'<tr id="pocket-bert/pocket-sentiment/prune50">' in page and not (kept / "records").exists()
    add(folder / layout.BOARDS, "prune50", "logquant3")
    assert main(["publish", str(folder), "--keep-as", "2026.2"]) == 0
    assert (kept / "small.html").read_bytes() == page != (folder / layout.BOARDS / "small.html").read_bytes()
    card = (folder / "README.md").read_text("utf-8")
    links = re.findall(r"\((versions/[^)]+)\)", card)
    assert links == ["versions/2026.2/small.md", "versions/2026.1/small.md"]  # the last first
    assert all((folder / link).is_file() for link in links)
    assert main(["publish", str(folder), "--keep-as", "2026.1"]) == 2
    assert "is there and stays as it is" in capsys.readouterr().err


LOOKED = """
title = "A small board of looks"
[[look]]
model = "minilm-sst2"
task = "sst2"
limit = 200
studies = ["relevance"]
claims = [
    "all of relevance.agreement where first = cp_share and second = sensitivity have spearman > 0.5",
    "all of relevance.agreement where first = attn_share and second = sensitivity have spearman > 0.5",
]
shows = ["relevance.agreement"]
pictures = ["relevance.cp_share"]
"""


def test_a_board_of_looks_is_published_checked_and_compared(tmp_path, capsys):
    place = Path(".looks", "minilm-sst2", "sst2", "dense")
    mine, folder = tmp_path / "mine", tmp_path / "results"
    for ending in (".json", ".npz"):
        file = mine / "records" / "inner" / place / f"relevance{ending}"
        file.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(MEASURED.parent / "inside" / place / file.name, file)
    (mine / "inner.toml").write_text(LOOKED, encoding="utf-8")
    assert main(["publish", str(folder), str(mine / "inner.toml")]) == 0
    home = folder / layout.BOARDS
    assert b"relevance.agreement" in (home / "inner.md").read_bytes() and [*(home / "inner").glob("*.svg")]
    assert "(boards/inner.md)" in (folder / "README.md").read_text("utf-8")
    assert main(["leaderboard", str(home / "inner.toml"), "--check"]) == 0
    before = tmp_path / "before"
    shutil.copytree(folder, before)
    claim = next(line for line in LOOKED.splitlines() if "attn_share" in line)
    (home / "inner.toml").write_text(LOOKED.replace(claim, ""), encoding="utf-8")
    capsys.readouterr()
    assert main(["publish", str(folder), "--against", str(before)]) == 0
    told = capsys.readouterr().out
    assert told.startswith("1 of 2 rows differ") and "| gone | inner | minilm-sst2 | sst2 |" in told
    shutil.rmtree(mine / "records")
    assert main(["publish", str(folder), str(mine / "inner.toml")]) == 2
    assert "nothing is measured. `attnbench look" in capsys.readouterr().err


def test_a_stale_table_is_told(published, capsys):
    folder, _ = published
    suite = str(folder / layout.BOARDS / "small.toml")
    table = folder / layout.BOARDS / "small-parquet" / parquet.FILE
    assert main(["leaderboard", suite, "--check"]) == 0
    for content in (b"no parquet", table.read_bytes()[:-9]):
        table.write_bytes(content)
        assert main(["leaderboard", suite, "--check"]) == 1
        assert "results.parquet: stale" in capsys.readouterr().out
    (folder / layout.BOARDS / "small-ranks.md").write_text("# other ranks\n")
    assert main(["leaderboard", suite, "--check"]) == 1
    assert "small-ranks.md: stale" in capsys.readouterr().out


def test_what_cannot_be_published_is_told_in_a_line(published, tmp_path, capsys):
    folder, _ = published
    other = add(tmp_path / "other", "prune80")
    path = tmp_path / "other" / "records" / "small" / COLUMN / "dense.json"
    found = record.read(path)
    found.provenance["fingerprints"]["checkpoint"] = "0" * 64
    record.write(path.parents[2], found)
    unmeasured = tmp_path / "none.toml"
    unmeasured.write_text(SUITE.format(methods='"prune50"'), encoding="utf-8")
    for words, told in (
        ([str(tmp_path / "new")], "no suite in"),
        ([str(folder), str(other)], "its identity is of other settings"),
        ([str(folder), str(unmeasured)], "nothing is measured"),
        ([str(folder / "README.md")], "is a file; give a folder"),
        ([str(folder), "--against", str(tmp_path)], "not what `attnbench publish` lays out"),
        ([str(folder), str(other), "--against", str(tmp_path)], "the suites out"),
        ([str(folder), "--keep-as", "../2026"], "a version is named by letters"),
    ):
        assert main(["publish", *words]) == 2, words
        assert told in capsys.readouterr().err
    assert not git(folder, "status", "--porcelain")
