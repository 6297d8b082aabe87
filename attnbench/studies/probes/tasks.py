"""Probing tasks: sentences, or pairs of them, with a label each, in three splits that share no text."""

from __future__ import annotations

import hashlib
import importlib
import json
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from attnbench.backends import data
from attnbench.errors import TaskMistake, UserError, near_file, unknown
from attnbench.inputs import task_yaml, tasks

PART_OF_METHODS = True  # what is found here is found by a study: its records' identity covers this file

TRAIN, DEV, TEST = SPLITS = ("train", "dev", "test")
WRITTEN = {"tr": TRAIN, "va": DEV, "te": TEST}  # the first column of a SentEval file
GIVEN = {TRAIN: "train", DEV: "validation", TEST: "test"}  # as datasets of probing tasks call them
HELD = 10  # of the training samples of a task without a dev split every tenth is held out
SENTEVAL = "https://github.com/facebookresearch/SentEval/tree/main/data/probing"
KEYS = (
    "probe", "level", "description", "source", "licence", "file", "dataset_path", "dataset_name",
    "custom_dataset", "dataset_kwargs", "text", "label", "splits", "scale",
)  # fmt: skip
Texts = tuple[str, ...]  # one, or the two of a pair
Rows = list[tuple[Texts, Any]]


@dataclass
class Task:
    """What a probe is trained for: `texts` and `labels` by split.

    A label is a class's number from 0, in the order of the training labels' names; -1 one that no training
    sample has, which no probe can say. With `number` it is a number itself. `dropped` counts the training and
    dev samples left out because their text is also in test, or in dev.
    """

    name: str
    level: str
    number: bool
    texts: dict[str, list[Texts]]
    labels: dict[str, np.ndarray]
    classes: int
    dropped: int = 0
    names: tuple[str, ...] = field(default=(), repr=False)

    def control(self, seed: int = 0) -> dict[str, np.ndarray]:
        """Return Hewitt and Liang's control: a class for each first word, the same wherever it occurs.

        The words of all splits lie in the order of a hash; along it the classes take their shares of the
        training samples, so that guessing is about as easy as in the task. -1 is a class that no training
        sample got. Source: https://aclanthology.org/D19-1275/, where it is the word that is tagged, and
        the draw is a class for each word by itself; a sentence has its first.
        """
        words = {split: [_first(each) for each in self.texts[split]] for split in SPLITS}
        order = sorted(
            set().union(*words.values()), key=lambda word: (zlib.crc32(f"{seed} {word}".encode()), word)
        )
        place = {word: k for k, word in enumerate(order)}
        found = {split: np.array([place[word] for word in each]) for split, each in words.items()}
        often = np.bincount(found[TRAIN], minlength=len(order))
        ends = np.cumsum(np.bincount(self.labels[TRAIN], minlength=self.classes))
        drawn = np.searchsorted(ends, np.cumsum(often) - often / 2, side="right").clip(max=self.classes - 1)
        return _numbered({split: drawn[each] for split, each in found.items()})[0]

    def digest(self) -> str:
        """Hash the texts and labels of all splits."""
        content = [[split, self.texts[split], self.labels[split].tolist()] for split in SPLITS]
        return hashlib.sha256(json.dumps([*content, self.names]).encode()).hexdigest()

    def distinct(self) -> list[str]:
        """List the texts of all splits, each once."""
        return list(dict.fromkeys(text for split in SPLITS for each in self.texts[split] for text in each))


def majority(labels: Mapping[str, np.ndarray], split: str) -> float:
    """Return the share of a split that has the most frequent class of train."""
    return float((labels[split] == np.bincount(labels[TRAIN]).argmax()).mean())


def _first(texts: Texts) -> str:
    return next(iter(texts[0].split()), "").casefold()


def available() -> list[str]:
    """List the bundled probing tasks."""
    return sorted(file.stem for file in (tasks.folder() / "probing").glob("*.yaml"))


def find(name: str, place: str = "", limit: int | None = None) -> Task:
    """Return a probing task with its data: a bundled one, a YAML file's, or a SentEval file's.

    `place` is where the data are, if not where the task says: a folder of SentEval files, or a dataset's
    name. `limit`: so many samples of each split at most, the first. Raises UserError.
    """
    path = Path(name).expanduser()
    if name.endswith((".txt", ".tsv")):
        return _task(path.stem, {}, senteval(path), limit)
    if name.endswith(tasks.YAML):
        if not path.is_file():
            raise UserError(f"no file '{name}'.{near_file(name, tasks.YAML)}")
    else:
        path = tasks.folder() / "probing" / f"{name}.yaml"
        if name not in available():
            raise unknown(
                "probing task", name, available(),
                f"Known: {', '.join(available())}; or a SentEval file: {name}.txt",
            )  # fmt: skip
    content = task_yaml.read_yaml(path)
    wrong = next((key for key in content if key not in KEYS), None)
    if wrong is not None or not isinstance(content.get("probe"), str):
        what = f"unknown key '{wrong}'" if wrong else "no `probe:`, the task's name"
        raise UserError(f"{task_yaml.place(str(path), wrong or 'probe')}: {what}. Known: {', '.join(KEYS)}.")
    return _task(content["probe"], content, _rows(content, place, str(path)), limit)


