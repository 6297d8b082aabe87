"""Suites: what a file may hold, where its models are, what a run of one prints and refuses."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from sample_records import record as sample
from sample_records import right

from attnbench.boards import board, checks, chosen, decisions, suite
from attnbench.boards.tables.leaderboard import write as write_board
from attnbench.boards.tables.text import Screen
from attnbench.cli.main import main
from attnbench.errors import UserError
from attnbench.inputs import names
from attnbench.records import record

SMALL = """
title = "Small"
models = ["pocket-bert"]
tasks = ["pocket-sentiment"]
methods = ["prune80", "prune80:random"]
limit = 8
"""


def write(folder, text, name="small.toml"):
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_the_commands_of_a_board_can_be_pasted_where_it_is_shown(tmp_path, monkeypatch):
    """A file is read from the folder that holds the suite's; a screen by who typed the path."""
    (tmp_path / "my boards").mkdir()
    monkeypatch.chdir(tmp_path)
    found = board.build([], suite.load(write(Path("my boards"), SMALL)))
    told = "Made by:\n  attnbench run 'my boards/small.toml'\n  attnbench leaderboard "
    assert f"{told}'my boards/small.toml' --output 'my boards'" in write_board(
        found, "text", screen=Screen(80)
    )
    monkeypatch.chdir("my boards")
    found = board.build([], suite.load("small.toml"))
    assert "attnbench leaderboard small.toml --output ." in write_board(found, "text", screen=Screen(80))
    assert f"{told}'my boards/small.toml' --output 'my boards'" in write_board(found, "text")


def test_a_suite_with_its_defaults(tmp_path):
    found = suite.load(write(tmp_path, SMALL))
    assert (found.name, found.title, found.repeats, found.seed, found.margin) == (
        "small",
        "Small",
        5,
        0,
        0.01,
    )
    assert found.parts == (suite.Part(("pocket-bert",), ("pocket-sentiment",), 8),)
    assert found.records == tmp_path / "records" / "small"
    assert found.specs()[:4] == ["dense", "uniform", "prune80", "prune80:random"]
    assert found.specs()[-1] == "prune80:random:seed=4" and len(found.specs()) == 8


def test_parts_have_their_own_limit_and_models_their_own_tasks(tmp_path):
    text = """
    methods = ["prune80"]
    [[part]]
    models = ["pocket-bert"]
    limit = 8
    [[part]]
    models = ["bert-base", "someone/model", "mine"]
    tasks = ["sst2"]
    """
    found = suite.load(write(tmp_path, text))
    assert found.title == "small" and [part.limit for part in found.parts] == [8, None]
    assert ("pocket-bert", "pocket-sentiment") in list(found.parts[0].columns())
    assert list(found.parts[1].columns()) == [
        ("bert-base", "sst2"),
        ("someone/model", "sst2"),
        ("mine", "sst2"),
    ]


def test_lengths_and_calibration_reach_a_run_as_its_options_would(tmp_path):
    text = SMALL + "max_length = 64\ncalibration_samples = 9\ncalibration_tokens = 900\n"
    found = suite.load(write(tmp_path, text))
    settings = found.request(found.parts[0]).settings
    assert (settings.max_length, settings.calibration_samples, settings.calibration_tokens) == (64, 9, 900)
    for key in ("max_length", "calibration_samples", "calibration_tokens"):
        for value in ("0", "1.5", "true", "'9'"):
            with pytest.raises(UserError, match=f"{key} = .* is not a number"):
                suite.load(write(tmp_path, f"{SMALL}{key} = {value}\n"))


OWN = """
methods = ["prune80"]
claims = ["prune80 > heads50:gradient:on=cross"]
[[part]]
models = ["tiny"]
tasks = ["sst2"]
[[part]]
models = ["other"]
tasks = ["translation"]
methods = ["heads50:gradient:on=cross", "prune80"]
"""


