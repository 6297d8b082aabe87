"""Leases: one owner a cell, whatever the clocks say; what a dead one held is measured by another, once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import attnbench
from attnbench.matrix import runner
from attnbench.matrix.ledger import Ledger
from attnbench.matrix.sharing import heartbeat, leases
from attnbench.matrix.sharing.leases import LASTS, Leases
from attnbench.records.record import Record

CELL = "tiny · sst2 · prune80"


class Clock:
    """A clock that is set by hand."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def made(tmp_path):
    """Make leases on one folder, each as of another run."""
    found = []

    def make(**options):
        found.append(Leases(tmp_path, **options))
        return found[-1]

    yield make
    for each in found:
        each.close()


def _file(folder):
    (found,) = (Path(folder) / leases.FOLDER).glob("*.lease")
    return found


def _of_another_machine(folder, cell=CELL):
    """Leave a lease of a machine that never ends it."""
    mine = Leases(folder)
    assert mine.take(cell)
    file = _file(folder)
    content = {**json.loads(file.read_text(encoding="utf-8")), "machine": "another", "host": "node7"}
    mine.close()
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(content), encoding="utf-8")
    return file


def test_a_cell_has_one_owner(made, tmp_path):
    one, two = made(), made()
    assert one.take(CELL) and not two.take(CELL) and two.take("tiny · sst2 · dense")
    assert one.mine(CELL) and not two.mine(CELL)
    assert two.owner(CELL) == f"{os.uname().nodename}, process {os.getpid()}"
    one.release(CELL)
    assert two.take(CELL) and not one.take(CELL)
    one.close()
    two.close()
    assert not (tmp_path / leases.FOLDER).exists()


AGES = {"an hour behind": -3600, "now": 0, "an hour ahead": 3600, "a year behind": -3.2e7}


@pytest.mark.parametrize("age", AGES)
def test_a_lease_of_another_machine_ends_by_what_stays_the_same_not_by_what_clocks_say(age, made, tmp_path):
    file, clock = _of_another_machine(tmp_path), Clock()
    then = file.stat().st_mtime + AGES[age]
    os.utime(file, (then, then))
    run = made(clock=clock)
    assert not run.take(CELL) and run.owner(CELL).startswith("node7, process ")
    clock.now += LASTS - 1
    assert not run.take(CELL)
    os.utime(file, (then + 1, then + 1))  # a heartbeat
    clock.now += 2
    assert not run.take(CELL)
    clock.now += LASTS
    assert not run.take(CELL)
    clock.now += 1
    assert run.take(CELL) and run.mine(CELL)


def test_one_of_two_who_see_a_dead_lease_takes_it(made, tmp_path):
    file, clock = _of_another_machine(tmp_path), Clock()
    one, two = made(clock=clock), made(clock=clock)
    assert not one.take(CELL) and not two.take(CELL)
    clock.now += LASTS + 1
    guard = file.with_suffix(".taking")
    guard.touch()  # the other is just taking it over
    assert not one.take(CELL) and file.exists()
    clock.now += LASTS + 1  # and has died over it
    assert not one.take(CELL) and not guard.exists()
    assert one.take(CELL) and not two.take(CELL)


def test_what_is_taken_over_is_no_longer_written(tmp_path, made):
    ledger = Ledger(tmp_path, leases=made())
    named = {"model": "tiny", "task": "sst2", "method": "prune80"}
    with ledger.held(named) as mine:
        assert mine
        _file(tmp_path).unlink()  # this process stood still for long
        assert made().take(" · ".join(named.values()))
        ledger.write(Record(named, "not applicable", "this is lost, not written"))
        pytest.fail("it was written")
    assert not list(tmp_path.rglob("*.json"))


