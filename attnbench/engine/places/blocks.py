"""Find the padding in attention masks: which queries and keys of which examples belong together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from attnbench.engine.places import origins
from attnbench.engine.places.origins import Origin

# an example's first query that is no padding, one past its last, and the position of the first
Rows = tuple[int, int, int]


@dataclass
class Block:
    """Examples that share a range of queries and keys without padding.

    `visible` is (batch, 1, queries, keys), None where every query sees every key; `bias` what a mask adds
    beyond that. Where `causal`, every query sees the keys up to its own position, and they alone.
    """

    examples: slice
    queries: slice
    keys: slice
    offset: int = 0
    visible: Tensor | None = None
    bias: Tensor | None = None
    causal: bool = False

    def shape(self) -> tuple[int, int, int]:
        return tuple(part.stop - part.start for part in (self.examples, self.queries, self.keys))

    def part(self, examples: int, queries: int) -> Iterator[Block]:
        """Cut into tiles of at most so many examples and queries, each up to the last key it sees."""
        for first in range(self.examples.start, self.examples.stop, examples):
            for row in range(self.queries.start, self.queries.stop, queries):
                last, end = min(first + examples, self.examples.stop), min(row + queries, self.queries.stop)
                inner = slice(first - self.examples.start, last - self.examples.start)
                rows = slice(row - self.queries.start, end - self.queries.start)
                keys = slice(0, self._reach(inner, rows))
                visible, bias = (cut(mask, inner, rows, keys) for mask in (self.visible, self.bias))
                yield Block(
                    slice(first, last),
                    slice(row, end),
                    slice(self.keys.start, self.keys.start + keys.stop),
                    self.offset + rows.start,
                    visible,
                    bias,
                    self.causal,
                )

    def _reach(self, examples: slice, queries: slice) -> int:
        """Count the keys up to the last that these queries see: few for the first of a causal mask."""
        _, total, keys = self.shape()
        if self.visible is None or queries.stop - queries.start == total:
            return keys
        seen = self.visible[examples if len(self.visible) > 1 else slice(None), :, queries]
        seen = seen.flatten(0, 2).any(0).nonzero()
        return int(seen[-1]) + 1 if len(seen) else 1

    def cut_to(self, first: int, last: int, low: int = 0, high: int | None = None) -> Block:
        """Return the part with the examples from `first` up to `last`, of whose queries those in a range."""
        high = self.queries.stop - self.queries.start if high is None else high
        inner = slice(first - self.examples.start, last - self.examples.start)
        visible, bias = (
            cut(mask, inner, slice(low, high), slice(None)) for mask in (self.visible, self.bias)
        )
        queries = slice(self.queries.start + low, self.queries.start + high)
        return Block(slice(first, last), queries, self.keys, self.offset + low, visible, bias, self.causal)

    def within(self, rows: Sequence[Rows]) -> Iterator[Block]:
        """Cut each example to its own range of queries, the first of which stands at its own offset."""
        for example in range(self.examples.start, self.examples.stop):
            first, end, offset = rows[example]
            low, high = max(first, self.queries.start), min(end, self.queries.stop)
            if low < high:
                inner = slice(example - self.examples.start, example - self.examples.start + 1)
                left = slice(low - self.queries.start, high - self.queries.start)
                visible, bias = (cut(mask, inner, left, slice(None)) for mask in (self.visible, self.bias))
                one = slice(example, example + 1)
                yield Block(one, slice(low, high), self.keys, offset + low - first, visible, bias)


def within(found: Sequence[Block], rows: Sequence[Rows]) -> list[Block]:
    """Tell a cross-attention what its mask does not: the decoder's padding and what came before a query."""
    if all(
        rows[e] == (b.queries.start, b.queries.stop, rows[b.examples.start][2])
        for b in found
        for e in range(*b.examples.indices(len(rows)))
    ):
        return [replace(block, offset=rows[block.examples.start][2]) for block in found]
    return list(_merged(one for block in found for one in block.within(rows)))


