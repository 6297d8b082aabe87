"""Attend in tiles: a few examples, all heads, whole rows, small enough to stay in the cache."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional

from attnbench.engine.places.blocks import Block, Rows, blocks, cut, evicted, within
from attnbench.engine.serving.applied import Skip
from attnbench.engine.serving.cutting import Cutting, Hide
from attnbench.engine.serving.scored import Scratch, Stages, Tile, context_of
from attnbench.engine.serving.shown import Shown
from attnbench.methods.protocol import Site

# scores of examples that share a tile: about half the L2 cache of a CPU core
TILE_BYTES = {"cpu": 1 << 20, "cuda": 1 << 28}
LONGEST = 2.5  # an example is cut into rows only above so many times that: every tile has its overhead
ROWS = 48  # of long rows, up to 4 times more for so many: fewer would read all keys and values too often


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
    rows: Sequence[Rows] | None = None,
    position_bias: Tensor | None = None,
    softcap: float | None = None,
    cutting: Cutting | None = None,
    shown: Shown | None = None,
    skip: Skip | None = None,
) -> Tensor:
    """Return the context (batch, queries, heads, head_dim) of one attention call.

    Queries, keys and values are (batch, heads, tokens, head_dim). Padding is no part of any
    tile; a query that is padding gets zeros. `rows` tells a cross-attention each example's queries that are
    no padding. Keys that a window's cache has lost are hidden ones. `cutting` tells what is left of prompts,
    `shown` gets the probabilities, `skip` attends in place of stages that hide the same of every text.
    """
    heads = query.shape[1]
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    scored = stages.on_scores() or softcap is not None or shown is not None
    budget = TILE_BYTES.get(query.device.type, TILE_BYTES["cpu"])
    found = blocks(site.kind, query, key, mask, causal)
    if rows is not None:
        found = within(found, rows)
    if lost := evicted(site.kind, mask):
        key, value = (functional.pad(x, (0, 0, lost, 0)) for x in (key, value))
        position_bias = None if position_bias is None else functional.pad(position_bias, (lost, 0))
        if cutting is not None:
            cutting.lost = lost
    if shown is not None:
        shown.begin(query, key)
    if stages.queries or stages.keys or stages.values:
        query, key, value = _entering(site, stages, found, query, key, value)
    output = query.new_empty(query.shape[0], query.shape[2], heads, value.shape[3])
    if sum((b := block.shape())[0] * b[1] for block in found) < output.shape[0] * output.shape[1]:
        output.zero_()
    pieces = (
        ((block, None) for block in found) if cutting is None else cutting.pieces(found, query, key, value)
    )
    if skip is not None:
        plain = not (dropout or softcap is not None or position_bias is not None or query.requires_grad)
        if not plain or shown is not None or stages.hiding() != skip.terms:
            skip = None
    for block, left in pieces:
        if skip is not None and left is None and skip(block, query, key, value, scale, output):
            continue
        examples, queries, keys = block.shape()
        row_bytes = heads * keys * query.element_size()
        at_once = queries if stages.whole or not scored else evenly(queries, _rows(row_bytes, budget))
        together = max(1, budget // (row_bytes * queries)) if scored else examples
        for part in block.part(together, at_once):
            at = Site(
                site.path, site.kind, site.layer, heads, site.head_dim, part.visible, part.offset,
                range(part.examples.start, part.examples.stop),
            )  # fmt: skip
            q = query[part.examples, :, part.queries]
            if left is None:
                k, v = key[part.examples, :, part.keys], value[part.examples, :, part.keys]
            else:
                k, v = (x[:, :, : part.keys.stop - part.keys.start] for x in (left.keys, left.values))
            shift = cut(position_bias, part.examples, part.queries, part.keys)
            if part.bias is not None:
                shift = part.bias if shift is None else shift + part.bias
            own = stages if shown is None else shown.within(stages, part)
            tile = Tile(at, own, q, k, v, scale, shift, softcap, dropout)
            if left is not None and left.hidden is not None:
                tile = _hiding(tile, left.hidden[..., : k.shape[2]], scored)
            context = context_of(tile, scratch) if scored else _fused(tile, part.causal)
            for stage in stages.context:
                context = stage(context, at)
            output[part.examples, part.queries] = context.transpose(1, 2)
    if shown is not None and shown.probs is not None:
        shown.probs = shown.probs[..., lost:]
    return output


def _entering(
    site: Site, stages: Stages, found: Sequence[Block], query: Tensor, key: Tensor, value: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Run the stages on queries, keys and values, padding left out."""
    query, key, value = (
        tensor.clone() if wanted else tensor
        for tensor, wanted in ((query, stages.queries), (key, stages.keys), (value, stages.values))
    )
    for block in found:
        at = Site(site.path, site.kind, site.layer, query.shape[1], site.head_dim, None, block.offset)
        for tensor, stage_list, tokens in (
            (query, stages.queries, block.queries),
            (key, stages.keys, block.keys),
            (value, stages.values, block.keys),
        ):
            for stage in stage_list:
                given = tensor[block.examples, :, tokens].clone()
                tensor[block.examples, :, tokens] = stage(given, at)
    return query, key, value


def _hiding(tile: Tile, hidden: Tensor, scored: bool) -> Tile:
    """Hide keys (1, heads, 1, keys): before the stages on scores, or in the mask of the fused kernel."""
    if scored:
        stages = replace(tile.stages, scores=[Hide(hidden), *tile.stages.scores])
        return replace(tile, stages=stages)
    away = tile.q.new_zeros(hidden.shape).masked_fill_(hidden, -torch.inf)
    return replace(tile, shift=away if tile.shift is None else tile.shift + away)


def _rows(row_bytes: int, budget: int) -> int:
    most = int(LONGEST * budget) // row_bytes
    return most if most >= ROWS else min(ROWS, 4 * most)


def evenly(total: int, most: int) -> int:
    """Return the size of parts, at most `most` but at least 1, that leave no small rest of a total."""
    return -(-total // -(-total // max(1, most)))


def _fused(tile: Tile, causal: bool) -> Tensor:
    visible, shift, k, v = tile.site.visible, tile.shift, tile.k, tile.v
    # the kernel passes over what no query sees, which it does not by a mask
    triangle = causal and tile.site.offset == 0 and shift is None
    if triangle:
        k, v = k[:, :, : tile.q.shape[2]], v[:, :, : tile.q.shape[2]]
    if (groups := tile.q.shape[1] // k.shape[1]) > 1:
        k, v = (x[:, :, None].expand(-1, -1, groups, -1, -1).flatten(1, 2) for x in (k, v))
    mask = None if triangle else visible
    if shift is not None:
        mask = shift if visible is None else shift.masked_fill(~visible, torch.finfo(shift.dtype).min)
    context = functional.scaled_dot_product_attention(
        tile.q, k, v, attn_mask=mask, dropout_p=tile.dropout, is_causal=triangle, scale=tile.scale
    )
    if triangle or visible is None:
        return context
    return context.masked_fill(~visible.any(-1, keepdim=True), 0)