def test_a_part_has_methods_of_its_own_beside_the_suites(tmp_path):
    found = suite.load(write(tmp_path, OWN))
    first, second = found.parts
    cross = "heads50:gradient:on=cross"
    assert found.specs(first) == ["dense", "uniform", "prune80"]
    assert found.specs(second) == found.specs() == ["dense", "uniform", "prune80", cross]
    items = [
        sample(method, model=model, task=task, acc=right(100, 9))
        for model, task in (("tiny", "sst2"), ("other", "translation"))
        for method in ("dense", "uniform", "prune80", cross)
    ]
    made = board.build(items, found)
    shown = [(item.cell["model"], item.cell["method"]) for item in made.records]
    assert ("other", cross) in shown and ("tiny", cross) not in shown and not made.absent
    assert [each.model for each in decisions.evaluate(made)] == ["other"]
    found_wrong = [list(checks._of_suite(item, found, checks._cells(found))) for item in items]
    assert [bool(lines) for lines in found_wrong].index(True) == 3 and sum(map(bool, found_wrong)) == 1


def test_the_parts_methods_may_be_all(tmp_path):
    text = OWN.replace('methods = ["prune80"]\n', "", 1)
    with pytest.raises(UserError, match="names no method"):
        suite.load(write(tmp_path, text))
    both = text.replace('tasks = ["sst2"]', 'tasks = ["sst2"]\nmethods = ["window4"]')
    specs = suite.load(write(tmp_path, both)).specs()
    assert specs[2:] == ["window4", "heads50:gradient:on=cross", "prune80"]


MISTAKES = {
    'methods = ["prune80"]\nmodels = ["pocket-bert"]\nmeasure = 1': "measure is true or false",
    "": "names no method",
    'methods = ["prune80"]': "names no model",
    "methods = [": "not TOML",
    'methods = "prune80"': "methods is a list",
    'methods = ["prune80"]\nmodels = [1]': "models is a list",
    'methods = ["prone80"]\nmodels = ["pocket-bert"]': "Did you mean prune",
    'methods = ["prune80"]\nmodels = ["bert"]': "write pocket-bert, or bert-base",
    'methods = ["prune80"]\nmodels = ["pocket-brt"]': "Did you mean pocket-bert",
    'methods = ["prune80"]\nmodels = ["mine"]': "names no task",
    'methods = ["prune80"]\nmodels = ["pocket-bert", "pocket-bert"]\ntasks = ["a"]\n[[part]]\nmodels = ["x"]':
        "in each \\[\\[part\\]\\]",
    'methods = ["prune80"]\nmodel = ["x"]': "Did you mean models",
    'methods = ["prune80"]\nmodels = ["x"]\ntasks = ["a"]\nlimit = 0': "limit = 0",
    'methods = ["prune80"]\nmodels = ["x"]\ntasks = ["a"]\nlimit = true': "limit = True",
    'methods = ["prune80"]\nmodels = ["x"]\ntasks = ["a"]\nmargin = nan': "margin = nan",
    'methods = ["prune80"]\nmodels = ["x"]\ntasks = ["a"]\nrepeats = 0': "repeats = 0",
    'methods = ["prune80"]\nmodels = ["x"]\ntasks = ["a"]\nmargin = "1"': "margin = '1'",
    'methods = ["prune80"]\ntitle = 3': "title is a text",
    'methods = ["x"]\n[[part]]\nmodels = ["x"]\ntasks = ["a"]\n[[part]]\nmodels = ["x"]\ntasks = ["a"]':
        "twice",
    'methods = ["x"]\npart = 3': "in each",
    'methods = ["x"]\npart = []': "in each",
}  # fmt: skip


@pytest.mark.parametrize("text", MISTAKES)
def test_mistakes_are_named(tmp_path, text):
    with pytest.raises(UserError, match=MISTAKES[text]) as caught:
        suite.load(write(tmp_path, text))
    assert "\n" not in str(caught.value)