def rows_of(found: Sequence[Block], examples: int) -> list[Rows]:
    """Return each example's queries that are no padding, and the position of the first of them."""
    rows = [(0, 0, 0)] * examples
    for block in found:
        for example in range(block.examples.start, block.examples.stop):
            rows[example] = block.queries.start, block.queries.stop, block.offset
    return rows


def cut(tensor: Tensor | None, examples: slice, queries: slice, keys: slice) -> Tensor | None:
    """Slice (batch, heads, queries, keys), where the batch may be 1 for all."""
    return None if tensor is None else tensor[examples if len(tensor) > 1 else slice(None), :, queries, keys]


# a mask -> its blocks: all layers of a forward share one, and nothing here keeps it alive
_blocks: WeakTensorKeyDictionary = WeakTensorKeyDictionary()


def blocks(kind: str, query: Tensor, key: Tensor, mask: Tensor | None, causal: bool) -> list[Block]:
    """Find the padding: which queries and keys of which examples belong together."""
    batch, queries, keys = query.shape[0], query.shape[2], key.shape[2]
    if mask is None:
        offset = keys - queries if kind == "decoder" else 0
        visible = None
        if causal and queries > 1:
            square = torch.ones(1, 1, queries, keys, dtype=torch.bool, device=query.device)
            visible = square.tril(keys - queries)
        return [
            Block(
                slice(0, batch), slice(0, queries), slice(0, keys), offset, visible, None, visible is not None
            )
        ]
    version = 0 if mask.is_inference() else mask._version
    case = (kind, batch, queries, keys, version)
    known = _blocks.get(mask)
    if known is None or known[0] != case:
        origin = origins.of(mask) if kind == "decoder" else None
        given = mask[..., :keys].expand(batch, -1, queries, -1)
        known = _blocks[mask] = case, read(kind, queries, given, origin)
    return known[1]


def evicted(kind: str, mask: Tensor | None) -> int:
    """Count the first keys that a window's cache has lost."""
    origin = origins.of(mask) if kind == "decoder" and mask is not None else None
    return 0 if origin is None else origin.keys


def read(kind: str, queries: int, mask: Tensor, origin: Origin | None = None) -> list[Block]:
    """Find the padding in a mask (batch, 1, queries, keys), joining neighbours of one range.

    Keys count from an example's first token, also those that the cache has lost: `origin` knows of them.
    """
    return list(_merged(_read(kind, queries, mask if origin is None else origin.whole(mask), origin)))


def _read(kind: str, queries: int, mask: Tensor, origin: Origin | None) -> Iterator[Block]:
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
    starts = first.tolist() if origin is None else origin.starts(len(mask))
    for example, (start, stop, any_key, at) in enumerate(
        zip(starts, *(x.tolist() for x in (last, seen.any(1), row)), strict=True)
    ):
        if not any_key:
            continue
        position = 0  # of query 0 among the uncut keys
        if kind == "decoder":
            told = None if origin is None else origin.queries
            position = stop - 1 - at if told is None else told
        low, high = 0, queries
        if kind == "decoder" or (kind == "encoder" and queries == keys):
            low, high = max(0, start - position), max(0, min(queries, stop - position))
        if low >= high:
            continue
        part = visible[example : example + 1, :, low:high, start:stop]
        offset = position + low - start if kind == "decoder" else 0
        every = bool(part.all())
        yield Block(
            slice(example, example + 1),
            slice(low, high),
            slice(start, stop),
            offset,
            None if every else part,
            mask[example : example + 1, :, low:high, start:stop].clone() if additive else None,
            kind == "decoder" and not every and torch.equal(part, torch.ones_like(part).tril(offset)),
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
    same = all(getattr(a, name) == getattr(b, name) for name in ("queries", "keys", "offset", "causal"))
    same = same and a.examples.stop == b.examples.start
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


def visible_in(mask: Tensor) -> Tensor:
    """Tell which keys a mask shows: a boolean one is True there, an additive one not hugely negative."""
    return mask if mask.dtype == torch.bool else mask > torch.finfo(mask.dtype).min / 2
