"""A package that `new-method --package` lays out is built, installed, found by its entry point, and run."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tomllib

import pytest
import yaml

from attnbench.cli.main import main, parser
from attnbench.errors import UserError
from attnbench.methods.scaffold import package


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The folder of a new package, and the one that it is installed into."""
    folder = tmp_path_factory.mktemp("package")
    home, lib = package.write("my-method", folder=folder), folder / "lib"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    pip += ["--no-index", "--disable-pip-version-check", "--target", str(lib), str(home)]
    done = subprocess.run(pip, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return home, lib


def test_it_is_found_and_measured_where_it_is_installed(
    installed, fresh_registry, monkeypatch, tmp_path, capsys
):
    _, lib = installed
    monkeypatch.syspath_prepend(str(lib))
    asked = ["run", "--models", "bert", "--tasks", "pocket-sentiment", "--limit", "8", "--methods"]
    assert main([*asked, "my-method50", "--records", str(tmp_path / "records")]) == 0
    assert "my-method50" in capsys.readouterr().out
    cls = fresh_registry.registry().methods["my-method"]
    assert cls.__module__ == "attnbench_my_method.my_method"
    assert (lib / "attnbench_my_method" / "my_method.py").is_file()


def test_its_own_test_runs(installed):
    home, lib = installed
    where = os.pathsep.join(filter(None, [str(lib), *sys.path]))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "formula"],
        cwd=home, env={**os.environ, "PYTHONPATH": where}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0 and "1 passed, 2 deselected" in done.stdout, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("name", "kind"), [("my-method", "transform"), ("heads:mine", "criterion"), ("mine", "study")]
)
def test_its_workflow_and_its_readme_say_commands_that_exist(name, kind, tmp_path):
    home = package.write(name, kind, tmp_path)
    (job,) = yaml.safe_load((home / ".github/workflows/test.yml").read_text(encoding="utf-8"))[
        "jobs"
    ].values()
    said = [step["run"] for step in job["steps"] if "run" in step]
    assert [line.split()[0] for line in said] == ["pip", "ruff", "pytest", "attnbench"]
    readme = (home / "README.md").read_text(encoding="utf-8")
    for line in [said[-1], *(line for line in readme.splitlines() if line.startswith("attnbench "))]:
        assert parser().parse_args(shlex.split(line)[1:]).command in ("check", "run", "look")


def test_two_names_give_two_packages_and_none_hides_attnbenchs_own(tmp_path):
    for name, module in {"plugins": "attnbench_plugins_method", "heads:mine": "attnbench_heads_mine"}.items():
        home = package.write(name, folder=tmp_path)
        project = tomllib.loads((home / "pyproject.toml").read_text(encoding="utf-8"))
        assert home.name == project["project"]["name"] == f"attnbench-{name.replace(':', '-')}"
        assert project["tool"]["setuptools"]["packages"] == [module]
        (entry,) = project["project"]["entry-points"]["attnbench"].values()
        assert (home / f"{entry.replace('.', '/')}.py").is_file()


def test_a_folder_that_is_there_is_left_alone(tmp_path, capsys):
    assert main(["new-method", "mine", "--package", "--output", str(tmp_path)]) == 0
    said = capsys.readouterr()
    home = tmp_path / "attnbench-mine"
    assert said.out == f"{home}\n" and f"pip install -e {home} && attnbench check mine" in said.err
    with pytest.raises(UserError, match="attnbench-mine is there already: move it away"):
        package.write("mine", folder=tmp_path)
