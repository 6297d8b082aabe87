"""Samples to fit methods on: a seeded draw from the calibration split, with labels, none evaluated."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from attnbench.backends import own_data
from attnbench.backends.data import SAMPLES
from attnbench.backends.encoders.inputs import Inputs, Row, padded
from attnbench.backends.encoders.tasks import Document, EncoderTask, Learner
from attnbench.engine.learning.gates import IGNORED
from attnbench.errors import NotApplicable, UserError
from attnbench.inputs import tasks
from attnbench.inputs.settings import Settings

SHARED = 0.05  # of a draw at most may be evaluated too and be replaced


class Source(NamedTuple):
    """Where calibration samples come from; `dataset` is None for the task's own data."""

    dataset: tuple[str, str | None] | None
    split: str
    samples: int


def source(task: EncoderTask, asked: str | None, samples: int | None = None) -> Source:
    """Read DATASET:SPLIT, DATASET:CONFIGURATION:SPLIT, FILE.csv, FILE.csv:SPLIT, FILE.txt.

    None is what the task names; `samples` overrules its number.

    Raises UserError where it is neither, NotApplicable where the task names none.
    """
    if asked is None:
        try:
            split, number = task.calibration_split()
        except NotApplicable as reason:
            if not task.settings.get("labels_by_number"):  # which a file of the user's own has
                raise
            raise NotApplicable(
                f"task '{task.task_name}' names no calibration split: give its file rows whose split is "
                "train, or --calibration FILE.csv"
            ) from reason
        return Source(None, split, samples or number)
    named = task.settings.get("calibration") or {}
    samples = samples or int(named.get("samples", SAMPLES))
    if tasks.is_texts(asked):
        return Source((asked, None), "", samples)
    dataset, *configuration, split = asked.split(":") if ":" in asked else ("", "")
    if tasks.is_own(dataset) and split and not configuration:
        return Source((dataset, None), own_data.split_of(split), samples)
    if not dataset or not split or len(configuration) > 1:
        raise UserError(
            f"calibration '{asked}' is neither DATASET:SPLIT, DATASET:CONFIGURATION:SPLIT nor a file (.csv, "
            ".jsonl; .txt for language models)"
        )
    return Source((dataset, next(iter(configuration), None)), split, samples)


def recipe(task: EncoderTask, file: tasks.TaskFile, settings: Settings) -> str | None:
    """Say for a record what methods learn from, None where the task names nothing."""
    try:
        chosen = source(task, settings.calibration, settings.calibration_samples)
    except NotApplicable:
        return None
    given = chosen.dataset and (tasks.shown(chosen.dataset[0]), chosen.dataset[1])
    dataset = "/".join(filter(None, given or (file.dataset,)))
    split = f":{chosen.split}" if chosen.split else ""
    tokens = f", {settings.calibration_tokens} tokens" if settings.calibration_tokens else ""
    return f"{dataset}{split}[{chosen.samples}] seed {settings.seed}{tokens}"


def found(task: EncoderTask, chosen: Source) -> list[Document]:
    """Return all documents of a source. Raises UserError where there is none."""
    path = chosen.dataset[0] if chosen.dataset else ""
    if tasks.is_texts(path) and not tasks.is_own(path):
        raise UserError(
            f"calibration '{path}' holds texts alone, for language models; task '{task.task_name}' takes a "
            ".csv or .jsonl with text and label"
        )
    docs = task.documents(chosen.split, chosen.dataset)
    require(docs, task.task_name, chosen)
    return docs


def require(docs: Sequence[Any], task: str, chosen: Source) -> None:
    """Raise UserError where there is nothing to fit on: what has learnt nothing would be measured."""
    if not docs:
        where = ":".join(filter(None, (*(chosen.dataset or ()), chosen.split)))
        raise UserError(
            f"calibration of task '{task}': '{where}' holds no document. Give --calibration DATASET:SPLIT."
        )


def documents(task: EncoderTask, chosen: Source, seed: int) -> list[Document]:
    """Draw documents without replacement, all where there are fewer, none with the text of an evaluated one.

    CoLA, for one, has a few sentences in two splits; white space makes no text another. Raises UserError
    where there are many: then the split is not one to learn from.
    """
    docs = found(task, chosen)
    count = min(chosen.samples, len(docs))
    rng = random.Random(f"{seed} calibration")
    drawn = rng.sample(range(len(docs)), count)
    evaluated = {plain(task.text(doc)) for doc in task.eval_docs}
    shared = [k for k in drawn if plain(task.text(docs[k])) in evaluated]
    if len(shared) > SHARED * count:
        raise UserError(
            f"{len(shared)} of {count} calibration samples of task '{task.task_name}' are evaluated too, "
            f"such as {task.text(docs[shared[0]])[0][:60]!r}. Give --calibration DATASET:SPLIT or FILE.csv."
        )
    kept = [docs[k] for k in drawn if k not in shared]
    if shared:
        left = sorted(set(range(len(docs))) - set(drawn))
        rng.shuffle(left)
        others = (docs[k] for k in left if plain(task.text(docs[k])) not in evaluated)
        kept += itertools.islice(others, len(shared))
    return kept


def plain(texts: Iterable[object]) -> tuple[str, ...]:
    """Return texts with single spaces for all white space: by that they are compared."""
    return tuple(" ".join(str(text).split()) for text in texts)


def batches(
    task: EncoderTask, docs: Sequence[Document], inputs: Inputs, order: Sequence[int], seed: int, size: int
) -> list[dict[str, Tensor]]:
    """Make model inputs with labels, or start and end positions: batches of like length in a seeded order.

    `order` is the model's column of each label. A document that gives no example, as a question whose answer
    no window holds whole, is left out.
    """
    learner = Learner(order, inputs.tokenizer.mask_token_id, random.Random(f"{seed} examples"))
    requests = requests_of(task, docs)
    pairs: list[tuple[Row, dict[str, Any]]] = []
    for doc, rows in zip(docs, inputs.rows(requests), strict=True):
        if unlabelled(task, doc):
            pairs += [(row, {}) for row in rows]
        elif task.doc_to_target(doc) != []:  # a question without an answer teaches nothing here
            pairs += task.examples(doc, rows, learner)
    if not pairs:
        raise UserError(
            f"calibration of task '{task.task_name}': none of {len(docs)} documents gives an example. "
            "Give --calibration DATASET:SPLIT."
        )
    made = []
    for alike in inputs.alike(pairs, lambda item: item[0]):
        for start in range(0, len(alike), size):
            chosen = alike[start : start + size]
            rows = [row for row, _ in chosen]
            starts = inputs.starts(rows)
            labels = {
                key: _stacked([target[key] for _, target in chosen], key, inputs.side, starts)
                for key in chosen[0][1]
            }
            made.append({**inputs.collate(rows), **labels})
    random.Random(f"{seed} batches").shuffle(made)
    return made


def unlabelled(task: EncoderTask, doc: Document) -> bool:
    """Tell whether a document of the user's has a text alone: some methods learn from that."""
    return doc.get(str(task.config.doc_to_target), "") is None


def requests_of(task: EncoderTask, docs: Sequence[Document]) -> list[Any]:
    """Make a request of each calibration document."""
    return [task.construct_requests(doc, None, metadata=(task.task_name, k, 1)) for k, doc in enumerate(docs)]


def _stacked(targets: Sequence[Any], key: str, side: str, starts: np.ndarray) -> Tensor:
    if isinstance(targets[0], np.ndarray):
        return padded(targets, IGNORED, side)[0]
    found = torch.tensor(targets)
    return found + torch.from_numpy(starts) if key.endswith("_positions") else found
