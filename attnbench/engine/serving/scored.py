"""Attend to one tile through its scores: in place, or as autograd needs it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, UntypedStorage
from torch.nn import functional

from attnbench.engine.serving.guard import CacheGuard
from attnbench.methods.protocol import Site

Stage = Callable[[Tensor, Site], Tensor]


class ScoreStage(Protocol):
    """A stage on scores, and whether its empty queries attend uniformly."""

    uniform: bool

    def __call__(self, tensor: Tensor, site: Site, /) -> Tensor: ...


@dataclass
class Stages:
    """What the methods of one site do, in order."""

    queries: list[Stage] = field(default_factory=list)
    keys: list[Stage] = field(default_factory=list)
    values: list[Stage] = field(default_factory=list)
    cache: list[CacheGuard] = field(default_factory=list)
    scores: list[ScoreStage] = field(default_factory=list)
    normalize: Stage | None = None
    probs: list[Stage] = field(default_factory=list)
    context: list[Stage] = field(default_factory=list)
    whole: bool = False  # a method wants all query rows at once

    @property
    def uniform(self) -> bool:
        """Tell whether a query with nothing left attends uniformly: no method would have it otherwise."""
        return bool(self.scores) and all(stage.uniform for stage in self.scores)

    def on_scores(self) -> bool:
        return bool(self.scores or self.normalize or self.probs)

    def hiding(self) -> int:
        """Count the stages on scores, 0 where others act too."""
        others = self.queries or self.keys or self.values or self.cache or self.normalize or self.probs
        return 0 if others or self.context else len(self.scores)

    def acting(self) -> bool:
        """Tell whether anything is changed here."""
        return self.on_scores() or bool(
            self.queries or self.keys or self.values or self.cache or self.context
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

    def lent(self) -> list[UntypedStorage]:
        """Return the memory whose views stages were given."""
        return [buffer.untyped_storage() for buffer in self._buffers.values()]


@dataclass
class Tile:
    """One tile, and what shapes its scores.

    Queries are (batch, heads, queries, head_dim), keys and values (batch, key-value heads, keys, head_dim).
    """

    site: Site
    stages: Stages
    q: Tensor
    k: Tensor
    v: Tensor
    scale: float
    shift: Tensor | None = None
    softcap: float | None = None
    dropout: float = 0.0

    def shape(self) -> tuple[int, int, int, int]:
        """Return (batch, heads, queries, keys)."""
        return (*self.q.shape[:3], self.k.shape[2])

    def grouped(self, heads: Tensor) -> Tensor:
        """Join heads (batch, heads, queries, n) that share keys and values to one matrix a group."""
        return heads.reshape(self.k.shape[0] * self.k.shape[1], -1, heads.shape[3])


def context_of(tile: Tile, scratch: Scratch) -> Tensor:
    """Return the context (batch, heads, queries, head_dim), before the stages that act on it."""
    probs = _traced(tile) if torch.is_grad_enabled() else _in_place(tile, scratch)
    if tile.dropout:
        probs = functional.dropout(probs, tile.dropout)
    context = torch.bmm(tile.grouped(probs), tile.v.flatten(0, 1))
    return context.view(*tile.q.shape[:3], tile.v.shape[3])


def _in_place(tile: Tile, scratch: Scratch) -> Tensor:
    """Return the probabilities: no gradient, as few passes over the tile as its stages allow."""
    site, stages, visible = tile.site, tile.stages, tile.site.visible
    shape, scores = tile.shape(), scratch.like(tile.q, tile.shape())
    lowest = torch.finfo(scores.dtype).min / 2
    flat, keys = tile.grouped(scores), tile.k.flatten(0, 1).mT
    torch.baddbmm(flat, tile.grouped(tile.q), keys, beta=0, alpha=tile.scale, out=flat)
    if tile.softcap is not None:
        scores.div_(tile.softcap).tanh_().mul_(tile.softcap)
    if tile.shift is not None:
        scores.add_(tile.shift)
    seen = None if visible is None else visible.to(scores.dtype)
    if not stages.scores:
        if seen is not None:
            scores.add_(torch.zeros_like(seen).masked_fill_(seen == 0, -torch.inf))
        dead = None if visible is None else ~visible.any(-1).expand(shape[:3])
    else:
        if seen is not None:
            scores.add_((1 - seen) * lowest)  # a finite bound: a stage may scale scores
        scores = _staged(stages, scores, site)
        if seen is not None:
            scores = torch.minimum(scores, (seen - 0.5) * torch.inf, out=scores)
        dead = _dead(scores, site)
    lost = _indexes(dead)
    kept = seen
    if stages.scores and (stages.probs or stages.normalize is not None):
        kept = torch.gt(scores, -torch.inf, out=torch.empty_like(scores))
    if stages.normalize is None:
        probs = torch.softmax(scores, -1, out=scores)  # NaN where nothing is left, which `rows` replaces
    else:
        # a stage is shown no infinities
        probs = _keep(stages.normalize(scores.clamp_(min=lowest), site), kept)
    if lost is not None:
        rows = _given_up(tile, lost)
        probs.view(-1, shape[3]).index_copy_(0, lost, rows)
        if kept is not None and kept.shape == shape:
            kept.view(-1, shape[3]).index_copy_(0, lost, (rows > 0).to(kept.dtype))
    for stage in stages.probs:
        probs = _keep(stage(probs, site), kept)
    return probs


def _staged(stages: Stages, scores: Tensor, site: Site) -> Tensor:
    """Run the stages on scores.

    Among others, a method whose empty queries attend uniformly has them do so at once, to all that was left
    to it, and the later ones hide of that.
    """
    mixed = len({stage.uniform for stage in stages.scores}) > 1
    for stage in stages.scores:
        left = ~scores.isneginf() if mixed and stage.uniform else None
        scores = stage(scores, site)
        if left is not None:
            if site.visible is not None:
                left = left & site.visible
            emptied = (scores.isneginf() | ~left).all(-1, keepdim=True)
            scores = scores.masked_fill(emptied & left, 0.0)
    return scores


def _dead(scores: Tensor, site: Site) -> Tensor | None:
    """Tell which queries (batch, heads, queries) have no key left; None where none is seen to be at a glance.

    Edits NaN at keys that a query may not see.
    """
    visible = site.visible
    if visible is None and site.kind != "cross":
        own = scores.diagonal(site.offset, -2, -1)  # most methods leave a query its own key
        if own.shape[-1] == scores.shape[-2] and bool((own > -torch.inf).all()):
            return None
    top = scores.amax(-1)
    if visible is not None and bool(top.isnan().any()):
        top = scores.masked_fill_(~visible, -torch.inf).amax(-1)
    return top.isneginf()


def _indexes(dead: Tensor | None) -> Tensor | None:
    """Number the queries (batch, heads, queries) with no key left; None where all have one."""
    return dead.flatten().nonzero().flatten() if dead is not None and bool(dead.any()) else None


def _given_up(tile: Tile, lost: Tensor) -> Tensor:
    """Return the probabilities (rows, keys) of queries with no key left: zeros, or the visible keys alike."""
    _, heads, queries, keys = tile.shape()
    if not tile.stages.uniform:
        return tile.q.new_zeros(len(lost), keys)
    if tile.site.visible is None:
        return tile.q.new_full((len(lost), keys), 1 / keys)
    example, query = lost // (heads * queries), lost % queries
    seen = tile.site.visible.expand(len(tile.q), 1, queries, keys)[example, 0, query].to(tile.q.dtype)
    return seen / seen.sum(-1, keepdim=True).clamp(min=1)


def _traced(tile: Tile) -> Tensor:
    """Return the probabilities with autograd's record: out of place where a gradient is asked for."""
    site, stages, visible = tile.site, tile.stages, tile.site.visible
    scores = torch.bmm(tile.grouped(tile.q), tile.k.flatten(0, 1).mT).mul(tile.scale).view(tile.shape())
    if tile.softcap is not None:
        scores = (scores / tile.softcap).tanh() * tile.softcap
    if tile.shift is not None:
        scores = _add(scores, tile.shift)
    # not -inf: a method that scales scores would have NaN gradients
    lowest = torch.finfo(scores.dtype).min / 2
    hidden, kept = None, None
    if visible is not None:
        kept = visible.to(scores.dtype)
        scores = _add(scores, (1 - kept) * lowest)
    scores = _staged(stages, scores, site)
    if stages.scores:
        hidden = scores.isneginf()
        if visible is not None:
            hidden |= ~visible
        kept = (~hidden).to(scores.dtype)
        scores = scores.masked_fill(hidden, lowest)
    probs = scores.softmax(-1) if stages.normalize is None else stages.normalize(scores, site)
    probs = _keep(probs, kept)
    if stages.uniform and hidden is not None and kept is not None:
        seen = torch.ones_like(hidden) if visible is None else visible.expand_as(hidden)
        lost = (hidden.all(-1, keepdim=True) & seen).to(probs.dtype)
        probs = probs + lost / seen.sum(-1, keepdim=True).clamp(min=1)
        kept = kept + lost
    for stage in stages.probs:
        probs = _keep(stage(probs, site), kept)
    return probs


def _add(scores: Tensor, more: Tensor) -> Tensor:
    return scores + more if scores.requires_grad or more.requires_grad else scores.add_(more)


def _keep(probs: Tensor, kept: Tensor | None) -> Tensor:
    """Zero what a query may not see, whatever a method made of it."""
    if kept is None:
        return probs
    return probs * kept if probs.requires_grad else probs.mul_(kept)
