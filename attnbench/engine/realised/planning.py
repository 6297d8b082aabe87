"""Read a pattern, and plan what attention computes of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from attnbench.engine.realised.patterns import Pattern
from attnbench.engine.realised.plans import PAYS, Bunch, Plan, Strip, paying
from attnbench.engine.realised.spans import Span
from attnbench.errors import NotApplicable

ROWS = 32  # queries of a band's tile: fewer read the keys too often, more compute what is hidden
FINE, SIZES = 16, (64, 32, 16)  # blocks are of one of these sizes, whichever costs the least
READ = 1 << 21  # entries that a pattern is asked for at once: a stage is traced, operation by operation
GROUP = 16  # rows of blocks at once, at most
SCORES = 1 << 19  # of a group, unless one row of blocks has more: the processor's cache holds them
# in entries, that is scores of a head: what starting the products of a tile costs, and how much more a block
# of b queries costs for the copies of its keys and values, 1 + COPIED / b
STARTING, COPIED = 1 << 14, 8


def plan(pattern: Pattern, span: Span, like: Tensor, groups: int, most: float = PAYS) -> Plan:
    """Choose how to attend. Raises NotApplicable where that costs more than `most` of dense attention."""
    heads = len(pattern.heads)
    dense = heads * int((span.high - span.low).sum())
    if not dense:
        raise NotApplicable("no query sees a key")
    if pattern.refused:
        raise NotApplicable(pattern.refused)
    if span.queries > ROWS:
        for row in (0, span.queries // 2, span.queries - 1):
            at, fewer = span.offset + row, max(1, int(span.high[row]))
            pattern.confirm(at, at + 1, span.keys, like, fewer)
    strips: list[Strip] = []
    lost: list[Tensor] = []
    computed = 0
    for start, kept, seen in read(pattern, span, ROWS, like):
        if not bool((kept[1:] == kept[:1]).all()):
            break
        strips.append(strip(start, *narrow(kept[0]), strips[-1] if strips else None))
        lost.append(seen.any(-1) & ~kept[0].any(-1))
        keys = strips[-1].keys
        computed += len(seen) * (keys.stop - keys.start if isinstance(keys, slice) else len(keys))
    else:
        gone = torch.cat(lost).expand(heads, -1).flatten().nonzero().flatten()
        cost = (heads * computed + STARTING * len(strips)) / dense
        return paying(Plan(span, groups, gone, cost, strips), most)
    if span.offset:
        raise NotApplicable("heads hide different keys of a text that goes on")
    return _blocks(pattern, span, like, groups, dense, most)


def read(
    pattern: Pattern, span: Span, size: int, like: Tensor, only: Tensor | None = None
) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Yield the first of `size` queries, what these keep (heads, queries, keys) and see (queries, keys).

    Keys end with the last that is visible. `only` (number of pieces,) tells which of them are wanted; they
    are read several at a time.
    """
    heads = max(1, pattern.site.heads)
    together = max(1, READ // (heads * span.keys * size))
    high = span.high.tolist()
    pieces = [
        start for number, start in enumerate(range(0, span.queries, size)) if only is None or only[number]
    ]
    while pieces:
        begin = pieces[0]
        wanted = [start for start in pieces if start < begin + together * size]
        pieces = pieces[len(wanted) :]
        end = min(wanted[-1] + size, span.queries)
        whole = pattern.kept(span.offset + begin, span.offset + end, max(1, *high[begin:end]), like)
        for start in wanted:
            stop = min(start + size, span.queries)
            keys = max(1, *high[start:stop])
            kept = whole[:, start - begin : stop - begin, :keys]
            seen = span.visible(start, stop, keys).to(kept.device)
            yield start, kept & seen, seen


def narrow(kept: Tensor) -> tuple[Tensor, Tensor]:
    """Return the keys that any query keeps (columns,), and which of them each does (queries, columns)."""
    columns = kept.any(0).nonzero().flatten()
    if not len(columns):
        columns = columns.new_zeros(1)  # of a strip with nothing left, which is replaced
    return columns, kept[:, columns]


def strip(start: int, columns: Tensor, part: Tensor, before: Strip | None) -> Strip:
    """Return the strip of the queries from `start` on that keep a part of these keys."""
    first, end = int(columns[0]), int(columns[-1]) + 1
    shift = None
    if not bool(part.all()):
        shift = torch.zeros(part.shape).masked_fill_(~part.cpu(), -torch.inf)
        if before is not None and before.shift is not None and torch.equal(shift, before.shift):
            shift = before.shift  # of a window one for all
    together = end - first == len(columns)
    return Strip(start, start + len(part), slice(first, end) if together else columns, shift)


def _pooled(kept: Tensor, columns: int) -> tuple[Tensor, Tensor]:
    """Tell of each fine block whether any of it is kept, and all: queries beyond the last are no loss."""
    _, queries, keys = kept.shape
    kept = pad(kept, (0, -keys % FINE))
    whole = pad(kept, (0, 0, 0, -queries % FINE), value=True)
    some = pad(kept, (0, 0, 0, -queries % FINE))
    return tuple(
        pad(
            pool(pool(table.unflatten(2, (-1, FINE)), 3).unflatten(1, (-1, FINE)), 2),
            (0, columns - table.shape[2] // FINE),
        )
        for table, pool in ((some, torch.any), (whole, torch.all))
    )  # type: ignore[return-value]


def _joined(table: Tensor, size: int, pool: Any, beyond: bool) -> Tensor:
    """Join fine blocks (heads, rows, columns) into those of a size."""
    times = size // FINE
    below, right = (-length % times for length in table.shape[1:])
    table = pad(pad(table, (0, right)), (0, 0, 0, below), value=beyond)
    found: Tensor = pool(pool(table.unflatten(2, (-1, times)), 3).unflatten(1, (-1, times)), 2)
    return found


def _blocks(pattern: Pattern, span: Span, like: Tensor, groups: int, dense: int, most: float) -> Plan:
    gone, fine = [], []
    for _, kept, seen in read(pattern, span, max(SIZES), like):
        gone.append(seen.any(-1) & ~kept.any(-1))
        fine.append(_pooled(kept, -(-span.keys // FINE)))
    some, whole = (torch.cat(tables, 1) for tables in zip(*fine, strict=True))
    lost = torch.cat(gone, 1).flatten().nonzero().flatten()
    priced = {}
    for size in SIZES:
        left = _joined(some, size, torch.any, False).sum(-1)  # (heads, rows of blocks)
        counts = left[left > 0].unique()
        tiles = max(len(counts), int((left > 0).sum()) // GROUP)
        priced[size] = (float(left.sum()) * size**2 * (1 + COPIED / size) + STARTING * tiles) / dense
    size = min(priced, key=lambda each: priced[each])
    found = paying(Plan(span, groups, lost, priced[size], size=size), most)
    part = _joined(some, size, torch.any, False)
    full = part & _joined(whole, size, torch.all, True)
    heads, rows, columns = part.shape
    # whole blocks first, those kept in part after them, the others last
    rank = 2 - part.to(torch.int8) - full.to(torch.int8)
    order = rank.sort(dim=-1, stable=True).indices.view(heads * rows, columns)
    count = part.sum(-1).flatten()
    partly = (part & ~full).sum(-1).flatten()
    pieces = _partial(pattern, span, like, size, order, count, partly, (heads, rows))
    for blocks, some_left in torch.stack([count, partly], 1).unique(dim=0).tolist():
        if not blocks:
            continue
        chosen = ((count == blocks) & (partly == some_left)).nonzero().flatten()
        for group in chosen.split(max(1, min(GROUP, SCORES // (blocks * size**2)))):
            shift = None
            if some_left:
                tables = torch.stack([pieces[row] for row in group.tolist()])
                if bool((tables == tables[:1]).all()):
                    tables = tables[:1]
                shift = torch.zeros(tables.shape).masked_fill_(~tables, -torch.inf)
            own = group // (rows * groups) * columns  # the first block of keys of a row's head
            found.bunches.append(Bunch(group, (order[group, :blocks] + own[:, None]).flatten(), shift))
    return found


def _partial(
    pattern: Pattern, span: Span, like: Tensor, size: int, order: Tensor, count: Tensor, partly: Tensor,
    shape: tuple[int, int],
) -> dict[int, Tensor]:  # fmt: skip
    """Read what is kept of the blocks that are kept in part: row of blocks -> (size, blocks * size)."""
    heads, rows = shape
    wanted = (partly > 0).view(heads, rows)
    pieces = {}
    for start, kept, _ in read(pattern, span, size, like, wanted.any(0)):
        number = start // size
        # queries beyond the last are computed and thrown away
        over = -(-span.keys // size) * size - kept.shape[2]
        table = pad(pad(kept, (0, over)), (0, 0, 0, size - kept.shape[1]), value=True).cpu()
        for head in wanted[:, number].nonzero().flatten().tolist():
            row = head * rows + number
            columns = order[row, count[row] - partly[row] : count[row]].cpu()
            pieces[row] = table[head].unflatten(1, (-1, size))[:, columns].flatten(1)
    return pieces
