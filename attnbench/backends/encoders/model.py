"""Encoders as an lm-eval model: the verbs `classify`, `regress`, `span` and `pseudo_loglikelihood`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from attnbench.backends.encoders import limits, padding
from attnbench.backends.encoders.inputs import Inputs, Row, cuts
from attnbench.backends.served import ServedLM
from attnbench.errors import Misfit, UserError


class EncoderLM(Inputs, ServedLM):
    """An encoder for lm-eval's evaluator."""

    def __init__(self, tokenizer: Any) -> None:
        ServedLM.__init__(self)
        Inputs.__init__(self, tokenizer)

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

    def regress(self, requests: Sequence[Any]) -> list[np.ndarray]:
        """Return each request's number, (1,). Raises UserError where the head has more outputs than one."""
        self.check(requests)
        one_output(self._model().config)
        found: list[np.ndarray] = [np.empty(0)] * len(requests)
        for documents, output, _ in self._forward(requests):
            for document, row in zip(documents, output.logits.float().cpu().numpy(), strict=True):
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
            starts = self.starts(rows)
            ranges = torch.tensor(
                [row.context for row in rows], device=output.start_logits.device
            ) + torch.from_numpy(starts)[:, None].to(output.start_logits.device)
            score, first, last = (
                part.cpu().numpy()
                for part in best_spans(output.start_logits, output.end_logits, ranges, longest)
            )
            for k, (document, row) in enumerate(zip(documents, rows, strict=True)):
                if (
                    not score[k] <= best[document, 2] and row.offsets is not None
                ):  # a NaN is kept, to be found below
                    a, b = first[k] - starts[k], last[k] - starts[k]
                    best[document] = (row.offsets[a, 0], row.offsets[b, 1], score[k])
        best[np.isneginf(best[:, 2]), 2] = 0.0  # an empty context has no span
        return _finite(list(best))

    def pseudo_loglikelihood(self, requests: Sequence[Any]) -> list[np.ndarray]:
        """Return sum_i log p(w_i | the text with w_i masked) and the number of i by text: (texts · 2,).

        Every token is masked once, or the share that the request asks for, each in a copy of its own.
        """
        self.check(requests)
        self._model_in_eval()
        given = self.rows(requests)
        rows = [row for part in given for row in part]
        sums = np.zeros((len(rows), 2))
        owners = np.repeat(np.arange(len(requests)), [len(part) for part in given])
        copies = np.array([len(row.places) if row.places is not None else 0 for row in rows])
        order = np.argsort([-len(row.ids) for row in rows], kind="stable")
        owner = np.repeat(order, copies[order])  # the row of each masked copy
        place = np.concatenate([rows[k].places for k in order]) if len(rows) else np.empty(0, int)
        firsts = self._targets(requests, owners, copies)[order]
        token = np.repeat(firsts - np.cumsum(copies[order]) + copies[order], copies[order])
        token += np.arange(len(token))
        waiting = np.bincount(owners[owner], minlength=len(requests))
        done = int((waiting == 0).sum())
        for start, stop in cuts([len(rows[k].ids) for k in owner], self.batch_size, self.batch_tokens):
            mine, masked = owner[start:stop], torch.from_numpy(place[start:stop].astype(np.int64))
            logs = self._masked([rows[k] for k in mine], masked, token[start:stop])
            np.add.at(sums, mine, np.stack([logs, np.ones_like(logs)], 1))
            touched, times = np.unique(owners[mine], return_counts=True)
            waiting[touched] -= times
            done += int((waiting[touched] == 0).sum())
            if self.progress is not None:
                self.progress(done)
        ends = np.cumsum([0, *map(len, given)])
        return _finite(
            [
                (sums[a:b] if len(request.args[0]) == b - a else sums[a:b].sum(0)).ravel()
                for request, a, b in zip(requests, ends[:-1], ends[1:], strict=True)
            ]
        )

    def _targets(self, requests: Sequence[Any], owners: np.ndarray, copies: np.ndarray) -> np.ndarray:
        """Return the number of each row's first masked token among all that are collected (rows,)."""
        ends = np.cumsum(copies)
        if self.likely is None:
            return ends - copies
        request = np.array([self.likely.first(each) for each in requests])
        before = np.searchsorted(owners, np.arange(len(requests)))  # the first row of each request
        return request[owners] + (ends - copies) - (ends - copies)[before[owners]]

    def _masked(self, rows: Sequence[Row], places: Tensor, tokens: np.ndarray) -> np.ndarray:
        batch = self.collate(rows)
        places = places + torch.from_numpy(self.starts(rows))
        line = torch.arange(len(rows))
        wanted = batch["input_ids"][line, places].to(self._device)
        batch["input_ids"][line, places] = self.tokenizer.mask_token_id
        placed = {key: value.to(self._device) for key, value in batch.items()}
        with torch.no_grad(), only_at(self._model(), line.to(self._device), places.to(self._device)):
            logits = self._model()(**placed).logits
        logits = logits[:, 0] if logits.shape[1] == 1 else logits[line, places]
        if self.likely is not None:
            self.likely.take(tokens, logits)
        return logits.double().log_softmax(-1).gather(1, wanted[:, None])[:, 0].cpu().numpy()

    def _refuse(self, requests: Sequence[Any]) -> Any:
        raise UserError(
            f"task '{requests[0].task_name}' asks for likelihoods or generated text, which no encoder has: "
            "choose a task for encoders, such as sst2 or squad"
        )

    loglikelihood = loglikelihood_rolling = generate_until = _refuse

    def check(self, requests: Sequence[Any], places: Sequence[str] = ()) -> None:
        """Raise UserError where the tokenizer cannot pad or an input is longer than the model takes.

        `places`, a file and line of each document, name the first one.
        """
        padding.prepare(self, self._model(), (row for rows in self.rows(requests) for row in rows))
        limits.require_short(
            limits.longest(self._model(), self.tokenizer), requests, self.rows(requests), places
        )

    def check_tokens(self, requests: Sequence[Any], places: Sequence[str] = ()) -> None:
        """Raise UserError for a token that the model does not know, and for a text without its end."""
        limits.require_tokens(self._model(), self.tokenizer, self.end, requests, self.rows(requests), places)

    def answers(self, rows: Sequence[Row]) -> list[Tensor]:
        """Return each row's outputs, as one batch gives them, without what is padding."""
        with torch.no_grad():
            output = self._model_in_eval()(**{k: v.to(self._device) for k, v in self.collate(rows).items()})
        return padding.outputs(output, self.starts(rows), [len(row.ids) for row in rows])

    def _forward(self, requests: Sequence[Any]) -> Iterator[tuple[list[int], Any, list[Row]]]:
        model = self._model_in_eval()
        waiting = [len(rows) for rows in self.rows(requests)]
        done = 0
        for documents, rows in self.batches(requests, self.batch_size, self.batch_tokens):
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

    def _model_in_eval(self) -> Any:
        if self._model().training:
            raise RuntimeError("the model is in training mode: its dropout would be measured too")
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