def _rows(content: dict[str, Any], place: str, path: str) -> dict[str, Rows]:
    """Read the splits that there are."""
    if "file" in content:
        if not place:
            raise UserError(
                f"probing task '{content['probe']}' needs its data: source=FOLDER with {content['file']}, "
                f"from {SENTEVAL}, or source=DATASET with a configuration {content['probe']}"
            )
        if Path(place).expanduser().is_dir():
            return senteval(Path(place).expanduser() / content["file"])
        return {split: _loaded(place, content["probe"], each, {}) for split, each in GIVEN.items()}
    splits = content.get("splits") or {}
    if not {TRAIN, TEST} <= set(splits) <= set(SPLITS):
        raise UserError(f"{task_yaml.place(path, 'splits')}: splits has train, test and where wanted dev")
    if "custom_dataset" in content:
        module, _, function = str(content["custom_dataset"]).rpartition(".")
        write: Callable[..., list[dict[str, Any]]] = getattr(importlib.import_module(module), function)
        kwargs = content.get("dataset_kwargs") or {}
        return {own: _picked(write(split=each, **kwargs), content) for own, each in splits.items()}
    source = place or content["dataset_path"]
    configuration = content.get("dataset_name")
    return {own: _loaded(source, configuration, each, content) for own, each in splits.items()}


def _loaded(source: str, configuration: str | None, split: str, content: dict[str, Any]) -> Rows:
    def columns(there: Sequence[str]) -> list[str]:
        return [*_texts(content, there), content.get("label", "label")]

    try:
        found = data.load(source, configuration, split, columns)
    except TaskMistake as mistake:
        raise UserError(str(mistake)) from mistake
    return _picked(found, content)


def _texts(content: dict[str, Any], there: Sequence[str]) -> list[str]:
    named = content.get("text") or ("text" if "text" in there else "sentence")
    return [named] if isinstance(named, str) else list(named)


def _picked(documents: list[dict[str, Any]], content: dict[str, Any]) -> Rows:
    columns = _texts(content, list(documents[0]) if documents else [])
    label = content.get("label", "label")
    return [(tuple(each[column] for column in columns), each[label]) for each in documents]


def senteval(path: Path) -> dict[str, Rows]:
    """Read a file of SentEval's probing tasks: lines of tr, va or te, the label, the sentence, with tabs.

    Raises UserError with the line.
    """
    try:
        lines = path.read_bytes().decode("utf-8").split("\n")
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}.{near_file(path)}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8: byte {error.object[error.start]:#04x}") from error
    found: dict[str, Rows] = {split: [] for split in SPLITS}
    for number, line in enumerate(lines, 1):
        parts = line.rstrip("\r").split("\t")
        if parts == [""]:
            continue
        if len(parts) < 3 or parts[0] not in WRITTEN or not parts[-1].strip():
            raise UserError(
                f"{path}, line {number}: not SentEval's: tr, va or te, the label, the sentence, with tabs"
            )
        found[WRITTEN[parts[0]]].append(((parts[-1],), parts[1]))
    return found


def _task(name: str, content: dict[str, Any], rows: dict[str, Rows], limit: int | None) -> Task:
    if not rows.get(DEV):
        rows[DEV] = [row for row in rows[TRAIN] if _held(row[0])]
        rows[TRAIN] = [row for row in rows[TRAIN] if not _held(row[0])]
    kept, dropped, seen = dict[str, Rows](), 0, set[Texts]()
    for split in (TEST, DEV, TRAIN):
        kept[split] = [row for row in rows[split] if split == TEST or row[0] not in seen][:limit]
        dropped += sum(split != TEST and row[0] in seen for row in rows[split])
        seen |= {row[0] for row in rows[split]}
        if not kept[split]:
            raise UserError(f"probing task '{name}' has no sample in {split}")
    texts = {split: [row[0] for row in kept[split]] for split in SPLITS}
    number = content.get("scale") == "number"
    given = {split: np.array([row[1] for row in kept[split]]) for split in SPLITS}
    names: tuple[str, ...] = ()
    if number:
        labels = {split: values.astype(np.float64) for split, values in given.items()}
    else:
        labels, names = _numbered(given)
        if len(names) < 2:
            raise UserError(f"probing task '{name}': all its training samples have one label, {names[0]}")
    level = content.get("level", "")
    return Task(name, level, number, texts, labels, len(names), dropped, names)


def _held(texts: Texts) -> bool:
    return zlib.crc32("\t".join(texts).encode()) % HELD == 0


def _numbered(given: dict[str, np.ndarray]) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """Number the labels that occur in training."""
    known = {label: number for number, label in enumerate(np.unique(given[TRAIN]).tolist())}
    return {
        split: np.array([known.get(label, -1) for label in labels.tolist()])
        for split, labels in given.items()
    }, tuple(map(str, known))
