"""Leave out of simulated attention what no query of a strip sees: long texts, windows and their like."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

import torch
from torch import Tensor

from attnbench.engine.places.blocks import Block
from attnbench.engine.realised import planning, sparse
from attnbench.engine.realised.patterns import Pattern, hides_alone
from attnbench.engine.realised.planning import ROWS
from attnbench.engine.realised.plans import PAYS, Plan, Strip
from attnbench.engine.realised.spans import Span, span
from attnbench.engine.serving.applied import Applied
from attnbench.methods.protocol import Method, Site

LONG = 1 << 19  # scores of a head: of shorter texts, to look at each length costs what it saves
STEP = 256  # a pattern is read for a text that is a multiple of it
KEPT = 8  # plans of a site that are kept, one for every length of text


class Near:
    """Attends in place of one site's stages on scores, on the keys alone that some query of a strip sees.

    It does nothing where these stages hide other keys for every head, where what they hide depends on the
    text, for what goes on from a cache, and off the CPU: there a tile is as large as a text.
    """

    def __init__(self, methods: Sequence[Method], site: Site, room: sparse.Room) -> None:
        self.terms = len(methods)
        self._pattern = Pattern(methods, site, range(site.heads))
        self._methods, self._calls = methods, 0
        self._uniform = methods[0].empty == "uniform"
        self._room = room
        # of each strip of a text the keys that its queries keep, and which of them each does
        self._bands: list[tuple[Tensor, Tensor]] = []
        self._plans: dict[object, Plan | None] = {}
        self._never = False

    def __call__(
        self, block: Block, query: Tensor, key: Tensor, value: Tensor, scale: float, out: Tensor
    ) -> bool:
        """Write the context of a block into `out` (batch, queries, heads, head_dim); False: it has not."""
        _, queries, keys = block.shape()
        if self._never or query.device.type != "cpu" or queries != keys or queries * keys < LONG:
            return False
        seen = None if block.bias is not None or block.offset else span(block)
        found = None if seen is None else self._plan(seen, query[:0], query.shape[1] // key.shape[1])
        if found is None or not self._as_before(queries, query[:0]):
            return False
        sparse.attend_block(found, block, query, key, value, scale, self._uniform, self._room, out)
        return True

    def _as_before(self, tokens: int, like: Tensor) -> bool:
        """Look at one query, another one each time: what changes what it hides by the way is no pattern."""
        self._calls += 1
        row = (self._calls * STEP - 1) % tokens
        now = torch.zeros(0)
        with contextlib.suppress(Exception):  # it is the stage that says why, where it breaks
            now = Pattern(self._methods, self._pattern.site, self._pattern.heads).kept(
                row, row + 1, tokens, like
            )
        columns, kept = self._bands[row // ROWS]
        before = torch.zeros(tokens, dtype=torch.bool)
        inside = columns < tokens
        before[columns[inside]] = kept[row % ROWS, inside]
        self._never = now.shape[-1] != tokens or not bool((now == before).all())
        return not self._never

    def _plan(self, seen: Span, like: Tensor, groups: int) -> Plan | None:
        """Return the plan for texts of a length, None where it would not pay."""
        if seen.keys > len(self._bands) * ROWS:
            try:
                self._bands = self._read(-(-seen.keys // STEP) * STEP, like)
            except Exception:  # it is the stage that says why, where it breaks
                self._bands = []
            self._never = not self._bands
            if self._never:
                return None
        key = seen.key
        plans = self._plans
        if key in plans:
            return plans[key]
        plan = self._of(seen, groups)
        found = plan if plan.cost <= PAYS else None
        # a new table: another thread may be reading the old one
        self._plans = dict([*plans.items(), (key, found)][-KEPT:])
        return found

    def _read(self, tokens: int, like: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Read the pattern of so many tokens; nothing where heads differ. Raises NotApplicable."""
        for row in (0, tokens // 2, tokens - 1):
            self._pattern.confirm(row, row + 1, tokens, like, row + 1)
        ends = torch.zeros(tokens, dtype=torch.long), torch.full((tokens,), tokens)
        found = []
        for _, kept, _ in planning.read(self._pattern, Span(tokens, tokens, 0, *ends), ROWS, like):
            if not bool((kept[1:] == kept[:1]).all()):
                return []
            found.append(planning.narrow(kept[0]))
        return found

    def _of(self, seen: Span, groups: int) -> Plan:
        strips: list[Strip] = []
        lost: list[Tensor] = []
        computed = 0
        for (columns, kept), start in zip(self._bands, range(0, seen.queries, ROWS), strict=False):
            stop = min(start + ROWS, seen.queries)
            visible = seen.visible(start, stop, seen.keys)
            inside = columns[columns < seen.keys]
            left = kept[: stop - start, : len(inside)] & visible[:, inside]
            place, part = planning.narrow(left)
            inside = inside[place] if len(inside) else place
            strips.append(planning.strip(start, inside, part, strips[-1] if strips else None))
            lost.append(visible.any(-1) & ~part.any(-1))
            computed += part.numel()
        heads = self._pattern.site.heads
        gone = torch.cat(lost).expand(heads, -1).flatten().nonzero().flatten()
        entries = heads * int((seen.high - seen.low).sum())
        cost = (heads * computed + planning.STARTING * len(strips)) / max(1, entries)
        return Plan(seen, groups, gone, cost, strips)


def near(applied: Sequence[Applied], site: Site, room: sparse.Room) -> Near | None:
    """Return what attends for the methods of one site, None where they do more than hide.

    What has no name is in no registry: it may be there to look, as `watch` is.
    """
    methods = [method for each in applied for method in each.methods if method.selects(site)]
    if not (methods and site.heads and all(method.name and hides_alone(method) for method in methods)):
        return None
    return Near(methods, site, room) if len({method.empty for method in methods}) == 1 else None
