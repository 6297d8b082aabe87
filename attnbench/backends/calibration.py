"""Samples to fit methods on: a seeded draw from the calibration split, with labels, none evaluated."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from attnbench.backends.encoder_lm import EncoderLM, Row
from attnbench.backends.encoder_tasks import Document, EncoderTask, Span
from attnbench.errors import UserError

SAMPLES = 512


class Source(NamedTuple):
    """Where calibration samples come from; `dataset` is None for the task's own data."""

    dataset: tuple[str, str | None] | None
    split: str
    samples: int


def source(task: EncoderTask, asked: str | None) -> Source:
    """Read DATASET:SPLIT or DATASET:CONFIGURATION:SPLIT; None: what the task names.

    Raises UserError where it is neither, NotApplicable where the task names none.
    """
    if asked is None:
        return Source(None, *task.calibration_split())
    dataset, *configuration, split = asked.split(":") if ":" in asked else ("", "")
    if not dataset or not split or len(configuration) > 1:
        raise UserError(f"calibration '{asked}' is not DATASET:SPLIT or DATASET:CONFIGURATION:SPLIT")
    named = task.settings.get("calibration") or {}
    return Source((dataset, next(iter(configuration), None)), split, int(named.get("samples", SAMPLES)))


def documents(task: EncoderTask, chosen: Source, samples: int | None, seed: int) -> list[Document]:
    """Draw documents without replacement, all where there are fewer.

    Raises UserError where one of them is an evaluation sample of the task too.
    """
    docs = task.documents(chosen.split, chosen.dataset)
    count = min(samples or chosen.samples, len(docs))
    docs = [docs[k] for k in random.Random(f"{seed} calibration").sample(range(len(docs)), count)]
    evaluated = {task.text(doc) for doc in task.eval_docs}
    shared = [doc for doc in docs if task.text(doc) in evaluated]
    if shared:
        raise UserError(
            f"{len(shared)} of {count} calibration samples of task '{task.task_name}' are evaluated "
            f"too, such as {task.text(shared[0])[0][:60]!r}. Give --calibration DATASET:SPLIT."
        )
    return docs


def batches(
    task: EncoderTask, docs: Sequence[Document], tokenizer: Any, order: Sequence[int], seed: int, size: int
) -> list[dict[str, Tensor]]:
    """Make model inputs with labels, or start and end positions: batches of like length in a seeded order.

    `order` is the model's column of each label. A span is given in the first window that holds the whole
    answer; a document without such a window is left out.
    """
    lm = EncoderLM(tokenizer)
    requests = [
        task.construct_requests(doc, None, metadata=(task.task_name, k, 1)) for k, doc in enumerate(docs)
    ]
    found: list[tuple[Row, dict[str, int]]] = []
    for doc, rows in zip(docs, lm.rows(requests), strict=True):
        if isinstance(task, Span):
            found += _answered(doc["answers"], rows)[:1]
        else:
            found.append((rows[0], {"labels": order[task.doc_to_target(doc)]}))
    found.sort(key=lambda item: -len(item[0].ids))
    made = []
    for start in range(0, len(found), size):
        part = found[start : start + size]
        labels = {key: torch.tensor([target[key] for _, target in part]) for key in part[0][1]}
        made.append({**lm.collate([row for row, _ in part]), **labels})
    random.Random(f"{seed} batches").shuffle(made)
    return made


def _answered(answers: dict[str, Any], rows: Sequence[Row]) -> list[tuple[Row, dict[str, int]]]:
    start = answers["answer_start"][0]
    end = start + len(answers["text"][0])
    found = []
    for row in rows:
        low, high = row.context
        offsets = row.offsets[low:high] if row.offsets is not None else np.empty((0, 2))
        if len(offsets) and offsets[0, 0] <= start and end <= offsets[-1, 1]:
            first = int(np.flatnonzero(offsets[:, 0] <= start)[-1])
            last = max(first, int(np.flatnonzero(offsets[:, 1] >= end)[0]))
            found.append((row, {"start_positions": low + first, "end_positions": low + last}))
    return found
