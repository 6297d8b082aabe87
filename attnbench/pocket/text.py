"""The pocket tasks: English-like documents from a seeded generator, in three splits that share no text."""

from __future__ import annotations

import copy
import functools
import random
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any
from zlib import crc32

from attnbench import errors
from attnbench.pocket import facts, language, opinions, translation

WRITERS: dict[str, Callable[..., dict[str, Any]]] = {
    "sentiment": opinions.write,
    "qa": facts.write,
    "agreement": language.pair,
    "perplexity": language.document,
    "translation": translation.write,
}
KEYS = {
    "sentiment": "text",
    "qa": "context",
    "agreement": "sentence_good",
    "perplexity": "text",
    "translation": "source",
}
BY_SENTENCE = ("agreement", "perplexity")  # their writers keep the splits apart, sentence by sentence
HIDDEN = ("spans", "clauses", "owners", "worths", "total")  # for auxiliary training
SIZES = {"train": 2000, "calibration": 500, "validation": 1000}
RESIDUES = {"train": (0, 1), "calibration": (2,), "validation": (3,)}


def documents(task: str, split: str, count: int | None = None) -> list[dict[str, Any]]:
    """Write the first `count` documents of a split (None: its usual size).

    sentiment: {"id", "text", "label"} with label 0 (negative) or 1 (positive).
    qa: {"id", "question", "context", "answers": {"text": [answer], "answer_start": [character]}}.
    agreement: {"id", "sentence_good", "sentence_bad", "kind"} with kind verb or pronoun.
    perplexity: {"id", "text"}. translation: {"id", "source", "target"}.

    A longer list begins with the shorter one. Raises UserError for an unknown task or split.
    """
    for kind, name, known in (("pocket task", task, WRITERS), ("split", split, SIZES)):
        if name not in known:
            raise errors.unknown(kind, name, known, f"Known: {', '.join(known)}.")
    return copy.deepcopy(_written(task, split, SIZES[split] if count is None else count))


@functools.lru_cache(maxsize=32)
def _written(task: str, split: str, count: int) -> list[dict[str, Any]]:
    found = islice(annotated(task, split), count)
    return [{key: value for key, value in document.items() if key not in HIDDEN} for document in found]


def annotated(task: str, split: str, part: int = 0, **options: Any) -> Iterator[dict[str, Any]]:
    """Write a split's documents without end, with `spans` of characters (start, end, tag) to train on.

    A text belongs to the split that its checksum names, so no text is ever in two splits. Each `part` is a
    stream of its own; `options` are the writer's (shorter paragraphs).
    """
    rng = random.Random(f"attnbench pocket {task} {split} {part}")
    write, key, residues = WRITERS[task], KEYS[task], RESIDUES[split]
    number = 0
    if task in BY_SENTENCE:
        options["residues"] = residues
    while True:
        document = write(rng, **options)
        if task in BY_SENTENCE or crc32(document[key].encode()) % 4 in residues:
            yield {"id": f"{split}-{number}", **document}
            number += 1


def dataset(task: str, split: str | None = None, **metadata: Any) -> Any:
    """Give lm-eval's `custom_dataset` what it wants: every evaluated split, or the documents of one.

    lm-eval passes the whole of a task's `metadata`, which changes nothing here.
    """
    if split is not None:
        return documents(task, split)
    from datasets import Dataset, DatasetDict

    return DatasetDict({name: Dataset.from_list(documents(task, name)) for name in SIZES if name != "train"})
