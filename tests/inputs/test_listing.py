"""What is listed is what there is: tasks/README.md, published checkpoints, `attnbench models` and `tasks`."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from attnbench.cli.main import main
from attnbench.inputs import listing, models, tasks, weights
from attnbench.inputs.published import PUBLISHED

BUNDLED = tasks.available()


def test_the_table_of_tasks_is_what_their_files_say():
    text = (tasks.folder() / "README.md").read_text(encoding="utf-8")
    for begin, table, end in (
        (listing.BEGIN, listing.table(), listing.END),
        (listing.PROBING, listing.probing_table(), listing.PROBED),
    ):
        assert f"{begin}\n{table}{end}" in text, "run: python -m attnbench.inputs.listing"


@pytest.mark.parametrize("name", BUNDLED)
def test_a_bundled_task_says_what_it_is(name):
    task = BUNDLED[name]
    assert task.head in weights.HEADS and task.metrics and task.description and task.dataset
    assert set(task.metrics) <= set(listing.METRICS)
    if not name.startswith("pocket-"):
        assert task.licence and task.samples


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_model_names_tasks_that_exist_and_metrics_that_they_have(name):
    found = PUBLISHED[name]
    assert re.fullmatch(r"\d+M", found.parameters) and re.fullmatch(r"[\d+]+×\d+", found.heads)
    assert set(found.usual) <= set(found.tasks)
    for task, (identifier, scores) in found.tasks.items():
        assert re.fullmatch(r"[\w.-]+/[\w.-]+", identifier)
        assert set(scores) <= set(tasks.find(task).metrics)
        assert all(0 < value < 1 for value in scores.values())
        assert models.find(name, task).path == identifier
    assert models.tasks_of(name) == list(found.usual)


def test_a_part_of_a_task_has_the_checkpoint_of_the_whole():
    assert models.find("bert-base", "blimp_transitive").path == "google-bert/bert-base-uncased"
    assert models.find("distilbert", "my.csv").path == PUBLISHED["distilbert"].tasks["sst2"][0]


def test_models_and_tasks_are_listed(capsys):
    assert main(["models"]) == 0
    said = capsys.readouterr().out
    assert all(name in said for name in PUBLISHED)
    assert all(f"pocket-{family} (short: {family})" in said for family in models.pocket_families())
    assert "textattack/bert-base-uncased-MRPC" in said and "accuracy 0.877" in said
    assert "pocket-translation   BLEU 91.8\n" in said  # on the scale of a record
    assert main(["tasks"]) == 0
    said = capsys.readouterr().out
    assert all(name in said for name in (*BUNDLED, "FILE.csv", "xquad_ar"))
    assert re.search(r"a classifier with the task's labels: .*pocket-bert", said)


def test_listing_imports_nothing_heavy():
    code = """
import sys
from attnbench.inputs import listing
print(len([*listing.task_lines(), *listing.model_lines()]) > 20)
print([name for name in ("torch", "numpy", "lm_eval", "transformers") if name in sys.modules])
"""
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert process.stdout == "True\n[]\n"


def test_the_cards_of_pocket_models_are_read_once():
    assert models.pocket_families() is models.pocket_families()
