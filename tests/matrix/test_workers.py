"""Workers: one that leaves, crashes or takes too long costs its cell alone, and none outlives its driver."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest

from attnbench.cli.main import main
from attnbench.errors import UserError
from attnbench.inputs.settings import Settings
from attnbench.matrix.plan import Cell
from attnbench.matrix.sharing import leases, workers

PLUGIN = """
import ctypes, os, time
from attnbench import Method, hookimpl

def leaves():
    os._exit(3)

def crashes():
    ctypes.string_at(0)

def sleeps():
    with open("sleeping.part", "w") as file:
        file.write(str(os.getpid()))
    os.replace("sleeping.part", "sleeping")
    time.sleep(600)

def made(act):
    def probs(self, probs, site):
        act()
        return probs

    members = {"name": act.__name__, "examples": (act.__name__,), "probs": probs, "__module__": __name__}
    return type(act.__name__.title(), (Method,), members)

@hookimpl
def register_methods(register):
    for act in (leaves, crashes, sleeps):
        register(made(act))
"""
DATA = "text,label\na good film,positive\nit was bad and long,negative\n"


@pytest.fixture
def started(tiny_folder, tmp_path):
    """Start `attnbench run` with workers as a process of its own, in a folder of its own."""
    (tmp_path / "acts.py").write_text(PLUGIN, encoding="utf-8")
    (tmp_path / "mine.csv").write_text(DATA, encoding="utf-8")

    def start(methods, *more):
        asked = ["run", "--models", tiny_folder, "--tasks", "mine.csv", "--methods", methods]
        return subprocess.Popen(
            [sys.executable, "-m", "attnbench", *asked, "--records", "r", "--plugin", "acts.py", *more],
            cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )  # fmt: skip

    return start


def _statuses(folder):
    found = [json.loads(path.read_text(encoding="utf-8")) for path in folder.rglob("*.json")]
    return {each["cell"]["method"]: (each["status"], each["error"] or "") for each in found}


def test_a_worker_that_ends_costs_its_cell_alone_and_is_named(started, tmp_path):
    process = started("leaves,crashes,sleeps,prune80,prune50", "--workers", "2", "--cell-timeout", "15")
    out, err = process.communicate(timeout=600)
    found = _statuses(tmp_path / "r")
    assert process.returncode == 1 and "prune50" in out
    measured = {method for method, (status, _) in found.items() if status == "measured"}
    assert measured == {"dense", "uniform", "prune80", "prune50"}
    told = {
        "leaves": ("ended its process: by a kill from outside, for want of memory", "exit status 3"),
        "crashes": ("crashed its process: Segmentation fault", "killed by SIGSEGV"),
        "sleeps": ("took longer than --cell-timeout 15", "killed by SIGKILL"),
    }  # fmt: skip
    for method, (words, how) in told.items():
        assert found[method][0] == "failed" and found[method][1].startswith(f"{method}: {words}")
        assert re.search(
            rf"worker [12], process \d+, has ended at tiny · mine · {method}: {how}; another", err
        )
    assert not list((tmp_path / "r").rglob(".*"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_no_worker_outlives_its_driver(number, started, tmp_path):
    process = started("sleeps", "--workers", "1")
    _until(lambda: (tmp_path / "sleeping").exists())
    worker = int((tmp_path / "sleeping").read_text(encoding="utf-8"))
    process.send_signal(number)
    _, err = process.communicate(timeout=300)
    _until(lambda: not _lives(worker))
    if number == signal.SIGKILL:
        assert process.returncode == -number
    else:
        assert process.returncode == 128 + number
        assert err.splitlines()[-1] == (
            "attnbench: stopped; what is recorded stays, the same command goes on from there"
        )
    assert set(_statuses(tmp_path / "r")) == {"dense", "uniform"}
    _until(lambda: not list((tmp_path / "r").rglob(".*")))  # it was ended as Ctrl-C ends a run


def _until(holds):
    for _ in range(3000):
        if holds():
            return
        time.sleep(0.1)
    pytest.fail("it never was")


def _lives(process):
    try:
        with open(f"/proc/{process}/stat", encoding="utf-8") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


class _Dead:
    """A worker that is always found dead."""

    def __init__(self, number, asked, environment):
        self.number, self.ready, self.group, self.cell = number, number == 2, None, None
        self.output, self._write = os.pipe()
        os.close(self._write)
        self.name, self.ended = f"worker {number}, process 0", "exit status 9"

    def tell(self, **message): ...
    def events(self):
        return ()

    def stop(self, at_once): ...
    def wait(self, until):
        os.close(self.output)


def test_workers_that_end_before_they_begin_do_not_go_on_for_ever(tmp_path, monkeypatch):
    monkeypatch.setattr(workers, "Worker", _Dead)
    cells = [Cell("bert", "pocket-sentiment", method) for method in ("dense", "uniform")]
    with pytest.raises(UserError, match="workers end as soon as they begin: exit status 9"):
        workers.run(cells, Settings(), str(tmp_path), 1)


def test_a_column_that_ends_every_worker_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(workers, "Worker", lambda number, *more: _Dead(2, *more))
    monkeypatch.setattr(leases, "PAUSE", 0.0)
    cells = [Cell("bert", task, "dense") for task in ("pocket-sentiment", "pocket-qa")]
    with pytest.raises(UserError) as caught:
        workers.run(cells, Settings(), str(tmp_path), 1)
    words = "workers end before pocket-bert · pocket-sentiment · dense is begun: exit status 9"
    assert str(caught.value).startswith("2 of 2 pairs of model and task could not be measured")
    assert words in str(caught.value)


def test_times_that_other_workers_would_change_are_not_taken(tmp_path, capsys):
    asked = ["run", "--models", "bert", "--records", str(tmp_path / "r"), "--workers", "2", "--measure"]
    assert main([*asked, "--device", "cpu"]) == 2
    assert "--workers 2: --measure takes times" in capsys.readouterr().err.splitlines()[-1]


def test_each_worker_has_its_part_of_the_threads_or_a_device(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    shared = workers._environments(Settings(), 3)
    assert shared == [{"OMP_NUM_THREADS": "2"}] * 3
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    assert workers._environments(Settings(), 2) == [{"OMP_NUM_THREADS": "4"}] * 2
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,7")
    settings = Settings()
    object.__setattr__(settings, "device", "cuda")  # which this machine may not have
    assert [each["CUDA_VISIBLE_DEVICES"] for each in workers._environments(settings, 3)] == ["5", "7", "5"]
