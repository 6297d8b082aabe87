"""What is said of methods beside their code: every one has it, and what it names is there."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

import attnbench_plugins
from attnbench.cli.main import main
from attnbench.errors import UserError
from attnbench.methods import catalogue, facts

ROOT = Path(__file__).parents[2]
DECLARED = tomllib.loads((Path(attnbench_plugins.__path__[0]) / facts.FILE).read_text(encoding="utf-8"))
UNTESTED = {"evict:random"}  # a draw, which no formula says


def test_every_method_says_what_it_was_held_against():
    named = [name for each in DECLARED["agrees"] for name in each["methods"]]
    assert sorted(named) == sorted(set(catalogue.built_in()) - UNTESTED)
    assert {name for each in DECLARED["published"] for name in each["methods"]} <= set(named)


@pytest.mark.parametrize("test", [each["test"] for each in DECLARED["agrees"]])
def test_the_tests_that_are_named_are_there(test):
    file, _, name = test.partition("::")
    assert re.search(rf"^def {name}\(", (ROOT / file).read_text(encoding="utf-8"), re.MULTILINE)


@pytest.mark.parametrize("entry", DECLARED["published"], ids=lambda entry: entry["methods"][0])
def test_a_suite_asks_for_what_is_published_of_a_method(entry):
    text = (ROOT / entry["suite"]).read_text(encoding="utf-8")
    claims = tomllib.loads(text)["claims"]
    for name in entry["methods"]:
        first = [claim.split()[0] for claim in claims]
        assert any(catalogue._is_of(name, spec) for spec in first), name


def test_a_method_shows_what_is_known_of_it(capsys):
    assert main(["methods", "prune"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "agrees with its formula: a sort of each row in numpy (tests/engine/test_kernels.py::" in out
    assert "paper about 80 % of the attention values can be zero" in out
    assert main(["methods", "evict:random"]) == 0
    assert f"agrees {facts.UNCHECKED}" in " ".join(capsys.readouterr().out.split())


def test_overheads_and_claims_are_those_of_the_committed_tables():
    text = catalogue.render().partition("\n## prune\n")[2].partition("\n## ")[0]
    (line,) = [line for line in text.splitlines() if line.startswith("- Overhead: ")]
    short, long = (
        (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8").split("\n## Whole prompts\n")
    )
    numbers = [part.partition("| prune80 | ")[2].partition(" |\n")[0] for part in (short, long)]
    found = [*numbers[0].split(" | "), numbers[1].partition(" (")[0]]
    assert re.findall(r"(\d\.\d\d) \(", line) == found and len(found) == 4
    for verdict in ("fails on smollm2-q4 lambada_openai", "undecided on minilm-sst2 sst2"):
        assert verdict in text
    assert "On such models not measured yet; [ji2021](../leaderboards/ji2021.toml) asks for it." in text


PLUGIN = """
from dataclasses import dataclass
from attnbench import Method, hookimpl

@dataclass
class Other(Method):
    '''Do nothing.'''
    name = "other"
    examples = ("other",)

@hookimpl
def register_methods(register):
    register(Other)
"""
GOOD = '[[agrees]]\nmethods = ["other"]\nwith = "nothing"\ntest = "test_it"\n'


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (GOOD, None),
        ("[[agrees]\n", "not readable as TOML"),
        ('[[agrees]]\nmethods = ["other"]\n', "agrees is not as it should be"),
        (GOOD.replace('["other"]', '"other"'), "agrees is not as it should be"),
        (GOOD.replace('"test_it"', "3"), "agrees is not as it should be"),
        (GOOD.replace("agrees", "agree"), "agree is not as it should be"),
    ],
)
def test_a_plugins_own_facts_stand_beside_its_file(text, told, fresh_registry, tmp_path):
    (tmp_path / "other.py").write_text(PLUGIN)
    (tmp_path / facts.FILE).write_text(text)
    fresh_registry.load([str(tmp_path / "other.py")])
    cls = fresh_registry.registry().methods["other"]
    if told is None:
        assert facts.of(cls).lines() == [("agrees", "with nothing (test_it)")]
    else:
        with pytest.raises(UserError, match=told):
            facts.of(cls)
