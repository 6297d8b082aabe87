"""Cut a cache again while it grows: for methods that let tokens go every so many that are generated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

import torch
from torch import Tensor

from attnbench.engine.places.blocks import Block
from attnbench.engine.serving.applied import Place
from attnbench.engine.serving.dense import Dense
from attnbench.engine.serving.guard import CacheGuard, StageError
from attnbench.engine.serving.turns import Chunk, Left, Since, Turn
from attnbench.errors import NotApplicable, UserError
from attnbench.methods.prompt import Prompt

NEVER = 1 << 40  # the first query that no longer sees a key that stays


class Call(Protocol):
    """One attention call at a place where methods cut caches."""

    place: Place
    turn: Turn
    scale: float
    softcap: float | None
    bias: Tensor | None
    window: int | None


def begin(call: Call, row: int, left: Left, chunks: Sequence[Chunk], prompt: int) -> None:
    """Remember what a cut prompt's queries saw. Raises NotApplicable where it cannot be cut again."""
    stage = _stage(call)
    if stage is None:
        return
    if not call.turn.caching:
        raise NotApplicable(
            f"{stage.name.removesuffix('.cache')} cuts a cache every {stage.interval} tokens while it "
            "generates: one pass over a text, as likelihoods are scored in, has no such cache"
        )
    if call.window is not None:
        raise NotApplicable(f"{call.place.site.path} has a window: its cache is not cut again")
    queries = torch.cat([chunk.queries for chunk in chunks], 1).detach()
    gone = left.gone
    if gone is None:
        raise StageError(f"{stage.name} cuts again every {stage.interval} tokens and says not what stays")
    until = torch.full((len(gone), queries.shape[1]), NEVER, device=queries.device)
    until[:, : left.end].masked_fill_(gone.to(until.device), prompt)
    call.turn.memory.since[call.place.key, row] = Since(queries, until, prompt, prompt)


@torch.no_grad()
def cut(call: Call, found: Sequence[Block], query: Tensor, key: Tensor, value: Tensor) -> None:
    """Add this pass to what was read, and cut the rows that have grown by so many tokens since the last cut.

    It comes after the pass: its queries have seen what was left before. Raises UserError for rows that are
    not those of the pass before.
    """
    stage, turn = _stage(call), call.turn
    if stage is None:
        return
    name = call.place.key
    for block in found:
        for example in range(*block.examples.indices(len(query))):
            row = turn.rows[example] if turn.rows else example
            since = turn.memory.since.get((name, row))
            if since is None:
                continue
            read = block.offset + block.queries.stop - block.queries.start
            keys = key[example, :, block.keys]
            if since.keys is not None:
                before = block.offset if row == example else -1
                _grow(since, stage, before, query[example, :, block.queries], keys)
            since.keys = keys[:, since.prompt : read].clone()
            if read - since.cut >= stage.interval:
                one = block.cut_to(example, example + 1)
                _again(call, stage, since, row, one, keys[:, :read], value[example, :, block.keys])


def _stage(call: Call) -> CacheGuard | None:
    """Return what cuts again at this place. Raises NotApplicable where something else cuts too."""
    stages = call.place.stages.cache
    found = next((stage for stage in stages if stage.interval), None)
    if found is not None and len(stages) > 1:
        raise NotApplicable(f"{found.name.removesuffix('.cache')} cuts again while it generates, and alone")
    return found


def _grow(since: Since, stage: CacheGuard, read: int, query: Tensor, keys: Tensor) -> None:
    """Add queries (heads, tokens, head_dim) of the pass; `read` were read before it."""
    before = since.queries.shape[1]
    known = since.keys is not None and torch.equal(keys[:, since.prompt : before], since.keys.to(keys))
    if read != before or not known:
        raise UserError(
            f"{stage.name.removesuffix('.cache')} cuts again while it generates, each row by itself: a cache "
            "whose rows were exchanged, repeated, selected or cropped, as beams do, is not served"
        )
    since.queries = torch.cat([since.queries, query], 1)
    more = since.queries.shape[1] - since.until.shape[1]
    since.until = torch.nn.functional.pad(since.until, (0, more), value=NEVER)


def _again(
    call: Call, stage: CacheGuard, since: Since, row: int, block: Block, keys: Tensor, values: Tensor
) -> None:
    """Ask the method what stays of what is left of the prompt and of what came since."""
    turn, (kv, read, _) = call.turn, keys.shape
    stays = since.until > read
    count = stays.sum(1)
    if int(count.min()) != int(count.max()):
        raise StageError(f"{stage.name} keeps different numbers of tokens in the heads of a layer")
    places = stays.nonzero()[:, 1].view(kv, -1)
    left_keys, left_values = (
        each[:, :read].gather(1, places[..., None].expand(-1, -1, each.shape[-1])) for each in (keys, values)
    )
    whole = Dense(since.queries, keys, call.scale, call.softcap, block, call.bias, True, since.until)
    groups = len(since.queries) // kv

    def attend(rows: slice) -> Tensor:
        probs = whole.probs(range(read)[rows], 0, read)
        return probs.gather(-1, places.repeat_interleave(groups, 0)[:, None].expand(-1, probs.shape[1], -1))

    site = replace(call.place.site, layers=turn.layers, rank=call.place.rank)
    prompt = Prompt(left_keys, left_values, since.queries[:], attend, began=since.prompt, places=places)
    kept = stage(prompt, site)
    if kept.keys is not None or kept.values is not None or kept.tokens is None:
        raise StageError(f"{stage.name} cuts again, and then it may only say which tokens stay")
    since.until.scatter_(1, places, since.until.gather(1, places).masked_fill(~kept.tokens, read))
    since.cut = read
    turn.memory.end = max(turn.memory.end, block.keys.start + read)
    turn.memory.left[call.place.key][row] = Left(0, read, gone=since.until <= read)
