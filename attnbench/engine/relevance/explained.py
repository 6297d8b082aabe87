"""The logit that is explained, of each example: the one that the model would answer by."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from attnbench.errors import NotApplicable

PART_OF_METHODS = True
IGNORED = -100  # of a label: transformers' own
LABELS = ("labels", "start_positions", "end_positions")


def top_logit(output: Any, batch: dict[str, Tensor], causal: bool) -> Tensor:
    """Return the largest logit of each example's answer: (examples,).

    Of a classifier the top class's; of a reader of spans the top start's plus the top end's, among real
    tokens; of a model that predicts tokens the mean over the positions that have a label, or over all real
    ones without labels, of the top token's. Raises NotApplicable for an output that has no logits.
    """
    if getattr(output, "start_logits", None) is not None:
        shown = batch["attention_mask"].bool() if "attention_mask" in batch else None
        ends = [output.start_logits, output.end_logits]
        return sum((_hidden(logits, shown).amax(-1) for logits in ends), torch.zeros(()).to(ends[0]))
    logits = getattr(output, "logits", None)
    if logits is None or logits.dim() not in (2, 3):
        raise NotApplicable(f"{type(output).__name__} has no logit to explain: give a model with a head")
    best = logits.amax(-1)
    if best.dim() == 1:
        return best
    counted = positions(batch, best, causal).to(best.device)
    return best.masked_fill(~counted, 0).sum(-1) / counted.sum(-1).clamp(min=1)


def positions(batch: dict[str, Tensor], like: Tensor, causal: bool) -> Tensor:
    """Tell which positions predict: (examples, positions), True where there is a label, or any real token."""
    labels = batch.get("labels")
    if labels is not None and labels.dim() == 2 and not labels.is_floating_point():
        asked = labels != IGNORED
        return torch.cat([asked[:, 1:], torch.zeros_like(asked[:, :1])], 1) if causal else asked
    mask = batch.get("decoder_attention_mask" if "decoder_input_ids" in batch else "attention_mask")
    return torch.ones_like(like, dtype=torch.bool) if mask is None else mask.bool()


def unlabelled(model: nn.Module, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return what the model reads, its labels aside: of a translation they become the decoder's input."""
    given = {key: value for key, value in batch.items() if key not in LABELS}
    config: Any = model.config
    if config.is_encoder_decoder and "labels" in batch and "decoder_input_ids" not in given:
        shifted: Any = model.prepare_decoder_input_ids_from_labels
        given["decoder_input_ids"] = shifted(labels=batch["labels"])
    return given


def _hidden(logits: Tensor, shown: Tensor | None) -> Tensor:
    return logits if shown is None else logits.masked_fill(~shown, torch.finfo(logits.dtype).min)
