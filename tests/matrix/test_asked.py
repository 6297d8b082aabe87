"""What is asked for in Python, or comes into a record from the command line."""

from __future__ import annotations

import sys

import pytest
from sample_records import board

import attnbench
from attnbench.boards.tables import footnotes
from attnbench.errors import UserError
from attnbench.inputs.settings import Settings
from attnbench.matrix.request import Request
from attnbench.records import inert, provenance

WRONG = {
    "dtype": ("fp32", "unknown dtype 'fp32'. Known: float32"),
    "batch_size": (0, "batch_size=0 is not a whole number of at least 1"),
    "batch_tokens": (0, "batch_tokens=0 is not"),
    "limit": (0, "limit=0 is not"),
    "seed": (1.5, "seed=1.5 is not a whole number"),
    "repeats": (0, "repeats=0 is not a whole number of at least 1"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_number_that_makes_no_sense_is_refused_before_anything_is_measured(name, tmp_path):
    value, says = WRONG[name]
    with pytest.raises(UserError, match=says):
        attnbench.run("bert", "prune80:random", "pocket-sentiment", records=str(tmp_path), **{name: value})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "asked, says",
    [
        (lambda: attnbench.run(None, "prune80"), "no model: give --models"),
        (lambda: attnbench.run("bert", "prune80", limits=5), "unknown setting 'limits'. Did you mean limit?"),
        (lambda: attnbench.apply("bert", "prune80").__enter__(), "'bert' is no model: load it"),
        (lambda: attnbench.watch(None).__enter__(), "None is no model: load it"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_in_python_is_said_in_a_line(asked, says):
    with pytest.raises(UserError, match=says):
        asked()


@pytest.mark.parametrize("value", ["4", None, True, 2.0])
def test_only_a_whole_number_is_one(value):
    with pytest.raises(UserError, match="whole number"):
        Settings(batch_size=value)
    with pytest.raises(UserError, match="whole number"):
        Request.of("bert", "prune80", repeats=value)
    assert Settings(limit=None, batch_tokens=None).batch_size == 32


COMMANDS = {
    "--records=/home/me/records": "--records=./records",
    "--records /home/me/records": "--records ./records",
    "--tasks=/home/me/my.csv,sst2": "--tasks=./my.csv,sst2",
    "--tasks sst2,/home/me/my.csv": "--tasks sst2,./my.csv",
    "--models=~/mine": "--models=./mine",
    "--models /home/a+b/mine": "--models ./mine",
    "--methods heads:fixed:file=/home/me/h.json:on=encoder+prune80":
        "--methods heads:fixed:file=./h.json:on=encoder+prune80",
    "--model_args=pretrained=/home/me/mine,method=prune80": "--model_args=pretrained=./mine,method=prune80",
    # a shell's a{1,2},b: every word has b
    "--methods heads1:l1,prune5 heads3:l1,prune5 --seed 3": "--methods heads1:l1,prune5,heads3:l1 --seed 3",
    "--methods heads{10,30}:l1,prune50 prune50": "--methods heads{10,30}:l1,prune50 prune50",
    "--models some/model --seed=3 --limit 1": "--models some/model --seed=3 --limit 1",
}  # fmt: skip


@pytest.mark.parametrize(("given", "kept"), COMMANDS.items())
def test_a_command_is_kept_without_folders_of_this_machine(given, kept, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/usr/bin/attnbench", "run", *given.split()])
    words = provenance.command().replace("'", "")
    assert words == f"attnbench run {kept}"


def test_a_command_names_the_program_that_was_started(monkeypatch):
    for program, name in (
        ("/venv/attnbench/__main__.py", "attnbench"),
        ("/venv/pytest/__main__.py", "pytest"),
    ):
        monkeypatch.setattr(sys, "argv", [program, "run"])
        assert provenance.command() == f"{name} run"


@pytest.mark.parametrize(
    ("kept", "shown"),
    {
        "__main__.py run a.toml": "attnbench run a.toml",
        "attnbench run a.toml": "attnbench run a.toml",
        "x__main__.py run": "x__main__.py run",
    }.items(),
)
def test_a_command_of_an_older_record_is_shown_as_one_types_it(kept, shown):
    item = board()[0]
    item.provenance = {"command": kept}
    assert f"Made by: {shown}" in footnotes.footnotes([], [item], inert.clean)
