"""Task files of the user's: every mistake by its line, and no harm to the others of a folder."""

from __future__ import annotations

import pytest
from sample_records import record as sample

import attnbench
from attnbench.boards import board, suite
from attnbench.cli.main import main
from attnbench.errors import UserError
from attnbench.inputs import tasks

HEAD = "task: {name}\nclass: !function attnbench.backends.classification.Classify\n"
BODY = """custom_dataset: !function attnbench.pocket.text.documents
dataset_kwargs: {task: sentiment}
validation_split: validation
doc_to_text: text
doc_to_target: label
doc_to_choice: [negative, positive]
metric_list: [{metric: acc}]
"""


def write(folder, extra, name="mine"):
    path = folder / f"{name}.yaml"
    path.write_text(HEAD.format(name=name) + extra, encoding="utf-8")
    return path


MISTAKES = {
    "metadata: {calibration: {split: train}}": "line 3: metadata: calibration is a mapping such as",
    "metadata: {calibration: train}": "line 3: metadata: calibration is a mapping such as",
    "metadata: {calibration: {split: train, samples: many}}": "line 3: metadata: calibration",
    "metadata: {samples: many}": "line 3: metadata: samples is a whole number",
    "metadata: {description: [a]}": "line 3: metadata: description and licence are texts",
    "metadata: {configurations: 3}": "line 3: metadata: configurations is a list of texts",
    "metadata: {configurations: [3]}": "line 3: metadata: configurations is a list of texts",
    "metadata: [a]": "line 3: metadata is a mapping",
    "metric_list: [acc]": r"line 3: metric_list is a list such as \[{metric: acc}\]",
    "metric_list: acc": "line 3: metric_list is a list",
    "metric_list: 3": "line 3: metric_list is a list",
    "dataset_path: x\ndataset_name: 2": "line 4: dataset_name is a text: write it in quotes",
    "dataset_path: [x]": "line 3: dataset_path is a text",
    "custom_dataset: {x: 1}": "line 3: custom_dataset is a !function",
}


@pytest.mark.parametrize(("extra", "message"), MISTAKES.items())
def test_a_key_of_another_shape_is_named_with_its_line(extra, message, tmp_path):
    path = write(tmp_path, extra)
    for given in ((str(path),), ("mine", str(tmp_path))):
        with pytest.raises(UserError, match=rf"mine\.yaml', {message}"):
            tasks.find(*given)


@pytest.mark.parametrize("extra", ["metadata: [a]", "dataset_path: [a", "metric_list: [acc]"])
def test_a_broken_file_harms_no_other_task(extra, tmp_path, capsys):
    write(tmp_path, extra, "broken")
    write(tmp_path, BODY, "mine")
    assert tasks.find("mine", str(tmp_path)).metrics == ("acc",)
    assert tasks.find("sst2", str(tmp_path)).name == "sst2"
    assert "broken" not in tasks.available(str(tmp_path))
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "attnbench: left out: task file" in said and "broken.yaml', line" in said
    with pytest.raises(UserError, match=r"broken\.yaml', line \d"):
        tasks.find("broken", str(tmp_path))


def test_a_file_of_another_name_than_its_task_is_found_by_the_task(tmp_path):
    write(tmp_path, "metadata: [a]", "mine").rename(tmp_path / "other.yaml")
    with pytest.raises(UserError, match=r"other\.yaml', line 3"):
        tasks.find("mine", str(tmp_path))
    with pytest.raises(UserError, match="unknown task 'other'"):
        tasks.find("other", str(tmp_path))


def test_a_suite_shows_a_task_by_the_name_that_its_file_gives(tmp_path, tiny_folder):
    path = write(tmp_path, BODY)
    path = path.rename(tmp_path / "a-file.yaml")
    text = f'methods = ["prune80"]\nmodels = ["pocket-bert"]\ntasks = ["{path}"]'
    (tmp_path / "small.toml").write_text(text, encoding="utf-8")
    found = suite.load(tmp_path / "small.toml")
    assert list(found.parts[0].columns()) == [("pocket-bert", "mine")]
    assert found.part_of("pocket-bert", "mine") is found.parts[0]
    measured = attnbench.run(tiny_folder, "", str(path), limit=4, records=str(tmp_path / "records")).records
    assert {item.cell["task"] for item in measured} == {"mine"}
    made = board.build([sample("dense", "pocket-bert", "mine", acc=[1, 0])], found)
    assert not made.absent and {item.status for item in made.records} == {"measured", "missing"}


def test_the_example_of_the_readme_runs_a_pocket_model_on_a_path(tmp_path, capsys):
    path = tasks.folder() / "pocket-sentiment" / "pocket-sentiment.yaml"
    line = f"run --models bert --tasks {path} --methods prune80 --limit 4 --records {tmp_path}"
    assert main(line.split()) == 0
    assert "pocket-bert" in capsys.readouterr().out
