"""A causal language model for lm-eval: HFLM with attention masks, and each distinct input read once."""

from __future__ import annotations

import contextlib
import inspect
import logging
from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any, Unpack

import numpy as np
import torch
from lm_eval.models.huggingface import HFLM
from torch import Tensor, nn

from attnbench.backends import alone
from attnbench.backends.causal.ends import Ends
from attnbench.backends.causal.inputs import Inputs, Row
from attnbench.backends.causal.padding import LOGITS
from attnbench.backends.causal.readings import Readings
from attnbench.backends.served import BATCH_SIZE, Serving, one_text, stopping
from attnbench.engine.serving import recalled
from attnbench.engine.serving.prompts import SHORTEST, cuts, prompts
from attnbench.engine.serving.recalled import Reading
from attnbench.errors import NotApplicable, UserError
from attnbench.measures.likely import Likely


class CausalLM(HFLM):
    """A causal model whose tokenised requests are kept: methods come and go, they stay."""

    def __init__(
        self, config: Any, tokenizer: Any, longest: int | None = None, prompt: int | None = None
    ) -> None:
        self.inputs = Inputs(config, tokenizer, longest, prompt)
        with _quiet():
            # what HFLM takes of a model before it is asked anything is its config and its device
            bare = SimpleNamespace(config=config, device=torch.device("cpu"))
            super().__init__(bare, backend="causal", tokenizer=tokenizer, batch_size=BATCH_SIZE)
        self._max_length = self.inputs.longest
        self._model: Any = None
        self.batch_tokens: int | None = None
        self.progress: Callable[[int], None] | None = None
        self.likely: Likely | None = None  # collects what is expected of target tokens, where it is wanted
        self.ends = Ends(self.inputs)
        self._done, self._shortens = 0, False
        self._lengths: list[int] = []  # of the prompts read last
        self._readings: Readings | None = None
        self._recalls = False

    @contextlib.contextmanager
    def serving(self, model: Any, **options: Unpack[Serving]) -> Iterator[CausalLM]:
        """Answer with a model until the block ends. `progress` gets the number of requests answered."""
        if model.training:
            raise RuntimeError("the model is in training mode: its dropout would be measured too")
        self._model, self._device = model, torch.device(options.get("device", "cpu"))
        self.batch_size_per_gpu = options.get("batch_size", BATCH_SIZE)
        self.batch_tokens, self.progress = options.get("batch_tokens"), options.get("progress")
        self._shortens = _shortens(model)
        if cuts(model):
            if self._readings is None or not self._readings.of_model(model):
                self._readings = Readings(model)
            self._recalls = self._readings.serve(self._device)
        self._done = 0
        try:
            with _quiet():
                yield self
        finally:
            self._model = self.progress = self.likely = None
            self._recalls = False

    # the verbs

    def loglikelihood(self, requests: Sequence[Any], disable_tqdm: bool = True) -> list[tuple[float, bool]]:
        """Return the log-likelihood of each continuation and whether greedy decoding gives it."""
        rows = [rows[0] for rows in self.inputs.rows(requests)]
        if cuts(self._model):
            rows = self.ends.of_rows(requests, rows)
        found = self._score(rows, len(requests), self._targets(requests))
        return [(float(value), bool(greedy)) for value, greedy in found]

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = True) -> list[float]:
        """Return the log-likelihood of each text, each token once, in windows of what the model takes."""
        rows = self.inputs.rows(requests)
        flat = [row for windows in rows for row in windows]
        values = self._score(flat, len(requests), self._targets(requests))[:, 0]
        ends = np.cumsum([len(windows) for windows in rows])
        return [float(part.sum()) for part in np.split(values, ends[:-1])]

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = True) -> list[str]:
        """Return each generated text. Raises UserError where the prompt would leave no room for it."""
        for request in requests:
            self.inputs.check_room(request)
        if self.eot_token_id is None:
            raise UserError("the model's tokenizer has no eos token: what it generates would have no end")
        with self.ends.of_texts(requests if cuts(self._model) else ()):
            return super().generate_until(list(requests), disable_tqdm=True)

    def tok_batch_encode(
        self,
        strings: list[str],
        padding_side: str = "left",
        left_truncate_len: int | None = None,
        truncation: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """Tokenise prompts as `Inputs` does: an empty one is a text's beginning, a long one loses its own."""
        batch = self.inputs.prompts(strings, left_truncate_len or self.max_length)
        self._lengths = self.ends.lengths(strings, batch["attention_mask"].sum(1).tolist())
        return batch["input_ids"], batch["attention_mask"]

    def _model_generate(self, context: Tensor, max_length: int, stop: list[str], **options: Any) -> Tensor:
        with one_text(self._model), prompts(self._model, self._lengths if cuts(self._model) else None):
            options = stopping(self._model, self.tokenizer) | options
            found = super()._model_generate(context, max_length, stop, **options)
        self._advance(len(context))
        return found

    # forwards

    def extremes(self, model: nn.Module, requests: Sequence[Any]) -> list[dict[str, Tensor]]:
        """Return the longest and the shortest input, each alone, of whose outputs the first is enough."""
        rows = [row.ids for rows in self.inputs.rows(requests) for row in rows if row.ids]
        chosen = alone.extremes(rows, list(map(len, rows))) if rows else ()
        less = {"logits_to_keep": torch.tensor([0])} if _shortens(model) else {}
        return [{**self.inputs.collate([ids]), **less} for ids in reversed(chosen)]

    def batches(self, lengths: Sequence[int]) -> Iterator[list[int]]:
        """Yield the numbers of the inputs of each batch, the longest first."""
        order = sorted(range(len(lengths)), key=lambda k: -lengths[k])
        start = 0
        while start < len(order):
            longest = max(1, lengths[order[start]])
            size = self.batch_tokens // longest if self.batch_tokens else self.batch_size
            size = max(1, min(size, LOGITS // (longest * self.inputs.vocabulary)))
            yield order[start : start + size]
            start += size

    def _targets(self, requests: Sequence[Any]) -> list[int]:
        """Return the number of each row's first target token among all that are collected (rows,)."""
        found = []
        for request, rows in zip(requests, self.inputs.rows(requests), strict=True):
            first = self.likely.first(request) if self.likely is not None else 0
            sizes = [len(row.targets) for row in rows]
            found += [first + sum(sizes[:k]) for k in range(len(rows))]
        return found

    def _score(self, rows: Sequence[Row], requests: int, targets: Sequence[int]) -> np.ndarray:
        """Return (log-likelihood, greedy or not) of each row's targets; rows of the same input share it.

        Where caches are cut, an input is the same only with the same prompt.
        """
        cutting = cuts(self._model)
        if cutting and not any((row.prompt or 0) >= SHORTEST for row in rows):
            raise NotApplicable(
                f"no prompt here has the {SHORTEST} tokens before what is scored that a cache is cut of"
            )
        sharing: dict[tuple[tuple[int, ...], int | None], list[int]] = {}
        for number, row in enumerate(rows):
            sharing.setdefault((row.ids, row.prompt if cutting else None), []).append(number)
        inputs = list(sharing)
        found, done = np.empty((len(rows), 2)), 0
        batches = self.batches([len(ids) for ids, _ in inputs])
        for chosen in ([k] for batch in batches for k in batch) if self._recalls else batches:
            numbers = [number for k in chosen for number in sharing[inputs[k]]]
            places = [place for place, k in enumerate(chosen) for _ in sharing[inputs[k]]]
            with prompts(self._model, *_ends([inputs[k] for k in chosen], sharing, rows)):
                ids, own = [inputs[k][0] for k in chosen], [rows[n] for n in numbers]
                left = self._left(*inputs[chosen[0]])
                found[numbers] = self._forward(ids, places, own, [targets[n] for n in numbers], left)
            done += len(numbers)
            self._advance(requests * done // len(rows) - requests * (done - len(numbers)) // len(rows))
        strange = int((~np.isfinite(found[:, 0])).sum())
        if strange:
            raise ArithmeticError(f"the log-likelihood is not finite for {strange} of {len(rows)} inputs")
        return found

    def _left(self, ids: tuple[int, ...], prompt: int | None) -> Reading | None:
        """Return what an input's prompt left, where it need not be read again."""
        if not self._recalls or self._readings is None or (prompt or 0) < SHORTEST:
            return None
        return self._readings.of(self._model, ids[:prompt])

    def _forward(
        self,
        inputs: Sequence[tuple[int, ...]],
        places: Sequence[int],
        rows: Sequence[Row],
        first_targets: Sequence[int],
        left: Reading | None,
    ) -> np.ndarray:
        batch = self.inputs.collate(inputs)
        tokens = batch["input_ids"].shape[1]
        lengths = [len(row.targets) for row in rows]
        first = [len(row.ids) - length for row, length in zip(rows, lengths, strict=True)]
        # the last layer has a column for every word: only where one is asked for
        options: dict[str, Any] = (
            {"logits_to_keep": tokens - min(first)} if self._shortens and min(first) else {}
        )
        with torch.no_grad():
            placed: dict[str, Any] = {name: value.to(self._device) for name, value in batch.items()}
            if left is not None:
                placed = {"input_ids": placed["input_ids"][:, left.tokens :]}
                options["past_key_values"] = recalled.cut(self._model, left)
            logits = self._model(**placed, use_cache=left is not None, **options).logits
        shift = tokens - logits.shape[1]
        line = np.repeat(places, lengths)
        column = np.concatenate([np.arange(k, k + n) for k, n in zip(first, lengths, strict=True)]) - shift
        chosen = logits[torch.from_numpy(line), torch.from_numpy(column)].float()
        if self.likely is not None:
            each = zip(first_targets, lengths, strict=True)
            self.likely.take(np.concatenate([np.arange(k, k + n) for k, n in each]), chosen)
        targets = torch.tensor([token for row in rows for token in row.targets], device=chosen.device)
        own = chosen.gather(1, targets[:, None])[:, 0]
        values = (own - chosen.logsumexp(1)).double().cpu().numpy()
        # to find where the largest is takes long: only where it may be the target
        likeliest = own == chosen.amax(1)
        likeliest[likeliest.clone()] = chosen[likeliest].argmax(1) == targets[likeliest]
        greedy = likeliest.cpu().numpy()
        starts = np.cumsum([0, *lengths[:-1]])
        return np.stack([np.add.reduceat(values, starts), np.logical_and.reduceat(greedy, starts)], 1)

    def _advance(self, requests: int) -> None:
        self._done += requests
        if self.progress is not None:
            self.progress(self._done)


def _ends(
    inputs: Sequence[tuple[tuple[int, ...], int | None]], sharing: dict[Any, list[int]], rows: Sequence[Row]
) -> tuple[list[int | None], list[int]]:
    """Return where the prompts of inputs end, and how many tokens are scored of each."""
    return [end for _, end in inputs], [sum(len(rows[n].targets) for n in sharing[k]) for k in inputs]


def _shortens(model: nn.Module) -> bool:
    """Tell whether a model can be asked for the logits of some tokens alone."""
    return "logits_to_keep" in inspect.signature(model.forward).parameters


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep lm-eval from warning that it is given a model and cuts contexts, which `attnbench` says itself."""
    logger = logging.getLogger("lm_eval")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
