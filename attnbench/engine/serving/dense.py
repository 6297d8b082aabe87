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
        visible = self.block.visible
        if self.parted or visible is None:
            at = torch.arange(rows.start, rows.stop, device=scores.device)
            hidden = torch.arange(width, device=scores.device) > at[:, None]
        else:
            hidden = ~visible[0, 0, part[0], part[1]]
        if self.until is not None:
            at = torch.arange(rows.start, rows.stop, device=scores.device)
            gone = at[:, None] >= self.until[:, None, :width]
            hidden = hidden | gone.repeat_interleave(heads // kv, 0)
        probs = scores.masked_fill_(hidden, -torch.inf).softmax(-1)[..., start:end]
        more = end - start - probs.shape[-1]
        return torch.nn.functional.pad(probs, (0, more)) if more > 0 else probs
