"""A small part of benchmarks/fuzz.py: what nobody would write is read, or refused in one line."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "fuzz.py"


@pytest.fixture(scope="module")
def fuzzing():
    spec = importlib.util.spec_from_file_location("fuzz_of_benchmarks", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(SCRIPT.parent))
        spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("kind", "count"), [("specs", 1500), ("records", 120), ("files", 60)])
def test_what_nobody_would_write_is_read_or_refused_in_one_line(kind, count, fuzzing, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fuzz = fuzzing.Fuzz(11, tmp_path)
    getattr(fuzz, kind)(count)
    assert not fuzz.faults, "\n".join(fuzz.faults[:3])
    refused = sum(count for name, count in fuzz.counts.items() if name.endswith("refused"))
    assert refused or 0 < fuzz.counts["records read"] < count


@pytest.mark.parametrize(
    ("read", "told"),
    [
        (lambda: int("x"), "ValueError"),
        (lambda: print("\x1b[31m"), "control character"),
        (lambda: print("x" * 500, file=__import__("sys").stderr), "500 characters"),
    ],
)
def test_the_fuzz_finds_what_it_looks_for(read, told, fuzzing, tmp_path):
    fuzz = fuzzing.Fuzz(0, tmp_path)
    fuzz.attempt("made", "case", read)
    assert len(fuzz.faults) == 1 and told in fuzz.faults[0]
