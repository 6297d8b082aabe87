"""Encoders as an lm-eval model: the verbs `classify` and `span`, in batches of like length, longest first."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from lm_eval.api.model import LM
from torch import Tensor, nn

from attnbench.errors import UserError

BATCH_SIZE = 32
CHUNK = 1000  # documents tokenised at a time: the tokenizer's own output is far larger than what is kept


class Row(NamedTuple):
    """A model input, a document or a window: ids, types (tokens,), offsets (tokens, 2)."""

    ids: np.ndarray
    types: np.ndarray | None
    offsets: np.ndarray | None
    context: tuple[int, int]  # the context's tokens: first, one past the last


class EncoderLM(LM):
    """An encoder for lm-eval's evaluator. Tokenised requests are kept for the methods that follow."""

    def __init__(
        self,
        tokenizer: Any,
        model: nn.Module | None = None,
        *,
        batch_size: int = BATCH_SIZE,
        device: str = "cpu",
        progress: Callable[[int], None] | None = None,
    ) -> None:
        super().__init__()
        self.tokenizer = tokenizer
        self.model = model
        self.batch_size = batch_size
        self.progress = progress
        self._device = device
        self._rows: dict[tuple[Any, ...], list[Row]] = {}

    # the verbs

    def classify(self, requests: Sequence[Any]) -> list[np.ndarray]:
        """Return each request's logits, (labels,), in the order of the task's labels. Raises UserError."""
        self.check(requests)
        order = label_order(self._model().config, requests[0].args[2])
        found: list[np.ndarray] = [np.empty(0)] * len(requests)
        for documents, output, _ in self._forward(requests):
            logits = output.logits.float()[:, order].cpu().numpy()
            for document, row in zip(documents, logits, strict=True):
                found[document] = row
        return _finite(found)

    def span(self, requests: Sequence[Any]) -> list[np.ndarray]:
        """Return each document's best span: (first character, one past the last, start + end logit).

        The best is over all windows; only tokens of the context count, at most `max_answer_length`.
        """
        self.check(requests)
        longest = requests[0].args[2][2]
        best = np.tile(np.array([0.0, 0.0, -np.inf]), (len(requests), 1))
        for documents, output, rows in self._forward(requests):
            ranges = torch.tensor([row.context for row in rows], device=output.start_logits.device)
            score, first, last = (
                part.cpu().numpy()
                for part in best_spans(output.start_logits, output.end_logits, ranges, longest)
            )
            for k, (document, row) in enumerate(zip(documents, rows, strict=True)):
                if (
                    not score[k] <= best[document, 2] and row.offsets is not None
                ):  # a NaN is kept, to be found below
                    best[document] = (row.offsets[first[k], 0], row.offsets[last[k], 1], score[k])
        best[np.isneginf(best[:, 2]), 2] = 0.0  # an empty context has no span
        return _finite(list(best))

    def _refuse(self, requests: Sequence[Any]) -> Any:
        raise UserError(
            f"task '{requests[0].task_name}' asks for likelihoods or generated text, which no encoder has: "
            "choose a task for encoders, such as sst2 or squad"
        )

    loglikelihood = loglikelihood_rolling = generate_until = _refuse

    # inputs

    def rows(self, requests: Sequence[Any]) -> list[list[Row]]:
        """Return each request's model inputs, tokenising those not seen before."""
        new = list(dict.fromkeys(request.args for request in requests if request.args not in self._rows))
        for start in range(0, len(new), CHUNK):
            part = new[start : start + CHUNK]
            encode = {"span": self._windows, "classify": self._texts}[requests[0].request_type]
            self._rows.update(zip(part, encode(part), strict=True))
        return [self._rows[request.args] for request in requests]

    def check(self, requests: Sequence[Any]) -> None:
        """Raise UserError where the tokenizer cannot pad or an input is longer than the model takes."""
        if self.tokenizer.pad_token_id is None:
            raise UserError("the model's tokenizer has no padding token: batches cannot be made")
        limit = positions(self._model(), self.tokenizer)
        lengths = [len(row.ids) for rows in self.rows(requests) for row in rows]
        over = sum(length > limit for length in lengths)
        if over:
            raise UserError(
                f"{over} of {len(lengths)} inputs of task '{requests[0].task_name}' have over {limit} "
                f"tokens, what the model takes (the longest: {max(lengths)}). Choose one with more."
            )

    def _texts(self, arguments: list[tuple[Any, ...]]) -> Iterator[list[Row]]:
        first = [args[0] for args in arguments]
        second = None if arguments[0][1] is None else [args[1] for args in arguments]
        encoded = self.tokenizer(first, second, truncation=False, verbose=False)
        types = self._types(encoded)
        for k, ids in enumerate(encoded["input_ids"]):
            yield [Row(_array(ids), None if types is None else _array(types[k]), None, (0, len(ids)))]

    def _windows(self, arguments: list[tuple[Any, ...]]) -> Iterator[list[Row]]:
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
            context = (int(inside[0]), int(inside[-1]) + 1) if len(inside) else (0, 0)
            offsets = np.array(encoded["offset_mapping"][k], dtype=np.int32)
            found[document].append(
                Row(
                    _array(encoded["input_ids"][k]),
                    None if types is None else _array(types[k]),
                    offsets,
                    context,
                )
            )
        yield from found

    def _types(self, encoded: Any) -> Any:
        return encoded.get("token_type_ids") if "token_type_ids" in self.tokenizer.model_input_names else None

    # forwards

    def batches(self, requests: Sequence[Any], size: int) -> Iterator[tuple[list[int], list[Row]]]:
        """Yield (document numbers, rows), the longest rows first."""
        flat = [(document, row) for document, rows in enumerate(self.rows(requests)) for row in rows]
        flat.sort(key=lambda item: -len(item[1].ids))
        for start in range(0, len(flat), size):
            part = flat[start : start + size]
            yield [document for document, _ in part], [row for _, row in part]

    def collate(self, rows: Sequence[Row]) -> dict[str, Tensor]:
        """Pad rows on the right to one batch: each tensor is (rows, tokens)."""
        shape = (len(rows), max(len(row.ids) for row in rows))
        ids = np.full(shape, self.tokenizer.pad_token_id, dtype=np.int64)
        mask = np.zeros(shape, dtype=np.int64)
        types = np.full(shape, self.tokenizer.pad_token_type_id, dtype=np.int64)
        for k, row in enumerate(rows):
            ids[k, : len(row.ids)] = row.ids
            mask[k, : len(row.ids)] = 1
            if row.types is not None:
                types[k, : len(row.ids)] = row.types
        batch = {"input_ids": ids, "attention_mask": mask}
        if rows[0].types is not None:
            batch["token_type_ids"] = types
        return {key: torch.from_numpy(value) for key, value in batch.items()}

    def _forward(self, requests: Sequence[Any]) -> Iterator[tuple[list[int], Any, list[Row]]]:
        model = self._model()
        if model.training:
            raise RuntimeError("the model is in training mode: its dropout would be measured too")
        waiting = [len(rows) for rows in self.rows(requests)]
        done = 0
        for documents, rows in self.batches(requests, self.batch_size):
            with torch.no_grad():
                output = model(**{key: value.to(self._device) for key, value in self.collate(rows).items()})
            yield documents, output, rows
            for document in documents:
                waiting[document] -= 1
                done += not waiting[document]
            if self.progress is not None:
                self.progress(done)

    def _model(self) -> Any:
        if self.model is None:
            raise RuntimeError("no model set")
        return self.model


