"""Probing tasks: found by name or file, three splits that share no text, labels numbered by train alone."""

from __future__ import annotations

import functools
import re
from collections import defaultdict

import numpy as np
import pytest
import yaml

from attnbench.errors import UserError
from attnbench.inputs import tasks as run_tasks
from attnbench.studies.probes import tasks
from attnbench.studies.probes.tasks import SPLITS, majority

LINES = [
    "tr\tpast\tHe ran .", "tr\tpresent\tHe runs .", "tr\tpast\tThey met .", "tr\tpast\tWe saw it .",
    "va\tpresent\tShe sings .", "va\tpast\tShe sang .", "te\tfuture\tIt will rain .", "te\tpast\tThey met .",
]  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "past_present.txt").write_text("\n".join(LINES) + "\n", encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize("named", ["past_present", "past_present.txt"])
def test_a_senteval_file_is_found_by_its_task_and_by_itself(folder, named):
    whole = str(folder / named) if named.endswith("txt") else named
    found = tasks.find(whole, "" if named.endswith("txt") else str(folder))
    assert found.name == "past_present" and found.names == ("past", "present") and found.classes == 2
    # a text that is also in test is no longer in train, and a label that train lacks is none of the classes
    assert found.texts["train"] == [("He ran .",), ("He runs .",), ("We saw it .",)] and found.dropped == 1
    assert found.labels["train"].tolist() == [0, 1, 0] and found.labels["dev"].tolist() == [1, 0]
    assert found.labels["test"].tolist() == [-1, 0]
    assert majority(found.labels, "test") == 0.5 and majority(found.labels, "dev") == 0.5


def test_a_dataset_has_the_task_as_its_configuration(monkeypatch):
    asked = []

    def load(path, name, split, columns):
        asked.append((path, name, split, columns(["sentence", "label"])))
        return [{"sentence": f"{split} {k}", "label": k % 3} for k in range(6)]

    monkeypatch.setattr(tasks.data, "load", load)
    found = tasks.find("tree_depth", "somebody/probes")
    assert asked == [
        ("somebody/probes", "tree_depth", split, ["sentence", "label"])
        for split in ("train", "validation", "test")
    ]
    assert found.classes == 3 and found.texts["dev"][1] == ("validation 1",) and found.level == "syntactic"


def test_a_task_without_dev_holds_every_tenth_of_train_whatever_its_order(monkeypatch):
    def load(order, path, name, split, columns):
        return [
            {"sentence1": f"{split} a {k}", "sentence2": f"b {k}", "label": k / 100}
            for k in order[: 400 if split == "train" else 9]
        ]

    held = []
    for order in (range(400), range(399, -1, -1)):
        monkeypatch.setattr(tasks.data, "load", functools.partial(load, order))
        found = tasks.find("stsb")
        assert found.number and found.classes == 0 and found.labels["dev"].dtype == np.float64
        assert len(found.texts["train"]) + len(found.texts["dev"]) == 400 and len(found.texts["test"]) == 9
        held.append(set(found.texts["dev"]))
    assert held[0] == held[1] and 20 < len(held[0]) < 60  # 40 expected, sd 6
    assert all(len(pair) == 2 for pair in held[0])


def test_splits_share_no_text_and_limits_leave_the_first():
    whole, few = tasks.find("pocket-agreement"), tasks.find("pocket-agreement", limit=30)
    for split in SPLITS:
        assert few.texts[split] == whole.texts[split][:30]
    sets = [set(whole.texts[split]) for split in SPLITS]
    assert not (sets[0] & sets[1] or sets[0] & sets[2] or sets[1] & sets[2])
    assert len(whole.distinct()) == sum(map(len, sets))


def test_a_control_gives_a_word_one_class_of_the_tasks_shares():
    rng = np.random.default_rng(0)
    words = [f"w{k}" for k in range(300)]
    texts = {split: [(f"{rng.choice(words).title()} and {k}",) for k in range(2000)] for split in SPLITS}
    labels = {split: rng.choice(3, 2000, p=[0.6, 0.3, 0.1]) for split in SPLITS}
    task = tasks.Task("made", "", False, texts, labels, 3)
    controls = [task.control(seed) for seed in range(2)]
    given = defaultdict(set)
    for split in SPLITS:
        for (text,), label in zip(texts[split], controls[0][split], strict=True):
            given[text.split()[0].casefold()].add(int(label))
    assert all(len(each) == 1 for each in given.values())
    shares = np.bincount(controls[0]["train"]) / 2000
    # a word has about 1/300 of the samples, and a class ends within one word of its share
    assert abs(shares - np.bincount(labels["train"]) / 2000).max() < 4 / 300
    assert (controls[0]["test"] != controls[1]["test"]).mean() > 0.3


BAD = {
    "no such task": ("sentence_lenght", "", "sentence_length"),
    "no data": ("word_content", "", "needs its data: source=FOLDER"),
    "no file": ("./nothing.txt", "", "cannot be read"),
    "no yaml": ("./nothing.yaml", "", "no file"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_found_is_said_in_a_line(name):
    asked, place, said = BAD[name]
    with pytest.raises(UserError, match=re.escape(said)) as error:
        tasks.find(asked, place)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("xx\tpast\tHe ran .", "line 3: not SentEval's"), ("tr past He ran .", "line 3: not SentEval's"),
        ("tr\tpast\t", "line 3: not SentEval's"), ("tr\tpast", "line 3: not SentEval's"),
    ],
)  # fmt: skip
def test_a_wrong_line_is_named(folder, line, said):
    (folder / "own.txt").write_text("\n".join([*LINES[:2], line]), encoding="utf-8")
    with pytest.raises(UserError, match=said):
        tasks.find(str(folder / "own.txt"))


@pytest.mark.parametrize(
    ("kept", "said"),
    [(LINES[:4], "no sample in test"), ([LINES[0], LINES[2], *LINES[4:6], LINES[6]], "have one label, past")],
)
def test_a_task_that_cannot_be_probed_is_refused(folder, kept, said):
    (folder / "own.txt").write_text("\n".join(kept), encoding="utf-8")
    with pytest.raises(UserError, match=said):
        tasks.find(str(folder / "own.txt"))


def test_the_bundled_definitions_are_whole():
    assert len(tasks.available()) == 18
    for name in tasks.available():
        content = yaml.load(
            (run_tasks.folder() / "probing" / f"{name}.yaml").read_text().replace("!function ", ""),
            yaml.SafeLoader,
        )
        assert content["probe"] == name and set(content) <= set(tasks.KEYS)
        assert content["level"] in ("surface", "syntactic", "semantic", "downstream")
        assert {"description", "source", "licence"} <= set(content)
    assert not any(task.path.endswith("probing") for task in run_tasks.available().values())


def test_an_unknown_key_of_a_yaml_is_named_with_its_line(tmp_path):
    (tmp_path / "own.yaml").write_text("probe: own\nlabels: label\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"line 2: unknown key 'labels'"):
        tasks.find(str(tmp_path / "own.yaml"))
    (tmp_path / "own.yaml").write_text(
        "probe: own\ndataset_path: a/b\nsplits: {train: train}\n", encoding="utf-8"
    )
    with pytest.raises(UserError, match=r"line 3: splits has train, test"):
        tasks.find(str(tmp_path / "own.yaml"))
