"""Attend to what a plan has left, one example at a time: plain products of a few keys with their queries."""

from __future__ import annotations

import threading

import torch
from torch import Tensor

from attnbench.engine.places.blocks import Block
from attnbench.engine.realised import flexible
from attnbench.engine.realised.plans import PIECE, Ends, Plan


class Room(threading.local):
    """Memory of each thread that the tiles of all layers use one after the other: new memory is slow."""

    def __init__(self) -> None:
        self.held: dict[tuple[object, ...], Tensor] = {}

    def of(self, name: str, like: Tensor, *shape: int) -> Tensor:
        size, key = torch.Size(shape).numel(), (name, like.device, like.dtype)
        if key not in self.held or self.held[key].numel() < size:
            self.held[key] = like.new_empty(size)
        return self.held[key][:size].view(shape)


def attend(
    plan: Plan,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    scale: float,
    uniform: bool,
    room: Room,
    out: Tensor,
) -> None:
    """Write the context (heads, queries, head_dim) of one example into `out`.

    Queries are (heads, queries, head_dim), keys and values (key-value heads, keys, head_dim); `uniform` says
    that a query with nothing left attends to all that it sees, else it gets zeros.
    """
    heads, queries, dim = query.shape
    query = torch.mul(query, scale, out=room.of("scaled", query, heads, queries, dim))
    if plan.size:
        key, value = _whole(key, plan.size, "key", room), _whole(value, plan.size, "value", room)
    if plan.mask is not None:
        context = flexible.attend(plan, query, key, value)
    else:
        context = (_strips if plan.strips else _bunches)(plan, query, key, value, room)
    if len(plan.lost):
        width = context.shape[2]
        rows = _means(plan, value, room) if uniform else value.new_zeros(len(plan.lost), width)
        extra = context.shape[1] - queries  # rows of the last blocks
        at = plan.lost + plan.lost // queries * extra if extra else plan.lost
        context.view(-1, width).index_copy_(0, at, rows)
    out.copy_(context[:, :queries])
    if plan.blind is not None:
        out.masked_fill_(plan.blind[:, None], 0)


def attend_block(
    plan: Plan,
    block: Block,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    scale: float,
    uniform: bool,
    room: Room,
    out: Tensor,
) -> None:
    """Write the context of a block's examples, one by one, into `out` (batch, queries, heads, head_dim)."""
    q, k, v = (
        x[block.examples, :, tokens]
        for x, tokens in ((query, block.queries), (key, block.keys), (value, block.keys))
    )
    for example, into in enumerate(out[block.examples, block.queries]):
        attend(plan, q[example], k[example], v[example], scale, uniform, room, into.transpose(0, 1))


def _strips(plan: Plan, query: Tensor, key: Tensor, value: Tensor, room: Room) -> Tensor:
    heads, queries, dim = query.shape
    groups, width = heads // len(key), value.shape[2]
    context = room.of("context", query, heads, queries, width)
    for strip in plan.strips:
        rows = strip.stop - strip.start
        if isinstance(strip.keys, slice):
            k, v = key[:, strip.keys], value[:, strip.keys]
        else:
            k, v = key.index_select(1, strip.keys), value.index_select(1, strip.keys)
        q = query[:, strip.start : strip.stop].reshape(len(key), groups * rows, dim)
        scores = room.of("scores", query, len(key), groups * rows, k.shape[1])
        if strip.shift is None:
            torch.bmm(q, k.mT, out=scores)
        else:
            shift = strip.shift.to(scores.dtype)
            shift = (shift if groups == 1 else shift.repeat(groups, 1)).expand_as(scores)
            torch.baddbmm(shift, q, k.mT, out=scores)
        torch.softmax(scores, -1, out=scores)
        found = torch.bmm(scores, v, out=room.of("found", query, len(key), groups * rows, width))
        context[:, strip.start : strip.stop] = found.view(heads, rows, width)
    return context


def _bunches(plan: Plan, query: Tensor, key: Tensor, value: Tensor, room: Room) -> Tensor:
    size, (heads, _, dim), width = plan.size, query.shape, value.shape[2]
    query = _whole(query, size, "query", room)
    q, k, v = (x.view(-1, size * x.shape[2]) for x in (query, key, value))
    context = room.of("context", query, len(q), size * width)
    for bunch in plan.bunches:
        count = len(bunch.rows)
        wide = len(bunch.columns) // count * size
        keys, values = (
            torch.index_select(x, 0, bunch.columns, out=room.of(name, x, len(bunch.columns), x.shape[1]))
            for name, x in (("keys", k), ("values", v))
        )
        own = torch.index_select(q, 0, bunch.rows, out=room.of("queries", q, count, q.shape[1]))
        scores = room.of("scores", query, count, size, wide)
        torch.bmm(own.view(count, size, dim), keys.view(count, wide, dim).mT, out=scores)
        if bunch.shift is not None:
            scores[..., wide - bunch.shift.shape[2] :] += bunch.shift.to(scores.dtype)
        torch.softmax(scores, -1, out=scores)
        found = room.of("found", query, count, size, width)
        torch.bmm(scores, values.view(count, wide, width), out=found)
        context.index_copy_(0, bunch.rows, found.view(count, -1))
    return context.view(heads, -1, width)


def _whole(tokens: Tensor, size: int, name: str, room: Room) -> Tensor:
    """Fill up (heads, tokens, dim) to whole blocks, one after the other in memory."""
    heads, count, dim = tokens.shape
    over = -count % size
    if not over and tokens.is_contiguous():
        return tokens
    filled = room.of(f"whole {name}", tokens, heads, count + over, dim)
    filled[:, :count], filled[:, count:] = tokens, 0
    return filled


def _means(plan: Plan, value: Tensor, room: Room) -> Tensor:
    """Return the means of what queries with nothing left see (lost, head_dim)."""
    high, low = plan.ends
    value = _whole(value, PIECE, "value", room)
    means = _sums(value, high, room.of("means", value, len(plan.lost), value.shape[2]))
    if low is not None:
        means -= _sums(value, low, torch.empty_like(means))
    return means.div_(plan.seen[:, None])


def _sums(value: Tensor, ends: Ends, out: Tensor) -> Tensor:
    """Write the sum of the values before each end: of the pieces before its own, and within that."""
    heads, dim = len(value), value.shape[2]
    pieces = value.view(-1, PIECE, dim)
    sums = pieces.sum(1).view(heads, -1, dim)
    before = (sums.cumsum(1) - sums).view(-1, 1, dim)[ends.wanted]
    within = torch.ones(PIECE, PIECE, dtype=value.dtype, device=value.device).tril()
    within = within.expand(len(ends.wanted), -1, -1)
    found = torch.baddbmm(before, within, pieces[ends.wanted]).view(-1, dim)
    torch.index_select(found, 0, ends.place, out=out)
    return out if ends.none is None else out.masked_fill_(ends.none[:, None], 0)
