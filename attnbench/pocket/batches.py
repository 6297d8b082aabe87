"""Training batches: generated documents, tokenised, bucketed by length; any step can resume."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any

import torch

from attnbench.pocket.text import KEYS, annotated
from attnbench.pocket.tokenizer import TOKENS

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerFast

IGNORED = -100
POOL = 16  # batches that are sorted by length together


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

    def covers(row: int, start: int, end: int) -> Tensor:
        return inside[row] & (offsets[row, :, 0] < end) & (offsets[row, :, 1] > start)

    def marked(key: str) -> Tensor:
        tags = torch.where(inside, 0, IGNORED)
        for row, document in enumerate(documents):
            for start, end, tag in document.get(key, ()):
                tags[row, covers(row, start, end)] = tag
        return tags

    batch["tags"] = marked("spans")
    ids = batch["input_ids"]
    same = ids[:, :, None] == ids[:, None, :]
    if task == "sentiment":
        # tag - 1 = denied + 2 positive + 4 decides: said first of the word alone, then of its clause
        tags = batch["tags"]
        denied, positive, decides = ((tags - 1).clamp(min=0) // unit % 2 for unit in (1, 2, 4))
        batch["words"] = torch.where(tags > 0, 1 + (positive ^ denied) + 2 * denied, tags)
        batch["tags"] = torch.where(tags > 0, 1 + positive + 2 * decides, tags)
        batch["clauses"] = marked("clauses")
        batch["asked"] = torch.where(inside, ((same & inside[:, None, :]).sum(2) > 1).long(), IGNORED)
    if task == "sentiment":
        batch["labels"] = torch.tensor([d["label"] for d in documents])
        return batch
    answers = [d["answers"] for d in documents]
    spans = [(a["answer_start"][0], a["answer_start"][0] + len(a["text"][0])) for a in answers]
    found = torch.stack([covers(row, *span) for row, span in enumerate(spans)]).int()
    batch["start_positions"] = found.argmax(1)
    batch["end_positions"] = found.shape[1] - 1 - found.flip(1).argmax(1)
    # 1 where a paragraph's token is one of the question's
    asked = same & (batch["attention_mask"].bool() & ~inside)[:, None, :]
    # at every value's tokens, the word that names its person
    batch["owners"] = torch.full_like(ids, IGNORED)
    for row, document in enumerate(documents):
        for start, end, name in document.get("owners", ()):
            batch["owners"][row, covers(row, start, end)] = ids[row, covers(row, name, name + 1)]
    batch["asked"] = torch.where(inside, asked.any(2).long(), IGNORED)
    return batch


def stream(
    tokenizer: PreTrainedTokenizerFast, task: str, size: int, first: int, options: Any
) -> Iterator[dict[str, Tensor]]:
    """Give the batches from number `first` on; `options(number)` are the writer's for a pool of batches."""
    number = first
    while True:
        pool, skip = divmod(number, POOL)
        # part 0 is what `documents` shows
        found = list(islice(annotated(task, "train", pool + 1, **options(pool * POOL)), size * POOL))
        found.sort(key=lambda document: len(document[KEYS[task]]))
        groups = [found[at : at + size] for at in range(0, len(found), size)]
        random.Random(pool).shuffle(groups)
        for group in groups[skip:]:
            yield encode(tokenizer, task, group)
            number += 1
