"""Part an attention call where prompts end: their own queries see all of them, later ones what was left."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import torch
from torch import Tensor, nn

from attnbench.engine.places.blocks import Block
from attnbench.engine.serving import again, rotations
from attnbench.engine.serving.applied import Place
from attnbench.engine.serving.dense import Dense
from attnbench.engine.serving.rotations import Turned
from attnbench.engine.serving.turns import Chunk, Left, Print, Turn
from attnbench.errors import UserError
from attnbench.methods.prompt import Kept, Prompt
from attnbench.methods.protocol import Site


@dataclass
class Later:
    """What the queries after one example's prompt attend to.

    Keys and values are (1, key-value heads, keys, head_dim), `hidden` (1, heads, 1, keys).
    """

    keys: Tensor
    values: Tensor
    hidden: Tensor | None


class Hide:
    """Hide what was evicted, before every other stage on scores."""

    uniform = False

    def __init__(self, hidden: Tensor) -> None:
        self.hidden = hidden

    def __call__(self, tensor: Tensor, site: Site) -> Tensor:
        hidden = self.hidden[..., : tensor.shape[-1]]
        if tensor.requires_grad:
            return tensor.masked_fill(hidden, -torch.inf)
        return tensor.masked_fill_(hidden, -torch.inf)


@dataclass
class Cutting:
    """One attention call at a place where methods cut caches."""

    place: Place
    turn: Turn
    module: nn.Module
    scale: float
    softcap: float | None = None
    bias: Tensor | None = None  # of positions (1, heads, queries, keys)
    window: int | None = None
    lost: int = 0  # first keys that a window's cache no longer has

    def pieces(
        self, found: Sequence[Block], query: Tensor, key: Tensor, value: Tensor
    ) -> Iterator[tuple[Block, Later | None]]:
        """Yield blocks of queries that see everything, then of those that see what was left, one by one."""
        later: list[tuple[Block, Later]] = []
        known = self.turn.memory.left.setdefault(self.place.key, {})
        counting = self.turn.counts_at(self.place.key)
        if self.turn.past and self.turn.rows is None:
            self.turn.rows = self._same_rows(found, key)
        for block in found:
            rows, lows = block.queries.stop - block.queries.start, []
            for example in range(*block.examples.indices(len(query))):
                one = block.cut_to(example, example + 1)
                row = self.turn.rows[example] if self.turn.rows else example
                reading = False
                if row not in known:
                    reading = self._read(one, example, row, query, key, value)
                left = known.get(row)
                low = rows if left is None else max(0, min(rows, left.end - one.offset))
                lows.append(low)
                if counting and not reading:
                    self.turn.count(example, len(query), rows if left is None else rows - low, rows - low)
                if low < rows and left is not None:
                    part = one.cut_to(example, example + 1, low, rows)
                    later.append((part, self._left(part, left, query.shape[1], key, value)))
            first = block.examples.start
            for low, group in groupby(lows):
                end = first + len([*group])
                if low:
                    yield block.cut_to(first, end, 0, low), None
                first = end
        yield from later
        again.cut(self, found, query, key, value)

    def _left(self, block: Block, left: Left, heads: int, key: Tensor, value: Tensor) -> Later:
        """Put together what is left of the prompt and what came after it."""
        k, v = key[block.examples, :, block.keys], value[block.examples, :, block.keys]
        held = slice(left.start, left.end)
        if left.keys is not None:
            k = torch.cat([k[:, :, : left.start], left.keys[None].to(k), k[:, :, left.end :]], 2)
        if left.values is not None:
            v = torch.cat([v[:, :, : left.start], left.values[None].to(v), v[:, :, left.end :]], 2)
        if left.gone is None:
            return Later(k, v, None)
        hidden = torch.zeros(1, heads, 1, k.shape[2], dtype=torch.bool, device=k.device)
        hidden[0, :, 0, held] = left.gone.to(k.device).repeat_interleave(heads // k.shape[1], 0)
        return Later(k, v, hidden)

    def _same_rows(self, found: Sequence[Block], key: Tensor) -> list[int] | None:
        """Find which row of the memory each example continues, by its keys: caches select and repeat rows."""
        prints = self.turn.memory.prints
        if self.turn.memory.watched != self.place.key:
            return None
        rows = [*range(len(key))]
        for block in found:
            keys = key[:, :, block.keys]
            first = max(0, self.lost - block.keys.start)  # what a window has lost tells nothing
            for example in range(*block.examples.indices(len(key))):
                if (self.place.key, example) in self.turn.memory.waiting:
                    continue
                own = [example] if example in prints else []
                for row in dict.fromkeys([*own, *prints]):
                    begin, end = max(first, prints[row].start), prints[row].end
                    known = prints[row].keys[:, begin - prints[row].start :]
                    if torch.equal(keys[example, :, begin:end], known.to(keys)):
                        rows[example] = row
                        break
                else:
                    if self.turn.memory.short.isdisjoint({example}):
                        raise UserError(
                            f"row {example} of this cache begins with none of the prompts that were cut: "
                            "read the prompt again, in a cache that keeps keys as they are"
                        )
                    rows[example] = -1 - example
        return rows

    def _read(self, block: Block, example: int, row: int, query: Tensor, key: Tensor, value: Tensor) -> bool:
        """Cut a prompt that is complete now, tell whether one is still being read."""
        memory, name = self.turn.memory, self.place.key
        rows = block.queries.stop - block.queries.start
        end = self.turn.length(example, len(query), block.offset + rows, block.offset)
        if end is None:
            memory.short.add(row)
            return False
        mine = Chunk(query[example, :, block.queries], self._turned(block, example))
        chunks = [*memory.waiting.get((name, row), ()), mine]
        if sum(chunk.queries.shape[1] for chunk in chunks) != block.offset + rows:
            raise UserError(f"the prompt ends at {end} tokens: its beginning was read as another prompt")
        if self.window is not None and block.offset and end >= self.window:
            raise UserError(
                f"{self.place.site.path} has a window: read a prompt of {end} tokens in one piece"
            )
        if end > block.offset + rows:
            memory.waiting[name, row] = chunks
            return True
        memory.waiting.pop((name, row), None)
        memory.end = max(memory.end, block.keys.start + end)
        start = 0 if self.window is None else max(0, end + 1 - self.window)
        k, v = key[example, :, block.keys], value[example, :, block.keys]
        if memory.watched in ("", name):
            memory.watched = name
            memory.prints[row] = Print(start, end, k[:, start:end].detach().clone())
        memory.left[name][row] = Left(start, end)
        if start < end:
            kept = self._kept(block, start, end, chunks, k, v)
            memory.left[name][row] = Left(start, end, kept.keys, kept.values, _gone(kept))
            self.turn.note(example, kept.note)
            again.begin(self, row, Left(start, end, gone=_gone(kept)), chunks, end)
        return False

    def take(self, block: Block, query: Tensor, key: Tensor, value: Tensor) -> None:
        """Cut a prompt of one example that was read whole before."""
        self.turn.memory.left.setdefault(self.place.key, {})
        self._read(block, 0, 0, query, key, value)

    def of_whole(self, block: Block, query: Tensor, key: Tensor, value: Tensor) -> Kept:
        """Return what methods leave of the one example of a block: a prompt that this call reads whole."""
        example, tokens = block.examples.start, block.queries.stop - block.queries.start
        mine = Chunk(query[example, :, block.queries], self._turned(block, example))
        k, v = key[example, :, block.keys], value[example, :, block.keys]
        kept = self._kept(block, 0, tokens, [mine], k, v)
        self.turn.note(example, kept.note)
        return kept

    @torch.no_grad()
    def _kept(
        self, block: Block, start: int, end: int, chunks: Sequence[Chunk], k: Tensor, v: Tensor
    ) -> Kept:
        """Ask the methods, from left to right, what they leave of a prompt."""
        queries = torch.cat([chunk.queries for chunk in chunks], 1)
        whole = Dense(queries, k, self.scale, self.softcap, block, self.bias, len(chunks) > 1)
        prompt = Prompt(
            k[:, start:end], v[:, start:end], queries[:, start:end],
            lambda rows: whole.probs(range(start, end)[rows], start, end), start=start,
            turning=_together([chunk.turned for chunk in chunks], end),
        )  # fmt: skip
        site, kept = replace(self.place.site, layers=self.turn.layers, rank=self.place.rank), Kept()
        after = queries.shape[1] > end and not self.turn.caching  # else they are only the first of them
        for stage in self.place.stages.cache:
            given = replace(
                prompt,
                keys=prompt.keys if kept.keys is None else kept.keys[:],
                values=prompt.values if kept.values is None else kept.values[:],
                kept=kept,
                later=queries[:, end:] if stage.ahead and after else None,
                attend_later=(lambda: whole.probs(range(end, queries.shape[1]), start, end))
                if stage.ahead and after
                else None,
            )
            kept = stage(given, site)
        for applied in self.place.cutting:
            applied.tally.add(kept, k.shape[0], end - start)
        return kept

    def _turned(self, block: Block, example: int) -> Turned | None:
        tables = self.turn.rotations.get(self.place.site.path)
        if tables is None:
            return None
        return rotations.of(self.module, tables, self.turn.rotary, example, block.queries)


def _gone(kept: Kept) -> Tensor | None:
    return None if kept.tokens is None else ~kept.tokens


def _together(parts: Sequence[Turned | None], end: int) -> Turned | None:
    """Join the rotations of a prompt's pieces."""
    if not parts or any(part is None for part in parts):
        return None
    known = [part for part in parts if part is not None]
    cosines, sines = (torch.cat([getattr(p, name) for p in known])[:end] for name in ("cosines", "sines"))
    return replace(known[0], cosines=cosines, sines=sines)