def best_spans(start: Tensor, end: Tensor, context: Tensor, longest: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return (score, first, last) by row: the maximum of start + end over first ≤ last < first + longest.

    start, end (rows, tokens); context (rows, 2): first token, one past the last. Ties: shorter, then earlier.
    """
    rows, tokens = start.shape
    place = torch.arange(tokens, device=start.device)
    outside = (place < context[:, :1]) | (place >= context[:, 1:])
    start, end = (logits.float().masked_fill(outside, -torch.inf) for logits in (start, end))
    sums = start.new_full((rows, longest, tokens), -torch.inf)
    for extra in range(min(longest, tokens)):
        torch.add(start[:, : tokens - extra], end[:, extra:], out=sums[:, extra, : tokens - extra])
    score, index = sums.flatten(1).max(1)
    first = index % tokens
    return score, first, first + index // tokens


def label_order(config: Any, labels: Sequence[str]) -> list[int]:
    """Return the model's column of each of the task's labels.

    A model without names (LABEL_0, …) has the task's order. Raises UserError listing both sides.
    """
    named = [str(config.id2label[k]) for k in sorted(config.id2label)]
    place = {name.casefold(): k for k, name in enumerate(named)}
    if len(named) == len(labels):
        if set(place) == {label.casefold() for label in labels}:
            return [place[label.casefold()] for label in labels]
        if all(name == f"LABEL_{k}" for k, name in enumerate(named)):
            return list(range(len(labels)))
    raise UserError(
        f"the labels do not fit: the task has {', '.join(labels)}; the model has {', '.join(named)}"
    )


def positions(model: nn.Module, tokenizer: Any) -> int:
    """Return how many tokens a model takes: its positions (RoBERTa keeps some back) or its tokenizer's."""
    limits = [int(tokenizer.model_max_length)]
    for name, module in model.named_modules():
        if isinstance(module, nn.Embedding) and name.endswith("position_embeddings"):
            limits.append(
                module.num_embeddings - (0 if module.padding_idx is None else module.padding_idx + 1)
            )
    return min(limits)


def _array(values: Any) -> np.ndarray:
    return np.asarray(values, dtype=np.int32)


def _finite(found: list[np.ndarray]) -> list[np.ndarray]:
    strange = sum(not np.isfinite(values).all() for values in found)
    if strange:
        raise ArithmeticError(f"the model's output is not finite for {strange} of {len(found)} samples")
    return found