def test_no_file_is_said(tmp_path, capsys):
    assert main(["run", str(tmp_path / "none.toml")]) == 2
    assert "none.toml" in capsys.readouterr().err


FOLDERS = 'methods = ["prune80"]\nmodels = ["pocket-bert", "mine"]\ntasks = ["pocket-sentiment"]'


def test_a_folder_is_located_by_models_or_by_the_environment(tmp_path, monkeypatch):
    found = suite.load(write(tmp_path, FOLDERS))
    monkeypatch.delenv(names.PLACES, raising=False)
    with pytest.raises(UserError, match="--models PATH/mine"):
        chosen.parts(found, [])
    (tmp_path / "models" / "mine").mkdir(parents=True)
    (tmp_path / "models" / "mine" / "config.json").touch()
    place = str(tmp_path / "models" / "mine")
    assert chosen.parts(found, [place])[0].models == (place,)
    assert chosen.parts(found, ["pocket-bert"])[0].models == ("pocket-bert",)
    monkeypatch.setenv(names.PLACES, str(tmp_path / "models"))
    assert chosen.parts(found, [])[0].models == ("pocket-bert", place)
    with pytest.raises(UserError, match=r"unknown model of the suite 'mind'\. Did you mean mine"):
        chosen.parts(found, ["mind"])
    (tmp_path / "models" / "mine").rename(tmp_path / "other")
    (tmp_path / "models" / "mine").symlink_to(tmp_path / "other")
    linked = chosen.parts(found, [])[0].models[1]
    assert names.label(linked) == "mine"


