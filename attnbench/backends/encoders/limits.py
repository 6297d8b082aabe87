"""What a model takes, found before the first cell: how many tokens, which of them, and how many ends."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from attnbench.engine.places import probing
from attnbench.engine.places.kept import kept
from attnbench.errors import UserError

CUT = (
    "Cut them with --max-length {0} (in a task's YAML: metadata.max_seq_length), or choose a model that "
    "takes more."
)
WAYS = {
    "span": "Lower max_seq_length in its YAML's metadata.window.",
    **dict.fromkeys(
        ("loglikelihood", "loglikelihood_rolling", "generate_until"),
        "Its config promises more. Leave them out, or choose a model that takes more.",
    ),
    "pseudo_loglikelihood": "Leave them out, or choose a model that takes more.",
}
_known: WeakKeyDictionary[nn.Module, Limits] = WeakKeyDictionary()


class Limits(NamedTuple):
    """The most tokens a model has positions for, and the ids it has embeddings for; None: no such limit.

    `decoder` are those of the decoder beside an encoder.
    """

    positions: int | None
    decoder: int | None
    vocabulary: int | None


class Watch(TorchFunctionMode):
    """Note every look-up in a table of embeddings: the indices, and the table."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[Tensor, Tensor]] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is nn.functional.embedding and len(args) > 1:
            self.seen.append((args[0], args[1]))
        return func(*args, **(kwargs or {}))


def of(model: nn.Module) -> Limits:
    """Return a model's limits, found once, by what a forward pass of a few tokens looks up.

    A table in which it looks up one place after the other holds positions, whatever its name; those before
    the first one are kept back, as RoBERTa does.
    """
    if model not in _known:
        batch = probing.probe_batch(model)
        try:
            with kept(model), Watch() as watch:
                probing.run(model, batch)
        except (RuntimeError, LookupError, ValueError, TypeError, AttributeError) as error:
            said = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise UserError(
                f"{type(model).__name__} does not run on {batch['input_ids'].shape[1]} tokens ({said}): this "
                "model is not supported."
            ) from error
        words = probing.word_embeddings(model)
        lengths = {"input_ids": 0, "decoder_input_ids": 0}
        lengths |= {name: batch[name].shape[1] for name in lengths if name in batch}
        found: dict[int, list[int]] = {}
        for ids, table in watch.seen:
            first = _first_of_consecutive(ids)
            if first is not None and table is not getattr(words, "weight", None):
                found.setdefault(ids.shape[-1], []).append(len(table) - first)
        named = [
            module.num_embeddings - (0 if module.padding_idx is None else module.padding_idx + 1)
            for name, module in model.named_modules()
            if isinstance(module, nn.Embedding) and name.endswith("position_embeddings")
        ]
        _known[model] = Limits(
            min([*found.get(lengths["input_ids"], ()), *named], default=None),
            min(found.get(lengths["decoder_input_ids"], ()), default=None),
            None if words is None else len(words.weight),  # type: ignore[arg-type]
        )
    return _known[model]


def _first_of_consecutive(ids: Tensor) -> int | None:
    """Return the first of indices that count up by one, in every row of them alike; None for others."""
    if ids.is_floating_point() or ids.dim() < 1 or ids.shape[-1] < 2:
        return None
    rows = ids.reshape(-1, ids.shape[-1])
    counting = rows[0, 0] + torch.arange(ids.shape[-1], device=ids.device)
    return int(rows[0, 0]) if bool((rows == counting).all()) else None


def longest(model: nn.Module, tokenizer: Any) -> int:
    """Return how many tokens a model takes: its positions or its tokenizer's limit, whichever is less."""
    limit, own = of(model).positions, int(tokenizer.model_max_length)
    return own if limit is None else min(limit, own)


def require_short(limit: int, requests: Sequence[Any], rows: Sequence[Any], places: Sequence[str]) -> None:
    """Raise UserError where an input is longer than the model takes; `places` name the documents."""
    lengths = [len(row.ids) for given in rows for row in given]
    over = sum(length > limit for length in lengths)
    if over:
        first = next(k for k, given in enumerate(rows) if any(len(row.ids) > limit for row in given))
        way = WAYS.get(requests[0].request_type, CUT).format(limit)
        raise UserError(
            f"{_where(requests[first], places)}: {over} of {len(lengths)} inputs of task "
            f"'{requests[0].task_name}' have over {limit} tokens, what the model takes (the longest: "
            f"{max(lengths)}). {way}"
        )


def require_tokens(
    model: nn.Module,
    tokenizer: Any,
    end: int | None,
    requests: Sequence[Any],
    rows: Sequence[Any],
    places: Sequence[str],
) -> None:
    """Raise UserError for a token that the model has no embedding for, and for a text without its `end`.

    `end` is the token whose place a classifier reads, `places` name the documents.
    """
    size = of(model).vocabulary
    for request, given in zip(requests, rows, strict=True):
        for row in given:
            highest = int(np.max(row.ids, initial=0))
            if size is not None and highest >= size:
                raise UserError(f"{_where(request, places)}: {beyond(tokenizer, highest, size)}")
            if end is not None and end not in row.ids:
                raise UserError(
                    f"{_where(request, places)}: no {tokenizer.convert_ids_to_tokens(end)!r} in it, at whose "
                    "place this classifier reads its answer: its tokenizer has to end a text with it "
                    "(config.json: eos_token_id)."
                )


def beyond(tokenizer: Any, token: int, size: int) -> str:
    """Say that a tokenizer and a model do not fit, and the way on."""
    return (
        f"the tokenizer gives {tokenizer.convert_ids_to_tokens(token)!r} the id {token}, the model has "
        f"embeddings for {size}. Tokens were added: save the model after `resize_token_embeddings`, or take "
        "the tokenizer that it was trained with."
    )


def _where(request: Any, places: Sequence[str]) -> str:
    return places[request.doc_id] if places else where(request)


def where(request: Any) -> str:
    """Name the document that a request is of."""
    if getattr(request, "doc_id", None) is None:
        return f"calibration text {str(request.args[0])[:40]!r}"
    return f"document {request.doc_id} of task '{request.task_name}'"