HOLD = """
import os, sys
from attnbench.matrix.sharing.leases import Leases
held = Leases(sys.argv[1])
print(held.take(sys.argv[2]), flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("ending", ["kill", "leave"])
def test_a_dead_owner_on_this_machine_is_known_at_once(ending, made, tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path), CELL], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout.readline() == b"True\n"
    run = made()
    assert not run.take(CELL)
    if ending == "kill":
        process.send_signal(signal.SIGKILL)
    process.communicate()
    assert run.take(CELL)


def test_a_heartbeat_is_of_the_owners_lease_alone(tmp_path):
    file = tmp_path / "a.lease"
    file.write_text("mine", encoding="utf-8")
    os.utime(file, (1, 1))
    heartbeat.touch(str(file), "another's")
    assert file.stat().st_mtime == 1
    heartbeat.touch(str(file), "mine")
    assert file.stat().st_mtime > 1
    heartbeat.touch(str(tmp_path / "gone"), "mine")


class _Others:
    """Another run that measures a cell while this one waits."""

    def __init__(self, folder, cell, act):
        self.held, self.cell, self.act = Leases(folder), cell, act
        assert self.held.take(cell)

    def wait(self, *_):
        if self.act is not None:
            self.held.release(self.cell)
            act, self.act = self.act, None
            act()


def test_a_cell_that_another_run_measures_comes_last_and_is_taken_from_it(tiny_folder, tmp_path, monkeypatch):
    lines = []
    listener = _Listening(lines)
    records = str(tmp_path)

    def run(*methods, **options):
        return attnbench.run(tiny_folder, methods, "pocket-sentiment", records=records, limit=4, **options)

    others = _Others(tmp_path, "tiny · pocket-sentiment · prune80", lambda: run("prune80"))
    monkeypatch.setattr(Leases, "wait", others.wait)
    run("prune80", "prune50", listener=listener)
    others.held.close()
    assert [line for line in lines if isinstance(line, tuple)] == [
        ("dense", False), ("uniform", False), ("prune50", False), ("prune80", True)
    ]  # fmt: skip
    waited = [line for line in lines if str(line).startswith("waiting")]
    assert waited == [
        f"waiting for 1 cell that other runs measure: {os.uname().nodename}, process {os.getpid()}"
    ]
    assert not (tmp_path / leases.FOLDER).exists()


class _Listening:
    """Keep what is heard."""

    def __init__(self, lines):
        self.lines = lines

    def start(self, cells): ...
    def begin(self, cell): ...
    def advance(self, cells): ...
    def line(self, text):
        self.lines.append(text)

    def finish(self, item, reused):
        self.lines.append((item.cell["method"], reused))


def test_what_fails_in_another_run_is_not_tried_by_this_one_again(
    tiny_folder, tmp_path, monkeypatch, fresh_registry
):
    plugin = tmp_path / "raises.py"
    plugin.write_text(RAISES, encoding="utf-8")
    fresh_registry.load([str(plugin)])
    records, tries = str(tmp_path / "r"), tmp_path / "tries"
    monkeypatch.setenv("TRIES", str(tries))

    def run():
        return attnbench.run(tiny_folder, "raises", "pocket-sentiment", records=records, limit=4)

    (tmp_path / "r").mkdir()
    others = _Others(tmp_path / "r", "tiny · pocket-sentiment · raises", run)
    monkeypatch.setattr(Leases, "wait", others.wait)
    assert [item.status for item in run().records] == ["measured", "measured", "failed"]
    others.held.close()
    assert tries.read_text(encoding="utf-8") == "x"
    run()  # the next one tries it again, as ever
    assert tries.read_text(encoding="utf-8") == "xx"


RAISES = """
import os
from attnbench import Method, hookimpl

class Raises(Method):
    name = "raises"
    examples = ("raises",)

    def probs(self, probs, site):
        with open(os.environ["TRIES"], "a") as file:
            file.write("x")
        raise RuntimeError("always")

@hookimpl
def register_methods(register):
    register(Raises)
"""


def test_who_is_waited_for_is_said_once():
    assert runner.waiting(["a, process 1", "", "a, process 1", "b, process 2"]) == (
        "waiting for 4 cells that other runs measure: a, process 1; b, process 2"
    )
