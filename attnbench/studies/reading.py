"""Texts as samples, and samples as batches without padding: what a study reads a model with."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from attnbench.backends.encoders import limits
from attnbench.errors import NotApplicable, UserError
from attnbench.methods.views import Batch, Measured, Sample, Tokens

TOKENS = 2048  # a batch
WRITTEN = 64  # tokens at most that an encoder-decoder writes itself where no target is given


class Reading:
    """The `Data` of one model: it tokenises texts as the model reads them and makes batches of them.

    Only samples of the same length share a batch, so that there is no padding: nothing depends on it.
    """

    def __init__(
        self, model: Any, tokenizer: Any, device: str = "cpu", seed: int = 0, max_length: int | None = None
    ) -> None:
        self.model, self.tokenizer, self.device, self.seed = model, tokenizer, device, seed
        self.max_length = max_length
        self.given: Sequence[Sample] = ()
        self.writes = bool(getattr(model.config, "is_encoder_decoder", False))
        self.learning: Callable[[], list[dict[str, Tensor]]] | None = None
        self.measuring: Callable[[], Measured] | None = None
        self._count = itertools.count()

    def sample(self, text: str, pair: str | None = None, *, target: bool = True, **about: Any) -> Sample:
        """Tokenise a text, or a pair, as the model reads it. Raises UserError where it is too long.

        Without `target` an encoder-decoder writes nothing: enough for what looks at the encoder alone.
        """
        return self._encoded(text if pair is None else f"{text} {pair}", about, text, pair, target=target)

    def words(self, words: Sequence[str], **about: Any) -> Sample:
        """Tokenise a sentence that is split into words: `source.words` tells whose part each token is.

        Raises UserError for a tokenizer that cannot tell.
        """
        if not getattr(self.tokenizer, "is_fast", False):
            raise UserError(
                f"the model's tokenizer, a {type(self.tokenizer).__name__}, is in Python: it does not say "
                "which word a token is of. Take a model with a tokenizer.json."
            )
        return self._encoded(" ".join(words), about, list(words), None, is_split_into_words=True)

    def tokens(self, ids: Sequence[int], **about: Any) -> Sample:
        """Take tokens as they are: nothing is added."""
        found = np.asarray(ids, dtype=np.int64)
        return self._sample(self._plain(found), self.tokenizer.decode(found), about)

    def _encoded(
        self, text: str, about: dict[str, Any], *given: Any, target: bool = True, **options: Any
    ) -> Sample:
        fast = getattr(self.tokenizer, "is_fast", False)
        cut = {} if self.max_length is None else {"truncation": True, "max_length": self.max_length}
        found = self.tokenizer(
            *given, return_special_tokens_mask=True, return_offsets_mapping=fast, verbose=False,
            **cut, **options,
        )  # fmt: skip
        plain = self._plain(np.asarray(found["input_ids"], dtype=np.int64))
        words = [-1 if word is None else word for word in found.word_ids()] if fast else None
        tokens = Tokens(
            plain.ids,
            plain.special | (np.asarray(found["special_tokens_mask"]) == 1),
            plain.names,
            np.asarray(found["offset_mapping"]) if fast else None,
            None if words is None else np.asarray(words),
        )
        if "token_type_ids" in found and "token_type_ids" in self.tokenizer.model_input_names:
            about = {**about, "types": np.asarray(found["token_type_ids"])}
        return self._sample(tokens, text, about, target)

    def _plain(self, ids: np.ndarray) -> Tokens:
        special = np.isin(ids, self.tokenizer.all_special_ids)
        return Tokens(ids, special, tuple(map(str, self.tokenizer.convert_ids_to_tokens(ids.tolist()))))

    def _sample(self, source: Tokens, text: str, about: dict[str, Any], decoded: bool = True) -> Sample:
        most, count = limits.longest(self.model, self.tokenizer), len(source.ids)
        if not count:
            raise UserError("a text without a token: give one with words")
        if count > most:
            raise UserError(
                f"text {text[:40]!r} has {count} tokens, the model takes {most}: cut it with "
                f"--max-length {most}, or choose a model that takes more"
            )
        target = self._written(source) if self.writes and decoded else None
        return Sample(next(self._count), source, target, text, about)

    def _written(self, source: Tokens) -> Tokens:
        """Return what the dense model itself writes for a source, as its decoder reads it."""
        ids = torch.from_numpy(source.ids)[None].to(self.device)
        if not self.model.can_generate():
            start = self.model.config.decoder_start_token_id
            return self._plain(np.concatenate([[start], source.ids[:-1]]))
        with torch.no_grad():
            found = self.model.generate(
                input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=WRITTEN, max_length=None,
                num_beams=1, do_sample=False,
            )  # fmt: skip
        return self._plain(found[0, :-1].cpu().numpy())

    def taken(self, inputs: dict[str, Tensor], number: int = 0) -> Batch:
        """Return a model's inputs as they are, padding and all, with what their samples are."""
        return Batch(inputs, tuple(self._rows(inputs, number)))

    def _rows(self, inputs: dict[str, Tensor], number: int) -> Iterator[Sample]:
        ids = inputs["input_ids"]
        shown = inputs.get("attention_mask", torch.ones_like(ids)).bool()
        targets, kept = targets_of(self.model, inputs) if self.writes else (None, None)
        for k in range(len(ids)):
            source = self._plain(ids[k][shown[k]].cpu().numpy())
            about = (
                {"types": inputs["token_type_ids"][k][shown[k]].cpu().numpy()}
                if "token_type_ids" in inputs
                else {}
            )
            target = None
            if targets is not None and kept is not None:
                target = self._plain(targets[k][kept[k]].cpu().numpy())
            text = self.tokenizer.decode(source.ids[~source.special])
            yield Sample(number + k, source, target, text, about)

    def batches(self, samples: Sequence[Sample], size: int | None = None) -> Iterator[Batch]:
        """Make batches of samples that have the same number of tokens, the longest first."""
        ordered = sorted(samples, key=lambda each: [-n for n in self._alike(each)])
        for (length, *_), alike in itertools.groupby(ordered, key=self._alike):
            most = size or max(1, TOKENS // length)
            same = list(alike)
            for start in range(0, len(same), most):
                part = tuple(same[start : start + most])
                yield Batch(self._inputs(part), part)

    def calibration(self) -> list[dict[str, Tensor]]:
        """Return the batches that methods learn from. Raises NotApplicable where there are none."""
        if self.learning is None:
            raise NotApplicable("it learns from a task's samples, and here is none")
        return self.learning()

    def measured(self) -> Measured:
        """Evaluate the task that was given, with the model as it is. Raises NotApplicable where none was."""
        if self.measuring is None:
            raise NotApplicable("it measures a task, and here is none: give --tasks")
        return self.measuring()

    def _alike(self, sample: Sample) -> tuple[int, int, int]:
        """Return what the samples of a batch share; a classifier of BART's kind also wants as many ends."""
        ends = 0
        if sample.target is not None and not self.model.can_generate():
            ends = int((sample.source.ids == self.model.config.eos_token_id).sum())
        return len(sample.source.ids), 0 if sample.target is None else len(sample.target.ids), ends

    def _inputs(self, part: Sequence[Sample]) -> dict[str, Tensor]:
        def stacked(rows: Sequence[np.ndarray]) -> Tensor:
            return torch.from_numpy(np.stack(rows)).to(self.device)

        ids = stacked([each.source.ids for each in part])
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        if all("types" in each.about for each in part):
            inputs["token_type_ids"] = stacked([each.about["types"] for each in part])
        targets = [each.target.ids for each in part if each.target is not None]
        if targets and self.model.can_generate():
            inputs["decoder_input_ids"] = stacked(targets)
            inputs["decoder_attention_mask"] = torch.ones_like(inputs["decoder_input_ids"])
        return inputs


def targets_of(model: Any, inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Return what an encoder-decoder's decoder reads, and which of it is no padding: (batch, tokens) each."""
    if "decoder_input_ids" in inputs:
        ids = inputs["decoder_input_ids"]
    elif "labels" in inputs and inputs["labels"].dim() == 2:
        ids = model.prepare_decoder_input_ids_from_labels(inputs["labels"])
    else:  # a classifier of BART's kind reads its text there too
        ids = inputs["input_ids"].roll(1, 1)
        ids[:, 0] = model.config.decoder_start_token_id
    kept = inputs.get("decoder_attention_mask", torch.ones_like(ids)).bool()
    return ids, kept
