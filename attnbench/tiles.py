"""Attend in tiles: a few examples, all heads, whole rows, small enough to stay in the cache."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from attnbench.blocks import blocks, cut
from attnbench.method import Site

# scores in one tile: about the L2 cache of a CPU core; an example is cut into rows only above four times that
TILE_BYTES = {"cpu": 1 << 20, "cuda": 1 << 28}
Stage = Callable[[Tensor, Site], Tensor]


@dataclass
class Stages:
    """What the methods of one site do, in order."""

    scores: list[Stage] = field(default_factory=list)
    normalize: Stage | None = None
    probs: list[Stage] = field(default_factory=list)
    context: list[Stage] = field(default_factory=list)
    whole: bool = False  # a method wants all query rows at once
    uniform: bool = False  # a query with nothing left attends uniformly

    def on_scores(self) -> bool:
        return bool(self.scores or self.normalize or self.probs)


class Scratch:
    """One reused buffer per device and dtype for the scores of a tile."""

    def __init__(self) -> None:
        self._buffers: dict[Any, Tensor] = {}

    def like(self, tensor: Tensor, shape: tuple[int, ...]) -> Tensor:
        size = torch.Size(shape).numel()
        key = tensor.device, tensor.dtype
        if key not in self._buffers or self._buffers[key].numel() < size:
            self._buffers[key] = tensor.new_empty(size)
        return self._buffers[key][:size].view(shape)

    def lent(self) -> list[Tensor]:
        """Return the memory whose views stages were given."""
        return list(self._buffers.values())


def attend(
    site: Site,
    stages: Stages,
    scratch: Scratch,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    *,
    scaling: float | None = None,
    dropout: float = 0.0,
    causal: bool = False,
    past: int = 0,
    position_bias: Tensor | None = None,
    softcap: float | None = None,
) -> Tensor:
    """Return the context (batch, queries, heads, head_dim) of one attention call.

    Queries, keys and values are (batch, heads, tokens, head_dim). Padding is no part of any
    tile; a query that is padding gets zeros. `past` is the offset of a cross-attention's first query.
    """
    heads, groups = query.shape[1], query.shape[1] // key.shape[1]
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    found = blocks(site.kind, query, key, mask, causal)
    output = query.new_empty(query.shape[0], query.shape[2], heads, value.shape[3])
    if sum((b := block.shape())[0] * b[1] for block in found) < output.shape[0] * output.shape[1]:
        output.zero_()
    for block in found:
        examples, queries, keys = block.shape()
        row_bytes = heads * keys * query.element_size()
        budget = TILE_BYTES.get(query.device.type, TILE_BYTES["cpu"])
        scored = stages.on_scores() or softcap is not None
        at_once = queries if stages.whole or not scored else min(queries, max(1, 4 * budget // row_bytes))
        together = max(1, budget // (row_bytes * queries)) if scored else examples
        for tile in block.part(together, at_once):
            at = Site(
                site.path, site.kind, site.layer, heads, site.head_dim, tile.visible, past + tile.offset
            )
            q, k, v = (
                query[tile.examples, :, tile.queries],
                key[tile.examples, :, tile.keys],
                value[tile.examples, :, tile.keys],
            )
            if groups > 1:
                k, v = (x[:, :, None].expand(-1, -1, groups, -1, -1).flatten(1, 2) for x in (k, v))
            shift = cut(position_bias, tile.examples, tile.queries, tile.keys)
            if tile.bias is not None:
                shift = tile.bias if shift is None else shift + tile.bias
            if scored:
                context = _scored(at, stages, scratch, q, k, v, scale, shift, softcap, dropout)
            else:
                context = _fused(at, q, k, v, scale, shift, dropout)
            for stage in stages.context:
                context = stage(context, at)
            output[tile.examples, tile.queries] = context.transpose(1, 2)
    return output


def _fused(
    site: Site, q: Tensor, k: Tensor, v: Tensor, scale: float, shift: Tensor | None, dropout: float
) -> Tensor:
    mask = site.visible
    if shift is not None:
        mask = shift if mask is None else shift.masked_fill(~mask, torch.finfo(shift.dtype).min)
    context = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout, scale=scale)
    if site.visible is not None:
        context = context.masked_fill(~site.visible.any(-1, keepdim=True), 0)
    return context


def _scored(
    site: Site,
    stages: Stages,
    scratch: Scratch,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    scale: float,
    shift: Tensor | None,
    softcap: float | None,
    dropout: float,
) -> Tensor:
    shape = (*q.shape[:3], k.shape[2])
    flat = [x.reshape(-1, *x.shape[2:]) for x in (q, k, v)]
    if torch.is_grad_enabled():
        scores = (torch.bmm(flat[0], flat[1].mT) * scale).view(shape)
    else:
        scores = scratch.like(q, shape)
        buffer = scores.view(-1, *shape[2:])
        torch.baddbmm(buffer, flat[0], flat[1].mT, beta=0, alpha=scale, out=buffer)
    if softcap is not None:
        scores = (scores / softcap).tanh() * softcap
    if shift is not None:
        scores = _add(scores, shift)
    lowest = (
        torch.finfo(scores.dtype).min / 2
    )  # not -inf: a method that scales scores would have NaN gradients
    hidden, kept = None, None
    if site.visible is not None:
        kept = site.visible.to(scores.dtype)
        scores = _add(scores, (1 - kept) * lowest)
    for stage in stages.scores:
        scores = stage(scores, site)
    if stages.scores:
        hidden = scores.isneginf()
        if site.visible is not None:
            hidden |= ~site.visible
        scores = (
            scores.masked_fill(hidden, lowest)
            if scores.requires_grad
            else scores.masked_fill_(hidden, lowest)
        )
        kept = (~hidden).to(scores.dtype)
    if stages.normalize is not None:
        probs = stages.normalize(scores, site)
    elif scores.requires_grad:
        probs = scores.softmax(-1)
    else:
        probs = torch.softmax(scores, -1, out=scores)
    probs = _keep(probs, kept)
    if stages.uniform and hidden is not None and kept is not None:
        seen = torch.ones_like(hidden) if site.visible is None else site.visible.expand_as(hidden)
        lost = (hidden.all(-1, keepdim=True) & seen).to(probs.dtype)
        probs = probs + lost / seen.sum(-1, keepdim=True).clamp(min=1)
        kept = kept + lost
    for stage in stages.probs:
        probs = _keep(stage(probs, site), kept)
    if dropout:
        probs = functional.dropout(probs, dropout)
    return torch.bmm(probs.reshape(-1, *shape[2:]), flat[2]).view(*shape[:3], v.shape[3])


def _add(scores: Tensor, more: Tensor) -> Tensor:
    return scores + more if scores.requires_grad or more.requires_grad else scores.add_(more)


def _keep(probs: Tensor, kept: Tensor | None) -> Tensor:
    """Zero what a query may not see, whatever a method made of it."""
    if kept is None:
        return probs
    return probs * kept if probs.requires_grad else probs.mul_(kept)
