"""Training batches: generated documents, tokenised, bucketed by length; any step can resume."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any

import torch

from attnbench.engine.learning.gates import IGNORED
from attnbench.pocket.text import KEYS, annotated
from attnbench.pocket.tokenizer import TOKENS

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerFast

POOL = 16  # batches that are sorted by length together
TARGETS = ("asked", "words", "owners", "tags", "clauses", "worths", "total")  # of the auxiliary losses


def encode(
    tokenizer: PreTrainedTokenizerFast, task: str, documents: list[dict[str, Any]]
) -> dict[str, Tensor]:
    """Tokenise documents as model inputs with labels and, per token, `tags` of the spans that cover it."""
    texts = [[d["text"] for d in documents]] if task == "sentiment" else [
        [d["question"] for d in documents], [d["context"] for d in documents]
    ]  # fmt: skip
    inputs = tokenizer(
        *texts,
        padding=True,
        truncation=True,
        max_length=TOKENS,
        return_offsets_mapping=True,
        return_tensors="pt",
    )
    offsets = inputs.pop("offset_mapping")
    part = len(texts) - 1
    inside = torch.tensor([[s == part for s in inputs.sequence_ids(row)] for row in range(len(documents))])
    batch = dict(inputs)

    ends = (offsets[:, :, 1] - 1).clamp(min=0)

    def marked(key: str, more: int = 0) -> Tensor:
        rows = []
        for document in documents:
            characters = [0] * (int(ends.max()) + 1)
            for start, end, tag in document.get(key, ()):
                characters[start:end] = [tag + more] * (end - start)
            rows.append(characters)
        return torch.tensor(rows).gather(1, ends).where(inside, IGNORED)

    batch["tags"] = marked("spans")
    ids = batch["input_ids"]
    if task == "sentiment":
        # tag - 1 = denied + 2 positive + 4 decides: said first of the word alone, then of its clause
        tags = batch["tags"]
        denied, positive, decides = ((tags - 1).clamp(min=0) // unit % 2 for unit in (1, 2, 4))
        batch["words"] = torch.where(tags > 0, (positive ^ denied) + 2 * denied, IGNORED)
        batch["tags"] = torch.where(tags > 0, positive + 2 * decides, IGNORED)
        clauses = marked("clauses")
        batch["clauses"] = torch.where(clauses > 0, clauses - 1, IGNORED)
        batch["worths"] = torch.where(tags > 0, marked("worths"), IGNORED)
        batch["total"] = torch.tensor([d.get("total", 0.0) for d in documents])
        batch["labels"] = torch.tensor([d["label"] for d in documents])
        return batch
    answers = [d["answers"] for d in documents]
    spans = [(a["answer_start"][0], a["answer_start"][0] + len(a["text"][0])) for a in answers]
    edges = torch.tensor(spans)[:, None]
    found = (inside & (offsets[..., 0] < edges[..., 1]) & (offsets[..., 1] > edges[..., 0])).int()
    batch["start_positions"] = found.argmax(1)
    batch["end_positions"] = found.shape[1] - 1 - found.flip(1).argmax(1)
    same = ids[:, :, None] == ids[:, None, :]
    # 1 where a paragraph's token is one of the question's
    asked = same & (batch["attention_mask"].bool() & ~inside)[:, None, :]
    # at every value's tokens, the word that names its person
    size = int(ends.max()) + 2
    begins = offsets[..., 0].where(inside, size - 1)
    beginning = ids.new_zeros(len(ids), size).scatter(1, begins, ids)  # with each character
    names = marked("owners", 1)
    batch["owners"] = beginning.gather(1, (names - 1).clamp(min=0)).where(names > 0, IGNORED)
    batch["asked"] = torch.where(inside, asked.any(2).long(), IGNORED)
    return batch


def stream(
    tokenizer: PreTrainedTokenizerFast, task: str, size: int, first: int, options: Any
) -> Iterator[dict[str, Tensor]]:
    """Give the batches from number `first` on; `options(number)` are the writer's for a pool of batches."""
    for group in alike(task, size, first, options):
        yield encode(tokenizer, task, group)


def alike(
    task: str, size: int, first: int, options: Callable[[int], dict[str, Any]]
) -> Iterator[list[dict[str, Any]]]:
    """Give groups of documents of like length, from number `first` on: see `stream`."""
    number = first
    while True:
        pool, skip = divmod(number, POOL)
        # part 0 is what `documents` shows
        found = list(islice(annotated(task, "train", pool + 1, **options(pool * POOL)), size * POOL))
        found.sort(key=lambda document: len(document[KEYS[task]]))
        groups = [found[at : at + size] for at in range(0, len(found), size)]
        random.Random(pool).shuffle(groups)
        yield from groups[skip:]
        number += len(groups) - skip
