"""Pad as a model's head needs it: with which token, on which side, or not at all."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from attnbench.backends import alone
from attnbench.backends.encoders.inputs import Inputs, Row
from attnbench.engine.places import probing
from attnbench.errors import UserError

OTHER = {"right": "left", "left": "right"}


def prepare(inputs: Inputs, model: nn.Module, rows: Iterable[Row]) -> None:
    """Take the token that a model's head knows as padding, else the tokenizer's, of which the head is told.

    A model without one reads a text's last token, whatever it is: it is told of one that no text holds.
    Raises UserError where neither has one.
    """
    config: Any = model.config.get_text_config()  # type: ignore[union-attr, operator]
    words: Any = probing.word_embeddings(model)
    known = len(inputs.tokenizer) if words is None else len(words.weight)
    own = getattr(config, "pad_token_id", None)
    if isinstance(own, int) and 0 <= own < known:
        inputs.fill = own
    elif inputs.tokenizer.pad_token_id is None:
        raise UserError(
            "neither the model's config.json nor its tokenizer has a pad token (pad_token_id): "
            "batches cannot be made"
        )
    else:
        used = np.concatenate([np.empty(0, int), *(row.ids for row in rows)])
        free, first = np.setdiff1d(np.arange(known), used), int(inputs.tokenizer.pad_token_id)
        inputs.fill = config.pad_token_id = first if first in free or not len(free) else int(free[-1])
    takes = inspect.signature(model.forward).parameters
    inputs.decoder = bool(getattr(config, "is_encoder_decoder", False)) and "decoder_attention_mask" in takes


def rows(inputs: Inputs, requests: Sequence[Any]) -> list[Row]:
    """Return all inputs of requests that hold a token."""
    return [row for rows in inputs.rows(requests) for row in rows if len(row.ids)]


def suit(inputs: Inputs, answers: alone.Answers, rows: Sequence[Row], tolerance: float) -> str | None:
    """Pad on the tokenizer's side, or on the other where only there no answer changes.

    Returns why nothing may be padded, None where a text's answer is the same alone and in a batch.
    """
    if not rows:
        return None
    rows = inputs.alike(rows, lambda row: row)[0]  # which may share a batch
    short, long = alone.extremes(rows, [len(row.ids) for row in rows])
    if len(short.ids) == len(long.ids):  # what is fitted on may be of other lengths
        short = shortened(short, inputs.end)
    given, found = inputs.side, []
    for side in (given, OTHER[given]):
        inputs.side = side
        found.append(alone.gap(answers, short, long))
        if found[-1] <= tolerance:
            return None
    inputs.side = given
    return alone.ALONE.format(min(found))


def shortened(row: Row, end: int | None = None) -> Row:
    """Return the first half of a row, its last token and every `end`, of which a batch needs equally many."""
    place = np.arange(len(row.ids))
    place = place[(place < len(row.ids) // 2) | (place == len(row.ids) - 1) | (row.ids == end)]
    types = None if row.types is None else row.types[place]
    return Row(row.ids[place], types)


def outputs(output: Any, starts: np.ndarray, lengths: Sequence[int]) -> list[Tensor]:
    """Return each row's logits: of the row, or of its tokens, those that are no padding."""
    found = []
    for k, (start, length) in enumerate(zip(starts, lengths, strict=True)):
        tokens = slice(int(start), int(start) + length)
        parts = [
            value[k, tokens] if name != "logits" or value.dim() == 3 else value[k]
            for name in ("logits", "start_logits", "end_logits")
            if (value := getattr(output, name, None)) is not None
        ]
        found.append(torch.cat([part.flatten() for part in parts]))
    return found