def test_a_dry_run_prints_the_cells_and_how_many_are_recorded(tmp_path, capsys):
    path = write(tmp_path, FOLDERS)
    cell = {"model": "mine", "task": "pocket-sentiment", "method": "dense"}
    record.write(tmp_path / "records" / "small", record.Record(cell, "failed", "x"))
    assert main(["run", str(path), "--dry-run"]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[-1] == "mine pocket-sentiment prune80" and len(out.splitlines()) == 6
    assert "6 cells, 1 recorded" in err
    assert main(["run", str(path), "--dry-run", "--models", "pocket-bert"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 3


@pytest.mark.parametrize("command", [["--dry-run"], []])
@pytest.mark.parametrize(
    "model, task, words",
    [
        ("bert-bsae", "sst2", "unknown model 'bert-bsae'. Did you mean bert-base?"),
        ("mine", "sts2", "unknown task 'sts2'. Did you mean"),
        ("someone/model", "sts2", "unknown task 'sts2'. Did you mean"),
    ],
)
def test_a_slip_is_named_before_anything_runs(tmp_path, monkeypatch, capsys, command, model, task, words):
    path = write(tmp_path, f'methods = ["prune80"]\nmodels = ["{model}"]\ntasks = ["{task}"]')
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "config.json").touch()
    monkeypatch.setenv(names.PLACES, str(tmp_path))
    assert main(["run", str(path), *command]) == 2
    out, err = capsys.readouterr()
    assert not out and words in err and len(err.splitlines()) == 1
    assert main(["run", "--models", model, "--tasks", task, "--methods", "prune80", *command]) == 2
    assert not capsys.readouterr().out


def test_a_folder_named_like_a_short_name_is_taken_where_it_is(tmp_path, monkeypatch, capsys):
    path = write(tmp_path, 'methods = ["prune80"]\nmodels = ["bert-base2", "a/b"]\ntasks = ["sst2"]')
    monkeypatch.delenv(names.PLACES, raising=False)
    assert main(["run", str(path), "--dry-run"]) == 2
    assert "If it is a folder: say where it is: --models PATH/bert-base2" in capsys.readouterr().err
    place = str(tmp_path / "models" / "bert-base2")
    assert main(["run", str(path), "--dry-run", "--models", place, "a/b"]) == 0
    (tmp_path / "models" / "bert-base2").mkdir(parents=True)
    (tmp_path / "models" / "bert-base2" / "config.json").touch()
    monkeypatch.setenv(names.PLACES, str(tmp_path / "models"))
    assert main(["run", str(path), "--dry-run"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 12


def test_a_suite_is_not_overruled(tmp_path, capsys):
    path = str(write(tmp_path, SMALL))
    held = {"--methods": "prune50", "--limit": "3", "--seed": "0", "--dtype": "bfloat16"}
    for option in held.items():
        assert main(["run", path, *option]) == 2
        assert "a suite holds its own" in capsys.readouterr().err
    for option in (["--limit", "3"], ["--dtype", "bfloat16"]):
        trial = ["run", path, *option, "--dry-run", "--records"]
        assert main([*trial, str(tmp_path / "apart")]) == 0
        assert main([*trial, str(tmp_path / "records" / "small")]) == 2
        assert "unless --records keeps the trial apart" in capsys.readouterr().err


def test_tasks_and_shards_choose_among_the_columns_of_a_suite(tmp_path, capsys):
    both = SMALL.replace('["pocket-sentiment"]', '["pocket-sentiment", "pocket-qa"]')
    path = str(write(tmp_path, both))

    def cells(*more):
        capsys.readouterr()
        assert main(["run", path, "--dry-run", *more]) == 0
        return capsys.readouterr().out.splitlines()

    whole = cells()
    chosen = cells("--tasks", "pocket-qa")
    assert chosen == [line for line in whole if " pocket-qa " in line] and len(whole) == 2 * len(chosen)
    shares = [cells("--shard", f"{k}/2") for k in (1, 2)]
    assert sorted(shares) == sorted([chosen, [line for line in whole if line not in chosen]])
    assert cells("--shard", "2/2", "--tasks", "pocket-qa") == [""]
    assert main(["run", path, "--dry-run", "--tasks", "pocket-qu"]) == 2
    assert "unknown task of the suite 'pocket-qu'. Did you mean pocket-qa?" in capsys.readouterr().err


def test_a_matrix_without_a_suite_is_parted_too(capsys):
    asked = ["run", "--models", "bert,gpt", "--methods", "prune80", "--dry-run"]
    assert main(asked) == 0
    whole = capsys.readouterr().out.splitlines()
    found = []
    for k in range(1, 6):
        assert main([*asked, "--shard", f"{k}/5"]) == 0
        out, err = capsys.readouterr()
        found += [line for line in out.splitlines() if line]
        assert ("shard 5/5 has nothing to do: there are 4 columns" in err) == (k == 5)
    assert sorted(found) == sorted(whole)


def test_numbers_are_float32_unless_another_dtype_is_asked_for(tmp_path, capsys):
    asked = ["run", "--models", "bert", "--tasks", "pocket-sentiment", "--limit", "4", "--json", "--records"]
    for dtype, folder in ((None, "a"), ("bfloat16", "b")):
        assert main([*asked, str(tmp_path / folder), *(["--dtype", dtype] if dtype else [])]) == 0
        found = json.loads(capsys.readouterr().out)
        assert {item["settings"]["dtype"] for item in found} == {dtype or "float32"}


def test_a_suite_runs_into_the_records_beside_it(tmp_path, capsys):
    path = write(tmp_path, SMALL + "repeats = 2\n")
    assert main(["run", str(path)]) == 0
    out, err = capsys.readouterr()
    folder = tmp_path / "records" / "small" / "pocket-bert" / "pocket-sentiment"
    assert sorted(file.name for file in folder.glob("*.json")) == [
        "dense.json", "prune80,random,seed=1.json", "prune80,random.json", "prune80.json", "uniform.json"
    ]  # fmt: skip
    assert "prune80:random (2 seeds)" in out
    assert f"attnbench leaderboard {path}" in err
    assert main(["run", str(path)]) == 0
    assert "as recorded" in capsys.readouterr().err


def test_a_part_that_cannot_be_had_does_not_keep_the_others_from_being_measured(tmp_path, monkeypatch, capfd):
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    part = '[[part]]\nmodels = ["{}"]\ntasks = ["{}"]\nlimit = 6\n'
    file = tmp_path / "two.toml"
    text = part.format("nobody/no-such-model", "sst2") + part.format("pocket-bert", "pocket-sentiment")
    file.write_text(f'methods = ["binary"]\n{text}', encoding="utf-8")
    assert main(["run", str(file)]) == 2
    assert "nobody/no-such-model" in capfd.readouterr().err.splitlines()[-1]
    found = (tmp_path / "records" / "two" / "pocket-bert" / "pocket-sentiment").glob("*.json")
    assert {each.stem for each in found} == {"dense", "uniform", "binary"}


PARTS = """
methods = ["heads:fixed:off=9"]
[[part]]
models = ["pocket-bert"]
tasks = ["pocket-sentiment"]
limit = 2
[[part]]
models = ["pocket-roberta"]
tasks = ["pocket-sentiment"]
limit = 2
"""


def test_fail_fast_stops_before_the_next_part_too(tmp_path, capsys):
    path = str(write(tmp_path, PARTS))
    assert main(["run", path, "--fail-fast"]) == 1
    assert {each.name for each in (tmp_path / "records" / "small").iterdir()} == {"pocket-bert"}


def test_json_of_several_parts_is_one_array(tmp_path, capsys):
    path = str(write(tmp_path, PARTS))
    assert main(["run", path, "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert [item["cell"]["model"] for item in found] == ["pocket-bert"] * 3 + ["pocket-roberta"] * 3
    assert [item["status"] for item in found] == ["measured", "measured", "failed"] * 2


def test_a_part_says_how_prompts_are_made(tmp_path):
    path = tmp_path / "x.toml"
    path.write_text(
        'methods = ["prune80"]\n[[part]]\nmodels = ["m"]\ntasks = ["t"]\nnum_fewshot = 2\n'
        'apply_chat_template = true\nsystem_instruction = "Be brief."\n'
        '[[part]]\nmodels = ["m"]\ntasks = ["u"]\n',
        encoding="utf-8",
    )
    found = suite.load(path)
    first, second = (found.request(part).settings.prompting.given() for part in found.parts)
    assert first == {"num_fewshot": 2, "apply_chat_template": True, "system_instruction": "Be brief."}
    assert second == {}


@pytest.mark.parametrize("line, words", [
    ("num_fewshot = -1", "num_fewshot=-1 is not a whole number of at least 0"),
    ('num_fewshot = "2"', "num_fewshot='2' is not a whole number"),
    ("apply_chat_template = 1", "apply_chat_template=1 is neither true nor false"),
    ("fewshot_as_multiturn = true", "makes turns of a chat"),
    ("nun_fewshot = 1", "unknown key 'nun_fewshot'. Did you mean num_fewshot"),
])  # fmt: skip
def test_prompts_that_no_part_can_have_are_named(line, words, tmp_path):
    path = tmp_path / "x.toml"
    path.write_text(f'methods = ["prune80"]\nmodels = ["m"]\ntasks = ["t"]\n{line}\n', encoding="utf-8")
    with pytest.raises(UserError, match=re.escape(words)) as caught:
        suite.load(path)
    assert str(path) in str(caught.value)


def test_a_suite_may_have_braces(tmp_path):
    path = tmp_path / "x.toml"
    path.write_text('models = ["m"]\ntasks = ["t"]\nmethods = ["prune{50..90..20}"]\n', encoding="utf-8")
    assert suite.load(path).methods == ("prune50", "prune70", "prune90")
    path.write_text('models = ["m"]\ntasks = ["t"]\nmethods = ["prune{50"]\n', encoding="utf-8")
    with pytest.raises(UserError, match="a brace is never closed"):
        suite.load(path)
