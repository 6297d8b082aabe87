"""Names of models: what each stands for, which are refused, and what is fetched from the Hub."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import attnbench
from attnbench.cli.main import main
from attnbench.errors import UserError
from attnbench.inputs import hub, models, tasks
from attnbench.matrix.plan import Cell, plan
from attnbench.matrix.request import Request

TASK = "pocket-sentiment"


@pytest.fixture
def here(tmp_path, monkeypatch, tiny_folder):
    """The current folder, and a way to put a checkpoint of the user's into it."""
    monkeypatch.chdir(tmp_path)
    return lambda name: shutil.copytree(tiny_folder, tmp_path / name)


@pytest.mark.parametrize("name", ["pocket-bert", "pocket-mine", "bert", "bert-base"])
def test_a_folder_with_the_name_of_another_model_is_refused(name, here, capsys, tmp_path):
    here(name)
    with pytest.raises(UserError, match=f"'./{name}': records would take '{name}' for .* Rename the folder"):
        attnbench.run(f"./{name}", "prune80", TASK, records="records")
    assert main(["run", "--models", f"./{name}", "--tasks", TASK, "--methods", "prune80"]) == 2
    assert "Rename the folder" in capsys.readouterr().err
    assert not list(tmp_path.rglob("*.npz"))


def test_a_folder_with_a_name_of_its_own_is_itself(here):
    here("my-pocket-bert")
    found = models.find("./my-pocket-bert", TASK)
    assert (found.name, found.source) == ("my-pocket-bert", "folder")
    assert models.find("pocket-bert", TASK).source == models.find("bert", TASK).source == "pocket"


@pytest.mark.parametrize("name", ["models/deep/mine", "models/deep/", "a/b/c"])
def test_a_path_that_is_no_hub_id_is_told_so(name, here, capsys):
    here("models/deep/mine")
    assert main(["run", "--models", name, "--tasks", TASK, "--dry-run"]) == 2
    wanted = "A Hub id is OWNER/NAME, a folder ./NAME" if name == "a/b/c" else f"here: write ./{name}"
    said = capsys.readouterr().err
    assert f"unknown model '{name}'" in said and wanted in said


def test_a_hub_id_that_is_a_folder_too_is_told_both(here, monkeypatch):
    from huggingface_hub import constants

    here("models/mine")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=r"or use \./models/mine, the folder of that name here"):
        _ = models.find("models/mine", TASK).folder


def test_what_the_hub_takes_for_no_id_is_one_line():
    with pytest.raises(UserError, match="model 'a--b/c' is no Hub id: Cannot have --"):
        _ = models.find("a--b/c", TASK).folder


def test_a_task_by_its_path_is_the_task_by_its_name():
    for model, task in (("bert", TASK), ("bert-base", "sst2")):
        path = str(tasks.folder() / task / f"{task}.yaml")
        assert models.find(model, path) == models.find(model, task)
        assert models.expected_scores(model, path) == models.expected_scores(model, task)
        assert plan(Request.of(model, tasks=path))[0] == Cell(model, path, "dense")


REPOSITORY = [
    "config.json", "own_model.py", "model.safetensors", "pytorch_model.bin", "merges.txt", "spiece.model",
    "chat_template.jinja", "tf_model.h5", "README.md",
]  # fmt: skip
CONFIG = {"auto_map": {"AutoModel": "own_model.Own", "AutoConfig": "other/repository--elsewhere.Own"}}


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A Hub that has one repository of `files`; returns the list of what is fetched, request by request."""
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError
    from huggingface_hub.utils import filter_repo_objects

    def made(files, cached=()):
        folder, asked = tmp_path / "snapshot", []
        folder.mkdir()
        for name in cached:
            (folder / name).write_text(json.dumps(CONFIG) if name == "config.json" else "")

        def snapshot(name, local_files_only=False, allow_patterns=None):
            if local_files_only and not cached:
                raise LocalEntryNotFoundError("nothing")
            if not local_files_only:
                asked.append(sorted(filter_repo_objects(files, allow_patterns=allow_patterns)))
                for file in asked[-1]:
                    (folder / file).touch()
            return str(folder)

        monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
        monkeypatch.setattr(hub, "reachable", lambda url: True)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
        return asked

    return made


def test_own_code_is_fetched_where_it_is_trusted_and_one_format_of_weights(repository):
    asked = repository(REPOSITORY)
    _ = models.find("some/model", TASK, trust_remote_code=True).folder
    assert asked == [sorted(set(REPOSITORY) - {"pytorch_model.bin", "tf_model.h5", "README.md"})]


def test_own_code_is_not_fetched_without_trust(repository):
    asked = repository(REPOSITORY)
    _ = models.find("some/model", TASK).folder
    assert "own_model.py" not in asked[0] and "chat_template.jinja" in asked[0] and len(asked) == 1


def test_weights_of_the_old_format_are_fetched_where_there_are_no_others(repository):
    asked = repository([name for name in REPOSITORY if name != "model.safetensors"])
    _ = models.find("some/model", TASK).folder
    assert "pytorch_model.bin" not in asked[0] and "pytorch_model.bin" in asked[1] and len(asked) == 2


@pytest.mark.parametrize("code", [True, False])
def test_a_cached_checkpoint_without_its_code_is_fetched_where_that_is_trusted(code, repository):
    cached = ["config.json", "model.safetensors", *(["own_model.py"] if code else [])]
    asked = repository(REPOSITORY, cached)
    assert Path(models.find("some/model", TASK).folder).name == "snapshot" and not asked
    _ = models.find("some/model", TASK, trust_remote_code=True).folder
    assert bool(asked) is not code
