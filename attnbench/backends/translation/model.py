"""An encoder-decoder as an lm-eval model: the verb `translate`, in batches of like length, longest first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from attnbench.backends import alone
from attnbench.backends.encoders import limits
from attnbench.backends.encoders.inputs import Row, cuts, padded
from attnbench.backends.served import ServedLM, one_text, stopping
from attnbench.engine.learning.gates import IGNORED
from attnbench.errors import UserError


class Seq2SeqLM(ServedLM):
    """An encoder-decoder for lm-eval's evaluator. Tokenised sources are kept for the methods that follow."""

    def __init__(self, tokenizer: Any) -> None:
        super().__init__()
        self.tokenizer = tokenizer
        self._ids: dict[tuple[str, bool], list[int]] = {}

    def translate(self, requests: Sequence[Any]) -> list[str]:
        """Return each source's translation, by greedy decoding or a beam. Raises UserError."""
        if self.model.training:
            raise RuntimeError("the model is in training mode: its dropout would be measured too")
        self.check(requests)
        found = [""] * len(requests)
        done = 0
        for settings in dict.fromkeys(request.args[1] for request in requests):
            asked = [k for k, request in enumerate(requests) if request.args[1] == settings]
            for chosen in self.batches([requests[k].args[0] for k in asked]):
                places = [asked[k] for k in chosen]
                batch = self.collate([requests[k].args[0] for k in places])
                with torch.no_grad(), one_text(self.model):
                    made = self.model.generate(
                        **{name: value.to(self._device) for name, value in batch.items()},
                        **dict(settings), max_length=None, do_sample=False, use_cache=True,
                        **stopping(self.model, self.tokenizer),
                    )  # fmt: skip
                texts = self.tokenizer.batch_decode(made, skip_special_tokens=True)
                for place, text in zip(places, texts, strict=True):
                    found[place] = text.strip()
                done += len(places)
                if self.progress is not None:
                    self.progress(done)
        return found

    def gap(self, texts: Sequence[tuple[str, str]]) -> float:
        """Return by how much padding changes the answers to (source, target) (see `alone`)."""
        lengths = [len(self.encode([source])[0]) for source, _ in texts]
        short, long = alone.extremes(texts, lengths)
        return max(alone.gap(self._logits, short, long), alone.gap(self._first, short, long))

    def _logits(self, texts: Sequence[tuple[str, str]]) -> list[Tensor]:
        batch = self.collate([source for source, _ in texts], [target for _, target in texts])
        with torch.no_grad():
            logits = self.model(**{name: value.to(self._device) for name, value in batch.items()}).logits
        return [line[mask.bool()] for line, mask in zip(logits, batch["decoder_attention_mask"], strict=True)]

    def _first(self, texts: Sequence[tuple[str, str]]) -> Sequence[Tensor]:
        """Return the logits of the first token that is written (texts, vocabulary)."""
        batch = self.collate([source for source, _ in texts])
        with torch.no_grad(), one_text(self.model):
            made = self.model.generate(
                **{name: value.to(self._device) for name, value in batch.items()},
                max_new_tokens=1, max_length=None, do_sample=False, num_beams=1, output_logits=True,
                return_dict_in_generate=True, **stopping(self.model, self.tokenizer),
            )  # fmt: skip
        return list(made.logits[0])

    def _refuse(self, requests: Sequence[Any]) -> Any:
        raise UserError(
            f"task '{requests[0].task_name}' asks for what a decoder alone answers: for an encoder-decoder "
            "choose a translation task, such as multi30k or pocket-translation"
        )

    loglikelihood = loglikelihood_rolling = generate_until = _refuse

    def check(self, requests: Sequence[Any]) -> None:
        """Raise UserError where special tokens are missing, or the model takes less than what is asked."""
        for name, use in (("pad", "batches cannot be made"), ("eos", "what it writes would have no end")):
            if getattr(self.tokenizer, f"{name}_token_id") is None:
                raise UserError(f"the model's tokenizer has no {name} token: {use}")
        found = limits.of(self.model)
        rows = self.rows(requests)
        short = limits.longest(self.model, self.tokenizer)
        lengths, task = [len(ids) for ids in rows], requests[0].task_name
        over = [k for k, length in enumerate(lengths) if length > short]
        if over:
            raise UserError(
                f"{limits.where(requests[over[0]])}: {len(over)} of {len(lengths)} sources of task "
                f"'{task}' have over {short} tokens, what the model takes (the longest: {max(lengths)}). "
                "Leave them out, or choose a model that takes more."
            )
        limits.require_tokens(
            self.model, self.tokenizer, None, requests, [[Row(np.asarray(ids))] for ids in rows], ()
        )
        wanted = max(dict(request.args[1])["max_new_tokens"] for request in requests)
        if found.decoder is not None and wanted >= found.decoder:
            raise UserError(
                f"task '{task}' asks for up to {wanted} new tokens, the model has {found.decoder} positions. "
                "Lower max_new_tokens in its YAML's metadata.generation."
            )

    def rows(self, requests: Sequence[Any]) -> list[list[int]]:
        """Return each request's source tokens."""
        return self.encode([request.args[0] for request in requests])

    def encode(self, texts: Sequence[str], target: bool = False) -> list[list[int]]:
        """Return the tokens of sources, or of targets, tokenising those not seen before."""
        new = [text for text in dict.fromkeys(texts) if (text, target) not in self._ids]
        if new:
            found = self.tokenizer(**{"text_target" if target else "text": new}, verbose=False)["input_ids"]
            self._ids.update(zip(((text, target) for text in new), found, strict=True))
        return [self._ids[text, target] for text in texts]

    def batches(self, sources: Sequence[str]) -> Iterator[list[int]]:
        """Yield the numbers of the sources of each batch, the longest first."""
        lengths = [len(ids) for ids in self.encode(sources)]
        order = sorted(range(len(lengths)), key=lambda k: -lengths[k])
        for start, stop in cuts([lengths[k] for k in order], self.batch_size, self.batch_tokens):
            yield order[start:stop]

    def collate(self, sources: Sequence[str], targets: Sequence[str] | None = None) -> dict[str, Tensor]:
        """Pad sources to one batch, with targets as labels: each tensor is (rows, tokens)."""
        ids, mask = padded(self.encode(sources), self.tokenizer.pad_token_id)
        batch = {"input_ids": ids, "attention_mask": mask}
        if targets is not None:
            batch["labels"], batch["decoder_attention_mask"] = padded(self.encode(targets, True), IGNORED)
        return batch
