"""What is written to a terminal: characters that it has not, control characters, streams that are closed."""

from __future__ import annotations

import re
import subprocess
import sys

import numpy as np
import pytest
from sample_records import record, right

from attnbench.cli.main import main
from attnbench.errors import MESSAGE, NotApplicable, UserError, message
from attnbench.matrix.console import Console, fitting, time_left
from attnbench.records import record as records

PROGRAM = [sys.executable, "-m", "attnbench"]


@pytest.fixture
def folder(tmp_path):
    for item in (record("dense", acc=right(400, 20)), record("prune80", acc=right(400, 21))):
        records.write(tmp_path / "r", item)
    return tmp_path / "r"


@pytest.mark.parametrize(
    ("encoding", "shown"),
    [("ascii", "d dense"), ("latin-1", "d dense"), ("cp1252", "d dense"), ("utf-8", "Δ dense")],
)
def test_what_a_terminal_has_not_is_replaced(encoding, shown, folder, monkeypatch):
    for name, value in (("PYTHONIOENCODING", encoding), ("LC_ALL", "C"), ("PYTHONUTF8", "0")):
        monkeypatch.setenv(name, value)
    command = [*PROGRAM, "leaderboard", "--records", str(folder), "--format", "text"]
    done = subprocess.run(command, capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")
    lines = done.stdout.decode(encoding).splitlines()
    header, dense, method = (
        next(line for line in lines if word in line) for word in ("method  ", "  dense", "prune80")
    )
    assert shown in header
    assert dense.index("95.0") == method.index("94.8")  # columns stay in line
    assert ("+-" in dense) == (encoding == "ascii")


def test_a_terminal_shows_a_table_and_a_pipe_gets_markdown(folder, monkeypatch, capsys):
    for seen, begins in ((True, "Models\n\nmethod "), (False, "## Models\n\n| model ")):
        monkeypatch.setattr(sys.stdout, "isatty", lambda seen=seen: seen, raising=False)
        assert main(["leaderboard", "--records", str(folder)]) == 0
        assert capsys.readouterr().out.startswith(begins)
        assert main(["leaderboard", "--records", str(folder), "--format", "md"]) == 0
        assert capsys.readouterr().out.startswith("## Models")


def test_a_file_where_a_folder_has_to_be_is_named(folder, tmp_path, capsys):
    (tmp_path / "my.csv").touch()
    assert main(["leaderboard", "--records", str(folder), "--output", str(tmp_path / "my.csv" / "b.md")]) == 2
    assert f"cannot be written: {tmp_path / 'my.csv'} is a file" in capsys.readouterr().err


def test_help_breaks_no_word(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    for command in ("--help", "heads --help", "run --help"):
        with pytest.raises(SystemExit):
            main(command.split())
        text = capsys.readouterr().out
        assert not [line for line in text.splitlines() if re.search(r"\w-$", line)], command


@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
@pytest.mark.parametrize("width", [80, 120])
def test_a_table_fits_the_columns_of_the_terminal_in_any_encoding(width, encoding, folder, monkeypatch):
    for name, value in (("PYTHONIOENCODING", encoding), ("PYTHONUTF8", "0"), ("COLUMNS", str(width))):
        monkeypatch.setenv(name, value)
    command = [*PROGRAM, "leaderboard", "--records", str(folder), "--format", "text", "--legend", "-v"]
    out = subprocess.run(command, capture_output=True, check=True).stdout.decode(encoding)
    assert max(map(len, out.splitlines())) <= width
    assert len(max(out.splitlines(), key=len)) > width - 12  # nothing is wrapped twice


def test_the_time_left_is_that_of_the_mean_cell_and_is_told_once_one_is_measured():
    assert time_left(0.1, 0, 16) == time_left(30, 0.9, 15) == ""
    assert time_left(10, 2, 4) == ", 20 s left"
    assert time_left(600, 2, 4) == ", 20 min left" and time_left(3600, 1, 2.5) == ", 2 h 30 min left"


@pytest.mark.parametrize(
    ("width", "shown"),
    {40: "bert · sst2 · prune80", 20: "sst2 · prune80", 8: "prune80", 5: "prun…"}.items(),
)
def test_the_bar_names_the_cell_as_far_as_there_is_room(width, shown):
    assert fitting("bert · sst2 · prune80", width) == shown


def test_the_bar_fits_its_terminal(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    listener = Console()
    listener.start(4)
    for method in ("dense", "heads50:gradient:per-layer:layers=0-3+prune80"):
        listener.begin(f"a-model-of-a-long-name · a-long-task · {method}")
        listener.advance(0.5)
        bar = str(listener._bar)
        assert method in bar or "…" in bar
        assert "?" not in bar and "0.0" not in bar
        listener.finish(record(method, acc=right(10, 1)), False)
    listener.close()


def test_a_bar_that_is_closed_at_once_leaves_its_line_empty(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    listener = Console()
    listener.start(2)
    listener.begin("bert · sst2 · dense")
    listener.close()
    shown = capsys.readouterr().err
    assert "dense" in shown and shown.endswith("\r") and not shown.split("\r")[-2].strip()


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_a_mistake_is_told_in_what_a_terminal_has(encoding, monkeypatch):
    monkeypatch.setenv("PYTHONIOENCODING", encoding)
    done = subprocess.run([*PROGRAM, "compare", "prune≈", "dense"], capture_output=True)
    assert done.returncode == 2 and b"Traceback" not in done.stderr and done.stderr.count(b"\n") == 1


@pytest.mark.parametrize(
    ("closed", "line", "status"),
    [
        (">&-", "methods", 0),
        (">&-", "methdos", 2),
        ("2>&-", "methdos", 2),
        (">&- 2>&-", "methdos", 2),
        (">&-", "tasks", 0),
    ],
)
def test_a_closed_stream_is_no_traceback_and_takes_nothing_from_the_other(closed, line, status):
    done = subprocess.run(
        ["sh", "-c", f'exec "$0" -m attnbench {line} {closed}', sys.executable],
        capture_output=True,
        text=True,
    )
    assert done.returncode == status and "Traceback" not in done.stderr
    assert done.stdout == "" and (done.stderr.count("\n") == 1) == (status == 2 and "2>" not in closed)


@pytest.mark.parametrize("line", ["look --text soup --studies sparsity", "heads --by l2 --output heads"])
def test_no_bar_of_a_library_is_shown(line, tmp_path):
    command = [*PROGRAM, *line.split(), "--models", "gpt", "--records", "records"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=True)
    assert "gpt" in done.stderr and "Loading" not in done.stderr and "it/s" not in done.stderr


@pytest.mark.parametrize("kind", [UserError, NotApplicable])
@pytest.mark.parametrize(
    "text", ["a\nb", "a\x1b[31mb", "a\u202eb", "a\x00b", "a\x85b", "a\u2028b", "x" * 10**6]
)
def test_an_error_is_one_line(kind, text):
    told = str(kind(f"begin {text} end"))
    assert told.isprintable() and len(told) <= MESSAGE
    assert told.startswith("begin ") and told.endswith(" end" if "x" not in text else "x end")


def test_a_long_message_keeps_its_end():
    told = message("first " + "x" * 1000 + " write --records DIR")
    assert told.startswith("first ") and told.endswith("write --records DIR") and len(told) <= MESSAGE


HOSTILE = "evil\n\x1b[2J\x1b]0;title\x07" + "y" * 5000


def test_a_record_from_elsewhere_is_shown_inert(tmp_path, capsys):
    for method in ("dense", "prune80"):
        item = record(method, model=HOSTILE, acc=right(50, 4))
        item.settings["notes"], item.environment["processor"] = [HOSTILE], HOSTILE
        item.provenance = {"command": HOSTILE, "source": "folder", "plugins": [HOSTILE]}
        records.write(tmp_path, item)
    bad = record("prune50", model=HOSTILE, acc=right(50, 4))
    bad.status, bad.error, bad.metrics = "failed", HOSTILE, {}
    records.write(tmp_path, bad)
    for arguments in (["--format", "text"], ["--format", "md"], ["--format", "csv"], ["--check"]):
        main(["leaderboard", "--records", str(tmp_path), *arguments])
    main(["compare", "prune80", "dense", "--records", str(tmp_path)])
    main(["verify", str(next(tmp_path.glob("*/*/prune80.json")))])
    told = capsys.readouterr()
    for text in (told.out, told.err):
        assert "evil" in text and "y" * 2500 not in text
        assert all(line.isprintable() for line in text.split("\n"))


@pytest.mark.parametrize("name", ["=1+1", "+1", "-1", "@SUM(A1)", "＝1"])
def test_a_cell_of_a_csv_is_no_formula_and_no_nan(name, tmp_path, capsys):
    for method in ("dense", name):
        item = record(method, model=name, acc=right(50, 4))
        item.settings = {}
        records.write(tmp_path, item)
    items = list(records.read_all(tmp_path))
    assert len(items) == 2
    assert main(["leaderboard", "--records", str(tmp_path), "--format", "csv"]) == 0
    out = capsys.readouterr().out
    assert f"'{name}" in out and f"\n{name}" not in out and f",{name}" not in out
    assert "nan" not in out.lower() and np.isfinite(items[0].metrics["acc"]["value"])
