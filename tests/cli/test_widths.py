"""No command prints a line that is wider than the terminal, on stdout or stderr."""

from __future__ import annotations

import re
import sys

import pytest

from attnbench.cli.main import main
from attnbench.cli.screen import laid_out
from attnbench.errors import NARROWEST, PIPED, say, screen_width, wrap

CONTROL = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
SUITE = """
title = "A suite for a terminal"
methods = ["prune80", "heads50:gradient:per-layer"]
limit = 8
models = ["pocket-bert"]
tasks = ["pocket-sentiment"]
"""
BERT = "--models bert --tasks pocket-sentiment"
METHODS = "prune80+logquant3,heads50:gradient:per-layer,heads50:random"
# {dir} is a folder that the lines before have written into; the last number is the exit status
LINES = [
    ("--help", 0), ("run --help", 0), ("look --help", 0), ("leaderboard --help", 0), ("heads --help", 0),
    ("methods", 0), ("methods heads", 0), ("methods prune80", 0), ("methods evict:snapkv", 0),
    ("methods logquant3", 0), ("methods cache", 0), ("methods prne80", 2), ("studies", 0),
    ("studies clamp4", 0), ("studies relevance", 0), ("models", 0), ("tasks", 0),
    (f"run {BERT} --methods {METHODS} --limit 8 --records {{dir}}/r", 0),
    (f"run {BERT} --methods prune80:layers=9 --limit 8 --records {{dir}}/r", 2),
    ("run --models bert --tasks sst2 --methods prune80 --records {dir}/r", 2),
    ("run {dir}/suite.toml --limit 4 --records {dir}/s --methods prune80", 2),
    ("status {dir}/suite.toml", 1), ("run {dir}/suite.toml", 0), ("status {dir}/suite.toml", 0),
    ("leaderboard --records {dir}/r --format text --legend -v", 0),
    ("leaderboard {dir}/suite.toml --output {dir} --format md,csv", 0),
    ("leaderboard {dir}/suite.toml --check", 1),  # it has no pictures yet
    ("compare heads50:gradient:per-layer prune80+logquant3 --records {dir}/r", 0),
    ("compare heads50:random heads50:gradient:per-layer --records {dir}/r", 0),
    ("verify {dir}/r/pocket-bert/pocket-sentiment/uniform.json --sample 4", 0),
    ("merge {dir}/r --into {dir}/merged", 0), ("merge {dir}/s {dir}/nowhere --into {dir}/merged", 2),
    (f"heads {BERT} --by entropy,l2 --ablate --limit 4 --records {{dir}}/r --output {{dir}}/heads", 0),
    ("heads --models marian --by entropy,l2 --limit 8 --records {dir}/r --output {dir}/heads", 0),
    ("look --models bert,gpt --text soup --studies sparsity --methods prune80,logquant3+prune80 "
     "--records {dir}/r --output {dir}/look", 0),
    ("export {dir}/out --model bert --task pocket-sentiment --method heads50:gradient", 0),
    ("compare {dir}/out bert --task pocket-sentiment --limit 8 --records {dir}/r", 0),
    ("check prune80 -v", 0), ("check sparsity", 0), ("check unheard-of", 2),
    ("new-method my-method-of-a-long-name --output {dir}/new", 0),
    ("new-method my-package-of-a-long-name --package --output {dir}/new", 0),
    ("publish {dir}/published {dir}/suite.toml", 0),
]  # fmt: skip
SLOW = ("check", "heads", "look", "export")  # they break lines as the others do: at one width


def unbreakable(line: str) -> bool:
    """Tell whether a line is one word: a link, a path, a spec, with the backslash of a command."""
    return len(line.removesuffix(" \\").split()) == 1


def on_a_terminal(monkeypatch):
    """Take both streams for terminals."""
    for stream in (sys.stdout, sys.stderr):
        monkeypatch.setattr(stream, "isatty", lambda: True, raising=False)


@pytest.mark.parametrize("width", [NARROWEST, 120])
def test_every_line_of_every_command_fits(width, tmp_path, capsys, monkeypatch):
    on_a_terminal(monkeypatch)
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "suite.toml").write_text(SUITE)
    wide, widest = [], 0
    for text, status in LINES:
        if width != NARROWEST and (text.split()[0] in SLOW or "{dir}/out" in text):
            continue
        try:
            found = main(text.format(dir=".").split())
        except SystemExit as stopped:  # argparse, after its help
            found = stopped.code or 0
        told = capsys.readouterr()
        assert found == status, f"{text}: {told.err}"
        for line in re.split(r"[\r\n]", CONTROL.sub("", told.out + told.err)):
            line = line.rstrip()
            if line and not unbreakable(line):
                widest = max(widest, len(line))
                wide += [f"{text}: {line}"] if len(line) > width else []
    assert not wide, "\n".join(wide)
    assert widest > width - 4  # what there is room for is used


def test_a_message_is_one_line_where_no_terminal_reads_it(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    line = "a warning of more words than eighty columns " * 4
    say(line)
    assert capsys.readouterr().err == f"{line}\n"
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    say(line)
    told = capsys.readouterr().err.splitlines()
    assert len(told) > 1 and all(len(each) <= 80 for each in told)
    assert " ".join(" ".join(told).split()) == line.strip()


def test_the_width_is_that_of_columns_and_never_below_80(monkeypatch, capsys):
    for given, found in (("100", 100), ("20", 80), ("", PIPED), ("wide", PIPED)):
        monkeypatch.setenv("COLUMNS", given)
        assert screen_width(sys.stderr) == found


def test_a_table_drops_its_last_columns_and_then_puts_names_above(monkeypatch):
    rows = [["kind", "entropy", "distance", "mass"], ["encoder", "0.123", "4.000", "0.500"]]
    assert laid_out.table(rows, 1, 80) == (
        ["   kind  entropy  distance   mass", "encoder    0.123     4.000  0.500"], []
    )  # fmt: skip
    lines, missing = laid_out.table(rows, 1, 26)
    assert lines == ["   kind  entropy  distance", "encoder    0.123     4.000"] and missing == ["mass"]
    lines, missing = laid_out.table([["model", "n"], ["m" * 30, "7"]], 1, 32)
    assert lines == ["model", "  n", "m" * 30, "  7"] and missing == []


def test_blocks_hold_every_column_once():
    rows = [["layer", *map(str, range(12))], ["0", *["0.1234"] * 12]]
    parts = [*laid_out.blocks(rows, 1, 60)]
    assert [part[0].split()[1:] for part in parts] == [[*map(str, range(6))], [*map(str, range(6, 12))]]
    assert all(len(line) <= 60 for part in parts for line in part)


def test_a_list_is_broken_between_words_beside_its_names():
    rows = [("a", "one two three four five six"), ("a-name-of-a-long-kind", "seven")]
    assert laid_out.listed(rows, 20) == [
        "a  one two three", "   four five six", "a-name-of-a-long-kind", "   seven",
    ]  # fmt: skip


def test_a_command_that_follows_can_be_pasted(monkeypatch, capsys):
    on_a_terminal(monkeypatch)
    monkeypatch.setenv("COLUMNS", "80")
    laid_out.follow("attnbench check mine --plugin " + "x" * 60, "attnbench methods")
    assert capsys.readouterr().err.splitlines() == [
        "next:", "  attnbench check mine --plugin \\", f"    {'x' * 60}", "  attnbench methods",
    ]  # fmt: skip
    assert wrap("  a b", 3, 0).splitlines() == ["  a", "b"]
