"""Encoder inputs: requests tokenised once and kept, and batches of like length made of them."""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from attnbench.errors import UserError

T = TypeVar("T")
CHUNK = 1000  # documents tokenised at a time: the tokenizer's own output is far larger than what is kept


class Row(NamedTuple):
    """A model input, a document or a window: ids, types (tokens,), offsets (tokens, 2)."""

    ids: np.ndarray
    types: np.ndarray | None = None
    offsets: np.ndarray | None = None
    context: tuple[int, int] = (0, 0)  # the context's tokens: first, one past the last
    places: np.ndarray | None = None  # the tokens to mask, one copy each
    inside: np.ndarray | None = None  # which tokens are the text's own (tokens,)
    cut: bool = False


class Inputs:
    """What a tokenizer makes of requests, kept for the methods that follow."""

    def __init__(self, tokenizer: Any, end: int | None = None) -> None:
        self.tokenizer = tokenizer
        self.end = end  # the token that the rows of a batch need equally often, where there is one
        self.side: str = tokenizer.padding_side
        self.fill: int | None = tokenizer.pad_token_id
        self.decoder = False  # whether the model has a decoder that reads the text too
        self._rows: dict[tuple[Any, ...], list[Row]] = {}

    def rows(self, requests: Sequence[Any]) -> list[list[Row]]:
        """Return each request's model inputs, tokenising those not seen before. Raises UserError."""
        encode: dict[str, Callable[[list[tuple[Any, ...]]], Iterator[list[Row]]]] = {
            "span": self._windows,
            "classify": self._texts,
            "regress": self._texts,
            "pseudo_loglikelihood": self._maskable,
        }
        new = list(dict.fromkeys(request.args for request in requests if request.args not in self._rows))
        for start in range(0, len(new), CHUNK):
            part = new[start : start + CHUNK]
            self._rows.update(zip(part, encode[requests[0].request_type](part), strict=True))
        return [self._rows[request.args] for request in requests]

    def _texts(self, arguments: list[tuple[Any, ...]]) -> Iterator[list[Row]]:
        first = [args[0] for args in arguments]
        second = None if arguments[0][1] is None else [args[1] for args in arguments]
        longest = arguments[0][3]
        encoded = self.tokenizer(first, second, truncation=False, verbose=False)
        lengths = list(map(len, encoded["input_ids"]))
        if longest is not None and max(lengths) > longest:
            encoded = self.tokenizer(first, second, truncation=True, max_length=longest)
        types = self._types(encoded)
        for k, ids in enumerate(encoded["input_ids"]):
            yield [
                Row(
                    _array(ids),
                    None if types is None else _array(types[k]),
                    context=(0, len(ids)),
                    cut=len(ids) < lengths[k],
                )
            ]

    def _windows(self, arguments: list[tuple[Any, ...]]) -> Iterator[list[Row]]:
        self._require_offsets()
        size, stride, _ = arguments[0][2]
        questions = [args[0] for args in arguments]
        # the tokenizer itself panics, with a stack trace, where a window would not move on
        longest = max(map(len, self.tokenizer(questions, add_special_tokens=False)["input_ids"]))
        if size - longest - self.tokenizer.num_special_tokens_to_add(pair=True) <= stride:
            raise UserError(
                f"a question of {longest} tokens leaves windows of {size} no room for a stride of {stride}"
            )
        encoded = self.tokenizer(
            questions,
            [args[1] for args in arguments],
            truncation="only_second",
            max_length=size,
            stride=stride,
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
        )
        types = self._types(encoded)
        found: list[list[Row]] = [[] for _ in arguments]
        for k, document in enumerate(encoded["overflow_to_sample_mapping"]):
            sequence = np.array([part == 1 for part in encoded.sequence_ids(k)])
            inside = np.flatnonzero(sequence)
            found[document].append(
                Row(
                    _array(encoded["input_ids"][k]),
                    None if types is None else _array(types[k]),
                    np.array(encoded["offset_mapping"][k], dtype=np.int32),
                    (int(inside[0]), int(inside[-1]) + 1) if len(inside) else (0, 0),
                )
            )
        yield from found

    def _maskable(self, arguments: list[tuple[Any, ...]]) -> Iterator[list[Row]]:
        if self.tokenizer.mask_token_id is None:
            raise UserError("the model's tokenizer has no mask token: nothing can be masked")
        texts = [text for args in arguments for text in args[0]]
        size, share, seed = arguments[0][1] or (None, 1.0, 0)
        windows = {"truncation": True, "max_length": size, "return_overflowing_tokens": True} if size else {}
        if windows:
            self._require_offsets()
        encoded = self.tokenizer(texts, return_special_tokens_mask=True, verbose=False, **windows)
        types = self._types(encoded)
        of = encoded["overflow_to_sample_mapping"] if windows else range(len(texts))
        made: list[list[Row]] = [[] for _ in texts]
        for k, text in enumerate(of):
            ids = _array(encoded["input_ids"][k])
            inside = np.asarray(encoded["special_tokens_mask"][k]) == 0
            places = np.flatnonzero(inside)
            if share < 1 and len(places):
                rng = random.Random(f"{seed} {zlib.crc32(ids.tobytes())}")
                count = max(1, round(share * len(places)))
                places = np.sort(np.array(rng.sample(places.tolist(), count)))
            kinds = None if types is None else _array(types[k])
            made[text].append(Row(ids, kinds, places=places.astype(np.int32), inside=inside))
        rows = iter(made)
        for args in arguments:
            yield [row for _ in args[0] for row in next(rows)]

    def _require_offsets(self) -> None:
        """Raise UserError for a tokenizer that does not say where in a text its tokens stand."""
        if not getattr(self.tokenizer, "is_fast", False):
            raise UserError(
                f"the model's tokenizer, a {type(self.tokenizer).__name__}, is in Python: it does not say "
                "where in a text a token stands, which windows of long texts need. Take a model with a "
                "tokenizer.json, or a task of short texts."
            )

    def _types(self, encoded: Any) -> Any:
        return encoded.get("token_type_ids") if "token_type_ids" in self.tokenizer.model_input_names else None

    def batches(
        self, requests: Sequence[Any], size: int, tokens: int | None = None
    ) -> Iterator[tuple[list[int], list[Row]]]:
        """Yield (document numbers, rows), the longest rows first: `size` rows, or `tokens` with padding."""
        flat = [(document, row) for document, rows in enumerate(self.rows(requests)) for row in rows]
        for alike in self.alike(flat, lambda item: item[1]):
            for start, stop in cuts([len(row.ids) for _, row in alike], size, tokens):
                yield [document for document, _ in alike[start:stop]], [row for _, row in alike[start:stop]]

    def alike(self, items: Sequence[T], row: Callable[[T], Row]) -> list[list[T]]:
        """Sort items by their rows, the longest first: one list, or one for each number of `end` in a row.

        A classifier of BART's kind reads a text's last end, and takes no batch of unequally many.
        """
        found: dict[int, list[T]] = {}
        for item in sorted(items, key=lambda item: -len(row(item).ids)):
            ends = 0 if self.end is None else int((row(item).ids == self.end).sum())
            found.setdefault(ends, []).append(item)
        return [found[ends] for ends in sorted(found)]

    def collate(self, rows: Sequence[Row]) -> dict[str, Tensor]:
        """Pad rows to one batch, on the side and with the token that the model needs: (rows, tokens) each."""
        assert self.fill is not None
        ids, mask = padded([row.ids for row in rows], self.fill, self.side)
        batch = {"input_ids": ids, "attention_mask": mask}
        if self.decoder:
            batch["decoder_attention_mask"] = mask.clone()
        types = [row.types for row in rows if row.types is not None]
        if types:
            batch["token_type_ids"], _ = padded(types, self.tokenizer.pad_token_type_id, self.side)
        return batch

    def starts(self, rows: Sequence[Row]) -> np.ndarray:
        """Return the place of each row's first token in a batch of them (rows,)."""
        lengths = np.array([len(row.ids) for row in rows])
        return lengths.max() - lengths if self.side == "left" else np.zeros_like(lengths)


def cuts(lengths: Sequence[int], size: int, tokens: int | None) -> Iterator[tuple[int, int]]:
    """Cut a list sorted longest first into batches (first, one past the last).

    Without `tokens` a batch is `size` rows; with it as many as have that many tokens, padding included, and
    at least one.
    """
    start = 0
    while start < len(lengths):
        stop = start + (size if tokens is None else max(1, tokens // max(1, lengths[start])))
        yield start, min(stop, len(lengths))
        start = stop


def padded(
    rows: Sequence[Sequence[int] | np.ndarray], fill: int, side: str = "right"
) -> tuple[Tensor, Tensor]:
    """Pad rows on one side to the longest: they, and which of it is no padding, (rows, tokens) each."""
    whole = np.full((len(rows), max(map(len, rows))), fill, dtype=np.int64)
    mask = np.zeros_like(whole)
    for k, row in enumerate(rows):
        place = slice(whole.shape[1] - len(row), None) if side == "left" else slice(len(row))
        whole[k, place] = row
        mask[k, place] = 1
    return torch.from_numpy(whole), torch.from_numpy(mask)


def _array(values: Any) -> np.ndarray:
    return np.asarray(values, dtype=np.int32)