@contextlib.contextmanager
def only_at(model: Any, line: Tensor, places: Tensor) -> Iterator[None]:
    """Let a masked LM make the logits of one place a row: those of all cost more than a small encoder."""
    head = model.get_output_embeddings()
    if head is None:
        yield
        return
    hook = head.register_forward_pre_hook(lambda module, given: (given[0][line, places][:, None], *given[1:]))
    try:
        yield
    finally:
        hook.remove()


def label_order(config: Any, labels: Sequence[str]) -> list[int]:
    """Return the model's column of each of the task's labels, which no two share.

    Names are the same as they are written, else in any case where no two then are. A model without names
    (LABEL_0, …) has the task's order. Raises Misfit listing both sides.
    """
    named = [str(config.id2label[k]) for k in sorted(config.id2label)]
    if named == list(labels):  # a file's labels are the model's own, of which two may have one name
        return list(range(len(labels)))
    if len(named) == len(labels):
        for fold in (str, str.casefold):
            place = {fold(name): k for k, name in enumerate(named)}
            if len(place) == len(named) and set(place) == set(map(fold, labels)):
                return [place[fold(label)] for label in labels]
        if all(name == f"LABEL_{k}" for k, name in enumerate(named)):
            return list(range(len(labels)))
    raise Misfit(f"the labels do not fit: the task has {', '.join(labels)}; the model has {', '.join(named)}")


def one_output(config: Any) -> None:
    """Raise Misfit where a classifier's head has labels instead of one number."""
    if len(config.id2label) != 1:
        named = ", ".join(str(config.id2label[k]) for k in sorted(config.id2label))
        raise Misfit(f"the labels do not fit: the task needs one number; the model has {named}")


def _finite(found: list[np.ndarray]) -> list[np.ndarray]:
    strange = sum(not np.isfinite(values).all() for values in found)
    if strange:
        raise ArithmeticError(f"the model's output is not finite for {strange} of {len(found)} samples")
    return found
