"""The attention of a batch as tensors, shaped as bertviz and CircuitsVis take it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from attnbench.engine.places.sites import discover
from attnbench.engine.serving.attention import watch
from attnbench.methods.views import TEXT, Batch
from attnbench.studies.passes import DENSE, Pass
from attnbench.studies.reading import Reading

NAMES = {"encoder": "encoder_attention", "decoder": "decoder_attention", "cross": "cross_attention"}


class Ids:
    """A tokenizer of ids alone: each is named by its number."""

    is_fast, model_max_length = False, 10**9

    def __init__(self, special: Sequence[int] = ()) -> None:
        self.all_special_ids = list(special)

    def convert_ids_to_tokens(self, ids: Sequence[int]) -> list[str]:
        """Return a name for each id."""
        return [str(each) for each in ids]

    def decode(self, ids: Any) -> str:
        """Return the names in a row."""
        return " ".join(str(int(each)) for each in ids)


def attention(model: nn.Module, batch: Mapping[str, Tensor]) -> dict[str, list[Tensor]]:
    """Return the attention of a batch: of every layer that attends one tensor (batch, heads, queries, keys).

    It is what was used, after the methods of the `apply` blocks around the call; 0 where a query sees
    nothing, and at padding. The names are bertviz's: `attention`, or of an encoder-decoder
    `encoder_attention`, `decoder_attention`, `cross_attention`. Layers are in order; one that does not attend
    is not in the list.

    >>> bertviz.head_view(**attention(model, batch), tokens=tokens)  # doctest: +SKIP
    >>> attention_heads(attention(model, batch)["attention"][3][0], tokens)  # CircuitsVis  # doctest: +SKIP

    Raises UserError for an architecture that is not supported. Source: the arguments of
    https://github.com/jessevig/bertviz and https://github.com/TransformerLensOrg/CircuitsVis.
    """
    places = {(site.kind, site.layer): site.heads for site in discover(model)}
    taken = Reading(model, Ids()).taken(dict(batch))
    one = Pass(TEXT, DENSE, taken, 1, [])
    spans = {kind: one.spans(kind) for kind, _ in places}
    found: dict[tuple[str, int], Tensor] = {}

    def see(probs: Tensor, site: Any) -> None:
        key = site.kind, site.layer
        if key not in found:
            rows, columns = (_width(taken, site.kind, side) for side in ("queries", "keys"))
            found[key] = probs.new_zeros(len(taken.samples), places[key], rows, columns)
        across = spans["encoder" if site.kind == "cross" else site.kind]
        for k, example in enumerate(site.examples):
            first, left = spans[site.kind][example][0] + site.offset, across[example][0]
            found[key][example, :, first : first + probs.shape[2], left : left + probs.shape[3]] = probs[k]

    with torch.no_grad(), watch(model, probs=see):
        model(**batch)
    several = len({kind for kind, _ in places}) > 1
    named: dict[str, list[Tensor]] = {}
    for kind, layer in sorted(places):
        named.setdefault(NAMES[kind] if several else "attention", []).append(found[kind, layer])
    return named


def _width(batch: Batch, kind: str, side: str) -> int:
    """Return how many tokens a batch has there, padding among them."""
    source = kind == "encoder" or (kind == "cross" and side == "keys") or batch.samples[0].target is None
    if not source and "decoder_input_ids" in batch.inputs:
        return int(batch.inputs["decoder_input_ids"].shape[1])
    if not source and batch.inputs.get("labels", torch.zeros(0)).dim() == 2:
        return int(batch.inputs["labels"].shape[1])
    return int(batch.inputs["input_ids"].shape[1])
