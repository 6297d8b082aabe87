"""Attend in tiles: a few examples, all heads, whole rows, small enough to stay in the cache."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.weak import WeakTensorKeyDictionary

from attnbench.method import Site
from attnbench.sites import visible_in

TILE_BYTES = {
    "cpu": 1 << 20,
    "cuda": 1 << 28,
}  # scores in one tile; on a CPU they should stay in the L2 cache
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


@dataclass
class Block:
    """Examples that share a range of queries and keys without padding.

    `visible` is (batch, 1, queries, keys), None where every query sees every key; `bias` what a mask adds beyond that.
    """

    examples: slice
    queries: slice
    keys: slice
    offset: int = 0
    visible: Tensor | None = None
    bias: Tensor | None = None

    def shape(self) -> tuple[int, int, int]:
        return tuple(part.stop - part.start for part in (self.examples, self.queries, self.keys))  # type: ignore[return-value]

    def part(self, examples: int, queries: int) -> Iterator[Block]:
        """Cut into tiles of at most so many examples and queries."""
        for first in range(self.examples.start, self.examples.stop, examples):
            for row in range(self.queries.start, self.queries.stop, queries):
                last, end = min(first + examples, self.examples.stop), min(row + queries, self.queries.stop)
                rows = slice(row - self.queries.start, end - self.queries.start)
                yield Block(
                    slice(first, last),
                    slice(row, end),
                    self.keys,
                    self.offset + rows.start,
                    _cut(
                        self.visible,
                        slice(first - self.examples.start, last - self.examples.start),
                        rows,
                        slice(None),
                    ),
                    _cut(
                        self.bias,
                        slice(first - self.examples.start, last - self.examples.start),
                        rows,
                        slice(None),
                    ),
                )


def _cut(tensor: Tensor | None, examples: slice, queries: slice, keys: slice) -> Tensor | None:
    """Slice (batch, heads, queries, keys), where the batch may be 1 for all."""
    return None if tensor is None else tensor[examples if len(tensor) > 1 else slice(None), :, queries, keys]


_blocks: WeakTensorKeyDictionary = (
    WeakTensorKeyDictionary()
)  # a mask -> its blocks: all layers of a forward share one


def blocks(kind: str, query: Tensor, key: Tensor, mask: Tensor | None, causal: bool) -> list[Block]:
    """Find the padding: which queries and keys of which examples belong together."""
    batch, queries, keys = query.shape[0], query.shape[2], key.shape[2]
    if mask is None:
        offset = keys - queries if kind == "decoder" else 0
        visible = None
        if causal and queries > 1:
            visible = torch.ones(queries, keys, dtype=torch.bool, device=query.device).tril(keys - queries)[
                None, None
            ]
        return [Block(slice(0, batch), slice(0, queries), slice(0, keys), offset, visible)]
    version = 0 if mask.is_inference() else mask._version
    case = (kind, batch, queries, keys, version)
    known = _blocks.get(mask)
    if known is None or known[0] != case:
        known = _blocks[mask] = (
            case,
            list(_merged(_read(kind, queries, mask[..., :keys].expand(batch, -1, queries, -1)))),
        )
    return known[1]


def _read(kind: str, queries: int, mask: Tensor) -> Iterator[Block]:
    visible = visible_in(mask)
    additive = mask.dtype != torch.bool and bool(((mask != 0) & visible).any())
    seen = visible.flatten(1, 2).any(1)  # (batch, keys)
    keys = seen.shape[1]
    first = seen.to(torch.uint8).argmax(1)
    last = keys - seen.flip(1).to(torch.uint8).argmax(1)
    # the first query that sees the last key stands at that key
    sees_last = (
        visible.any(1).gather(2, (last - 1)[:, None, None].expand(-1, queries, 1)).squeeze(2)
    )  # (batch, queries)
    row = sees_last.to(torch.uint8).argmax(1)
    for example, (start, stop, any_key, at) in enumerate(
        zip(*(x.tolist() for x in (first, last, seen.any(1), row)), strict=True)
    ):
        if not any_key:
            continue
        position = stop - 1 - at if kind == "decoder" else 0  # of query 0 among the uncut keys
        low, high = 0, queries
        if kind == "decoder" or (kind == "encoder" and queries == keys):
            low, high = max(0, start - position), max(0, min(queries, stop - position))
        if low >= high:
            continue
        part = visible[example : example + 1, :, low:high, start:stop]
        yield Block(
            slice(example, example + 1),
            slice(low, high),
            slice(start, stop),
            position + low - start if kind == "decoder" else 0,
            None if bool(part.all()) else part,
            mask[example : example + 1, :, low:high, start:stop] if additive else None,
        )


def _merged(singles: Iterator[Block]) -> Iterator[Block]:
    """Join neighbouring examples of one range."""
    group: list[Block] = []
    for block in singles:
        if group and not _alike(group[-1], block):
            yield _join(group)
            group = []
        group.append(block)
    if group:
        yield _join(group)


def _alike(a: Block, b: Block) -> bool:
    same = (a.queries, a.keys, a.offset) == (
        b.queries,
        b.keys,
        b.offset,
    ) and a.examples.stop == b.examples.start
    return same and (a.visible is None) == (b.visible is None) and (a.bias is None) == (b.bias is None)


def _join(group: list[Block]) -> Block:
    def cat(name: str) -> Tensor | None:
        parts = [getattr(block, name) for block in group]
        return None if parts[0] is None else parts[0] if len(parts) == 1 else torch.cat(parts)

    return replace(
        group[0],
        examples=slice(group[0].examples.start, group[-1].examples.stop),
        visible=cat("visible"),
        bias=cat("bias"),
    )


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
    position_bias: Tensor | None = None,
    softcap: float | None = None,
) -> Tensor:
    """Return the context (batch, queries, heads, head_dim) of queries, keys and values (batch, heads, tokens, head_dim).

    Padding is no part of any tile; a query that is padding gets zeros.
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
        at_once = queries if stages.whole or not scored else min(queries, max(1, budget // row_bytes))
        together = max(1, budget // (row_bytes * queries)) if scored else examples
        for tile in block.part(together, at_once):
            at = Site(site.path, site.kind, site.layer, heads, site.head_dim, tile.visible, tile.offset)
            q, k, v = (
                query[tile.examples, :, tile.queries],
                key[tile.examples, :, tile.keys],
                value[tile.examples, :, tile.keys],
            )
            if groups > 1:
                k, v = (x[:, :, None].expand(-1, -1, groups, -1, -1).flatten(1, 2) for x in (k, v))
            shift = _cut(position_bias, tile.examples, tile.queries, tile.keys)
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
        scores = scores + shift if scores.requires_grad or shift.requires_grad else scores.add_(shift)
    hidden = None if site.visible is None else ~site.visible
    lowest = torch.finfo(scores.dtype).min
    scores = _fill(scores, hidden, lowest)
    for stage in stages.scores:
        scores = stage(scores, site)
    if stages.scores:
        gone = scores.isneginf()
        hidden = gone if hidden is None else gone | hidden
        scores = _fill(scores, hidden, lowest)
    if stages.normalize is not None:
        probs = stages.normalize(scores, site)
    elif scores.requires_grad:
        probs = scores.softmax(-1)
    else:
        probs = torch.softmax(scores, -1, out=scores)
    probs = _fill(probs, hidden, 0)
    if stages.uniform and hidden is not None:
        seen = torch.ones_like(hidden) if site.visible is None else site.visible.expand_as(hidden)
        lost = hidden.all(-1, keepdim=True) & seen
        probs = probs + lost.to(probs.dtype) / seen.sum(-1, keepdim=True).clamp(min=1)
        hidden = hidden & ~lost
    for stage in stages.probs:
        probs = _fill(stage(probs, site), hidden, 0)
    if dropout:
        probs = functional.dropout(probs, dropout)
    return torch.bmm(probs.reshape(-1, *shape[2:]), flat[2]).view(*shape[:3], v.shape[3])


def _fill(tensor: Tensor, where: Tensor | None, value: float) -> Tensor:
    if where is None:
        return tensor
    return tensor.masked_fill(where, value) if tensor.requires_grad else tensor.masked_fill_(where, value)
