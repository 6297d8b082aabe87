"""The dense attention of a prompt, and of what comes after it: computed where a method asks for it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from attnbench.engine.places.blocks import Block, cut
from attnbench.errors import UserError


@dataclass
class Dense:
    """The dense attention of one example's queries (heads, tokens, head_dim) to its keys."""

    queries: Tensor
    keys: Tensor
    scale: float
    softcap: float | None
    block: Block
    bias: Tensor | None
    parted: bool  # the queries came in several passes: their masks are gone
    until: Tensor | None = None  # (key-value heads, keys): the first query that no longer sees a key

    def probs(self, rows: range, start: int, end: int) -> Tensor:
        """Return what queries `rows` give to the keys from `start` to `end` (heads, rows, keys)."""
        kv, width = self.keys.shape[0], min(self.keys.shape[1], rows.stop)
        wide = torch.promote_types(self.queries.dtype, torch.float32)
        q = self.queries[:, rows.start : rows.stop].to(wide)
        heads, count, dim = q.shape
        q = q.reshape(kv, heads // kv * count, dim)
        scores = torch.bmm(q, self.keys[:, :width].to(wide).mT).mul_(self.scale).view(heads, count, width)
        if self.softcap is not None:
            scores.div_(self.softcap).tanh_().mul_(self.softcap)
        first = 0 if self.parted else self.block.offset
        part = slice(rows.start - first, rows.stop - first), slice(0, width)
        for shift in (
            cut(self.bias, self.block.examples, self.block.queries, self.block.keys),
            self.block.bias,
        ):
            if shift is not None:
                if self.parted:
                    raise UserError("attention with a bias: read the prompt in one piece")
                scores += shift[0][:, part[0], part[1]]
        self._hide(scores, rows, part)
        if start == 0 and width == end:
            return scores.softmax(-1)
        probs = scores.new_empty(heads, count, end - start)
        seen = max(0, min(width, end) - start)
        probs[..., seen:] = 0
        probs[..., :seen] = scores.softmax(-1)[..., start:end]
        return probs

    def _hide(self, scores: Tensor, rows: range, part: tuple[slice, slice]) -> None:
        """Hide what queries do not see; what all of a tile see is passed over, which is most of it."""
        visible, width = self.block.visible, scores.shape[-1]
        at = torch.arange(rows.start, rows.stop, device=scores.device)[:, None]
        if self.until is not None:
            gone = (at >= self.until[:, None, :width]).repeat_interleave(len(scores) // len(self.until), 0)
            scores.masked_fill_(gone, -torch.inf)
        if self.parted or visible is None or self.block.causal:
            keys = torch.arange(rows.start, width, device=scores.device)
            scores[..., rows.start :].masked_fill_(keys > at, -torch.inf)
        else:
            scores.masked_fill_(~visible[0, 0, part[0], part[1]], -torch.inf)
