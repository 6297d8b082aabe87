"""What is shipped: the wheel holds every tracked file of the packages, installs elsewhere and runs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import attnbench

ROOT = Path(__file__).parents[2]
PACKAGES = {"attnbench": "attnbench", "plugins": "attnbench_plugins", "tasks": "attnbench_tasks"}


def _tracked() -> list[str]:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    return listed.stdout.splitlines()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """A wheel built from the tracked files alone: a stale build folder cannot leak into it."""
    source = tmp_path_factory.mktemp("source")
    for name in _tracked():
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, source / name)
    command = [
        sys.executable,
        "-m",
        "build",
        "--wheel",
        "--no-isolation",
        "--outdir",
        str(source / "out"),
        str(source),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = (source / "out").glob("*.whl")
    return built


def test_the_wheel_holds_every_tracked_file(wheel):
    expected = set()
    for name in _tracked():
        top, _, rest = name.partition("/")
        if top in PACKAGES:
            expected.add(f"{PACKAGES[top]}/{rest}")
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert held == expected
    assert wheel.stat().st_size < 16e6


def test_the_wheel_runs_a_cell_elsewhere(wheel, tmp_path):
    site = tmp_path / "site"
    install = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(site), str(wheel)]
    subprocess.run(install, check=True, capture_output=True)
    code = f"""
import attnbench, attnbench_plugins, attnbench_tasks
assert all(m.__file__.startswith({str(site)!r}) for m in (attnbench, attnbench_plugins, attnbench_tasks))
cells = attnbench.run("bert", "prune80", "pocket-sentiment", limit=8).records
print([cell.status for cell in cells])
"""
    environment = {**os.environ, "PYTHONPATH": str(site), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "['measured', 'measured', 'measured']"


def test_public_names_are_exactly_all():
    for name in attnbench.__all__:
        thing = getattr(attnbench, name)
        assert (thing.__doc__ or "").strip(), f"{name} has no docstring"
    with pytest.raises(AttributeError):
        attnbench.nothing_of_this_name  # noqa: B018
    promised = {"Method", "hookimpl", "parse", "format", "apply", "watch", "transform", "run", "checkpoint"}
    assert promised <= set(attnbench.__all__) == set(attnbench.__all__) | promised


@pytest.mark.parametrize(
    "command", [["ruff", "check", "."], ["ruff", "format", "--check", "."], ["mypy"]], ids=" ".join
)
def test_the_code_is_clean(command):
    done = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
