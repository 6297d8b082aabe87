"""A new method works as it is written, for every kind, and stays green after an author's edits."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from attnbench.cli import main
from attnbench.errors import UserError
from attnbench.methods.scaffold import files as scaffold
from attnbench.methods.scaffold import kinds, package

NAMES = ("my-method", "heads:mine")
KINDS = ("transform", "calibrated", "trained", "criterion", "cache")
CASES = [*((kind, name) for kind in KINDS for name in NAMES), ("random-control", "my-method:random")]
LEARNING = ("calibrated", "trained", "criterion")
FAMILIES = ("bert", "llama", "bart")


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_what_is_written_passes_as_it_stands(kind, name, fresh_registry, tmp_path):
    from attnbench.methods.protocol import needs_fit
    from attnbench.methods.spec import parse
    from attnbench.testing import check_method, expand

    method, test = scaffold.write(name, kind, tmp_path)
    fresh_registry.load([str(method)])
    specs = expand(name)
    assert specs and all(needs_fit(parse(spec)[0]) == (kind in LEARNING) for spec in specs)
    report = check_method(specs[0], families=FAMILIES)
    assert report.ok, str(report)
    space = {"__file__": str(test), "__name__": "test_it"}
    exec(compile(test.read_text(encoding="utf-8"), str(test), "exec"), space)
    space["test_its_formula"]()


def test_a_study_that_is_written_passes_as_it_stands(fresh_registry, tmp_path):
    from attnbench.testing import check_study

    method, test = scaffold.write("my-study", "study", tmp_path)
    fresh_registry.load([str(method)])
    report = check_study("my-study", families=FAMILIES)
    assert report.ok and "ok on encoders, decoders" in str(report), str(report)
    space = {"__file__": str(test), "__name__": "test_it"}
    exec(compile(test.read_text(encoding="utf-8"), str(test), "exec"), space)
    space["test_its_formula"]()
    with pytest.raises(UserError, match="study 'my-study' exists already"):
        scaffold.write("my-study", "study", tmp_path / "again")


def test_every_kind_is_tested_here_and_named_by_the_command(capsys):
    assert {kind for kind, _ in CASES} | {"study"} == {*kinds.KINDS}
    with pytest.raises(SystemExit):
        main.main(["new-method", "--help"])
    said = "".join(capsys.readouterr().out.split())  # a line may end at a hyphen
    assert all(kind in said for kind in kinds.KINDS)


@pytest.mark.parametrize("kind", [*kinds.KINDS])
def test_what_is_written_is_clean(kind, tmp_path):
    name = "my-method:random" if kind == "random-control" else "my-method"
    scaffold.write(name, kind, tmp_path)
    package.write(name, kind, tmp_path)
    for command in (["check"], ["format", "--check"]):
        ruff = [sys.executable, "-m", "ruff", *command, "--line-length", "110", str(tmp_path)]
        done = subprocess.run(ruff, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout


# about ten edited lines: another formula, another stage, another source
EDITS = {
    "Cap every attention probability at a share of one.": "Round every attention score to a grid.",
    "y = min(x, p / 100); no renormalisation. Shapes: probs": "y = s floor(x / s + 1/2). Shapes: scores",
    "https://arxiv.org/abs/1706.03762": "https://aclanthology.org/2021.findings-acl.363/",
    '"my-grid50", "my-grid20"': '"my-grid0.5", "my-grid2"',
    "    zero = 100  # <- the amount that changes nothing, where there is one\n": "",
    "percent: float": "step: float",
    "if not 0 <= self.percent <= 100:": "if self.step <= 0:",
    "the cap is between 0 and 100 percent": "the step is positive",
    "def probs(self, probs: Tensor, site: Site)": "def scores(self, scores: Tensor, site: Site)",
    "        most = self.percent / 100\n": "",
    "return probs.clamp(max=most) if probs.requires_grad else probs.clamp_(max=most)": (
        "return scores + ((scores / self.step).round() * self.step - scores).detach()"
    ),
}


def test_ten_edited_lines_make_another_method(fresh_registry, tmp_path, capsys):
    assert main.main(["new-method", "my-grid", "--output", str(tmp_path)]) == 0
    said = capsys.readouterr()
    file = tmp_path / "my_grid.py"
    assert said.out.splitlines() == [str(file), str(tmp_path / "test_my_grid.py")]
    assert f"attnbench check my-grid --plugin {file}" in said.err
    text = file.read_text(encoding="utf-8")
    for old, new in EDITS.items():
        assert old in text
        text = text.replace(old, new)
    file.write_text(text, encoding="utf-8")
    assert main.main(["check", "my-grid", "--plugin", str(file)]) == 0
    told = "my-grid0.5: ok on encoders, decoders and encoder-decoders"
    assert capsys.readouterr().out.splitlines()[0] == told


@pytest.mark.parametrize(("name", "kind"), [("my-method", "calibrated"), ("heads:mine", "trained")])
def test_its_formula_is_tested_by_hand(name, kind, fresh_registry, tmp_path):
    method, test = scaffold.write(name, kind, tmp_path)
    space = {"__file__": str(test), "__name__": "test_it"}
    exec(compile(test.read_text(encoding="utf-8"), str(test), "exec"), space)
    space["test_its_formula"]()
    text = method.read_text(encoding="utf-8")
    old, new = {"calibrated": ("self.factor *", "2 * self.factor *"), "trained": ("context *", "1 -")}[kind]
    assert old in text
    wrong = method.with_name("wrong.py")
    wrong.write_text(text.replace(f"return {old}", f"return {new}").replace(f"({old}", f"({new}"))
    test.write_text(test.read_text(encoding="utf-8").replace(method.name, wrong.name), encoding="utf-8")
    fresh_registry._registry = None
    exec(compile(test.read_text(encoding="utf-8"), str(test), "exec"), space)
    with pytest.raises(AssertionError):
        space["test_its_formula"]()


def test_its_test_file_runs(tmp_path):
    _, test = scaffold.write("my-method", "transform", tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "formula or d50", str(test)],
        cwd=tmp_path, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0 and "2 passed, 1 deselected" in done.stdout, done.stdout + done.stderr


WRONG = {
    "prune": ("prune", "transform", "exists already"),
    "capital": ("Mine", "transform", "is no name"),
    "digit": ("mine2", "transform", "is no name"),
    "dense": ("dense", "transform", "dense is the unmodified model"),
    "variant of dense": ("dense:mine", "transform", "dense is the unmodified model"),
    "kind": ("mine", "calibrate", "Did you mean calibrated"),
    "no control": ("mine", "random-control", "`attnbench new-method mine:random --kind random-control`"),
    "study": ("roles", "study", "study 'roles' exists already. `attnbench studies roles` shows it"),
}


@pytest.mark.parametrize("case", WRONG)
def test_mistakes_are_told(case, tmp_path):
    name, kind, words = WRONG[case]
    with pytest.raises(UserError, match=words):
        scaffold.write(name, kind, tmp_path)
    with pytest.raises(UserError, match=words):
        package.write(name, kind, tmp_path)
    assert not list(tmp_path.iterdir())


def test_no_module_of_python_or_of_a_package_is_hidden(fresh_registry, tmp_path):
    for name in ("random", "numpy"):
        method, test = scaffold.write(name, folder=tmp_path)
        assert (method.name, test.name) == (f"{name}_method.py", f"test_{name}_method.py")
        assert f"class {name.capitalize()}(Method)" in method.read_text(encoding="utf-8")
        assert method.name in test.read_text(encoding="utf-8")
        fresh_registry.load([str(method)])
        assert name in fresh_registry.registry().methods
    assert scaffold.write("heads:random-ones", folder=tmp_path)[0].name == "heads_random_ones.py"


def test_no_keyword_names_a_class(fresh_registry, tmp_path):
    for name in ("none", "true", "false"):
        method, _ = scaffold.write(name, folder=tmp_path)
        assert f"class {name.capitalize()}Method(Method)" in method.read_text(encoding="utf-8")
        fresh_registry.load([str(method)])
        assert name in fresh_registry.registry().methods


def test_a_folder_that_is_none_is_told(tmp_path):
    (tmp_path / "learn.py").touch()
    with pytest.raises(UserError, match=r"--output .*learn\.py: is a file; give a folder"):
        scaffold.write("mine", folder=tmp_path / "learn.py")


def test_nothing_is_overwritten(tmp_path):
    (tmp_path / "test_mine.py").write_text("precious", encoding="utf-8")
    with pytest.raises(UserError, match="there already"):
        scaffold.write("mine", folder=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["test_mine.py"]
