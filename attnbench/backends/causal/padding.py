"""Whether padding changes what a causal language model answers, in likelihoods and in what it writes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from attnbench.backends import alone
from attnbench.backends.served import one_text, stopping

LOGITS = 1 << 28  # in one batch at most: 1 GB


def gap(lm: Any, requests: Sequence[Any]) -> float:
    """Return by how much padding changes what a CausalLM answers, relative to the largest (see `alone`)."""
    writes = [request for request in requests if request.request_type == "generate_until"]
    rows = [row for rows in lm.inputs.rows(requests) for row in rows if row.ids]
    lengths = [len(row.ids) for row in rows]
    if not rows:
        return 0.0
    most = LOGITS // (2 * lm.inputs.vocabulary)
    short, long = (row.ids for row in alone.extremes(rows, lengths, most))
    if len(short) == len(long):  # what is fitted on may be of other lengths
        short = short[: len(short) // 2 + 1]
    found = alone.gap(partial(_logits, lm), short, long)
    if writes:
        texts = [request.args[0] for request in writes]
        found = max(found, alone.gap(partial(_first, lm), *alone.extremes(texts, list(map(len, texts)))))
    return found


def _logits(lm: Any, inputs: Sequence[tuple[int, ...]]) -> list[Tensor]:
    batch = {name: value.to(lm.device) for name, value in lm.inputs.collate(inputs).items()}
    with torch.no_grad():
        logits = lm.model(**batch, use_cache=False).logits
    return [line[: len(ids)] for line, ids in zip(logits, inputs, strict=True)]


def _first(lm: Any, texts: Sequence[str]) -> Sequence[Tensor]:
    """Return the logits of the first token that follows each prompt (prompts, vocabulary)."""
    batch = lm.inputs.prompts(texts, lm.max_length - 1)
    with torch.no_grad(), one_text(lm.model):
        made = lm.model.generate(
            **{name: value.to(lm.device) for name, value in batch.items()},
            max_new_tokens=1, max_length=None, do_sample=False, num_beams=1, output_logits=True,
            return_dict_in_generate=True, pad_token_id=lm.inputs.tokenizer.pad_token_id,
            **stopping(lm.model, lm.inputs.tokenizer),
        )  # fmt: skip
    return list(made.logits[0])
