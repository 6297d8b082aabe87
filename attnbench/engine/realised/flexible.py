"""The same on a GPU: FlexAttention's compiled kernel, which skips the tiles that a pattern leaves empty."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor

from attnbench.engine.realised.patterns import Pattern
from attnbench.engine.realised.planning import read
from attnbench.engine.realised.plans import PAYS, Plan, paying
from attnbench.engine.realised.spans import Span
from attnbench.errors import NotApplicable


def plan(pattern: Pattern, span: Span, like: Tensor, groups: int, most: float = PAYS) -> Plan:
    """Choose the kernel's tiles, larger than a method's own blocks: their share is the cost.

    Raises NotApplicable where this torch has no FlexAttention, or too many tiles are left for it to pay.
    """
    try:
        from torch.nn.attention.flex_attention import create_block_mask
    except ImportError as error:
        raise NotApplicable(f"torch {torch.__version__} has no FlexAttention") from error
    rows = list(read(pattern, span, max(span.queries, 1), like))
    _, kept, seen = rows[0]

    def left(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return kept[head, query, key]

    mask = create_block_mask(left, None, len(kept), span.queries, span.keys, device=like.device.type)
    tiles = int(mask.kv_num_blocks.sum())
    if mask.full_kv_num_blocks is not None:
        tiles += int(mask.full_kv_num_blocks.sum())
    computed = tiles * mask.BLOCK_SIZE[0] * mask.BLOCK_SIZE[1]
    cost = computed / (len(kept) * max(1, int(seen.sum())))
    lost = (seen.any(-1) & ~kept.any(-1)).flatten().nonzero().flatten()
    return paying(Plan(span, groups, lost, cost, mask=mask), most)


def attend(plan: Plan, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Return the context (heads, queries, head_dim) of scaled queries; zeros where nothing is left."""
    groups = len(query) // len(key)
    if groups > 1:
        key, value = (x.repeat_interleave(groups, 0) for x in (key, value))
    found: Tensor = _kernel(query.is_cuda)(
        query[None], key[None], value[None], block_mask=plan.mask, scale=1.0
    )
    return found[0].contiguous()


@functools.cache
def _kernel(compiled: bool) -> Any:
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention) if compiled else flex_attention
