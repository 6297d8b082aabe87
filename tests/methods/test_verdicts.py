"""What `attnbench check` found is kept by the code's hash, said by a run and marked on the board."""

from __future__ import annotations

import pytest

import attnbench
from attnbench.boards.tables import leaderboard
from attnbench.cli.main import main
from attnbench.methods import spec, verdicts
from attnbench.records import provenance
from attnbench.records import record as records

PLUGIN = '''
from dataclasses import dataclass
from attnbench import Method, hookimpl

@dataclass
class {name}(Method):
    """Turn the keys round. Source: none, https://example.org."""
    name = "{spec}"
    examples = ("{spec}",)

    def probs(self, probs, site):
        return {code}

@hookimpl
def register_methods(register):
    register({name})
'''


@pytest.fixture
def plugin(tmp_path, fresh_registry, monkeypatch):
    """Write a plugin of one method; the verdicts of this test alone are kept."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))

    def write(name, code):
        path = tmp_path / f"{name}.py"
        path.write_text(PLUGIN.format(name=name.title(), spec=name, code=code), encoding="utf-8")
        return str(path)

    return write


def test_a_verdict_is_kept_and_said_and_marked(plugin, tiny_folder, tmp_path, capsys):
    bad, good = plugin("turned", "probs.flip(-1)"), plugin("halved", "probs / 2")
    run = [
        "run",
        "--models",
        tiny_folder,
        "--tasks",
        "pocket-sentiment",
        "--limit",
        "12",
        "--methods",
        "turned,halved,prune50",
    ]
    run += ["--records", str(tmp_path / "r"), "--plugin", bad, "--plugin", good]
    assert main(run) == 0
    told = capsys.readouterr()
    assert told.err.count("was never checked") == 1 and "turned (unchecked)" in told.out
    assert "prune50 (" not in told.out
    assert main(["check", "turned", "--plugin", bad]) == 1
    assert "turned: FAILED" in capsys.readouterr().out
    assert verdicts.of(spec.parse("turned")).startswith("failed: ")
    assert (
        verdicts.of(spec.parse("halved")) == "unchecked"
        and verdicts.of(()) == verdicts.of(spec.parse("prune50")) == "shipped"
    )
    assert verdicts.of(spec.parse("halved+turned")).startswith("failed: ")
    path = next((tmp_path / "r").rglob("turned.json"))
    before = records.read(path)
    assert main(run) == 0  # nothing is measured again, what is known of the code is
    told = capsys.readouterr()
    after = records.read(path)
    assert told.err.count("fails `attnbench check`") == 1 and "turned (fails check)" in told.out
    assert after.date == before.date and after.provenance["check"].startswith("failed: ")
    assert after.provenance["identity"] == before.provenance["identity"]
    assert "do not rely on it" in leaderboard.render([after], "md")
    plain = records.read(next((tmp_path / "r").rglob("prune50.json")))
    assert plain.provenance["check"] == "shipped"


def test_changed_code_has_no_verdict(plugin, fresh_registry):
    fresh_registry.load([plugin("halved", "probs / 2")])
    verdicts.keep(spec.parse("halved"), ())
    assert verdicts.of(spec.parse("halved")) == "passed"
    fresh_registry._registry = None
    fresh_registry.load([plugin("thirds", "probs / 3")])
    assert verdicts.of(spec.parse("thirds")) == "unchecked"


@pytest.mark.parametrize("content", ["", "[", "[1]", '{"halved": 3}', "[" * 5000])
def test_a_damaged_verdict_is_none(content, plugin, fresh_registry):
    fresh_registry.load([plugin("halved", "probs / 2")])
    verdicts.keep(spec.parse("halved"), ["finite"])
    assert verdicts.of(spec.parse("halved")) == "failed: finite"
    (file,) = verdicts.folder().iterdir()
    file.write_text(content, encoding="utf-8")
    assert verdicts.of(spec.parse("halved")) == "unchecked"


def test_a_verdict_is_no_part_of_the_identity():
    parts = ({"model": "m", "task": "t", "method": "dense"}, {"dataset": "0"}, {"seed": 0}, "code")
    assert provenance.identity(*parts) == provenance.identity(*parts)
    assert "check" not in provenance.CHANGES_NUMBERS


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("prune80", "ok on encoders, decoders and encoder-decoders"),
        ("quantile3", "ok on encoders, not applicable to decoders and encoder-decoders"),
        ("prune80:on=cross", "ok on encoder-decoders, not applicable to encoders and decoders"),
    ],
)
def test_a_verdict_says_for_which_kinds_of_model_it_holds(text, said):
    from attnbench.testing import check_method

    report = check_method(text, families=("bert", "gpt2", "bart"))
    assert report.verdict == said and str(report).startswith(f"{text}: {said}\n")


def test_a_python_run_records_it_too(plugin, fresh_registry, tiny_folder, tmp_path):
    fresh_registry.load([plugin("halved", "probs / 2")])
    found = attnbench.run(tiny_folder, "halved", "pocket-sentiment", limit=8, records=str(tmp_path / "r"))
    assert found.records[-1].provenance["check"] == "unchecked"
