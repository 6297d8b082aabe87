"""Attend to what methods leave, and to nothing else, where they hide the same entries of every text."""

from __future__ import annotations

import contextlib
import math
import warnings
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from attnbench.engine.places.blocks import Block
from attnbench.engine.realised import flexible, planning, sparse
from attnbench.engine.realised.patterns import Pattern, hides_alone
from attnbench.engine.realised.plans import PAYS, Plan
from attnbench.engine.realised.spans import Span, span
from attnbench.engine.serving.attention import apply
from attnbench.errors import NotApplicable
from attnbench.methods.protocol import Method, Site

__all__ = ["Skip", "Tally", "hides_alone", "require_skipped", "skipped", "tally"]

FEW = 8  # queries, as a text that is generated has them: not worth a word
FEW_KEYS = 1 << 12  # up to so many of them, to plan for few queries costs more than it saves
KEPT = 16  # plans of a site that are kept, one for every length of text


@dataclass
class Tally:
    """What became of the calls in a realised block: examples that were skipped through, and why others not.

    `kept` sums the share of the visible entries that was computed, by the cost that a plan has.
    """

    done: int = 0
    kept: float = 0.0
    reasons: dict[str, int] = field(default_factory=dict)
    forced: bool = False  # to check the answers: whether it pays or not
    told: bool = False  # why something is simulated
    room: sparse.Room = field(default_factory=sparse.Room)

    def tell(self, reason: str, examples: int, aloud: bool) -> None:
        """Count examples that are simulated, and say so once."""
        self.reasons[reason] = self.reasons.get(reason, 0) + examples
        if aloud and not self.told:
            self.told = True
            warnings.warn(f"simulated, not realised: {reason}", stacklevel=2)

    @contextlib.contextmanager
    def checking(self) -> Iterator[None]:
        """Skip whether it pays or not, and say and count nothing of it."""
        self.forced = self.told = True
        try:
            yield
        finally:
            self.__init__()  # type: ignore[misc]


_tallies: WeakKeyDictionary[nn.Module, Tally] = WeakKeyDictionary()


def tally(model: nn.Module) -> Tally | None:
    """Return what became of a model's calls, None where nothing of it is skipped."""
    return _tallies.get(model)


def require_skipped(model: nn.Module, batch: Mapping[str, Tensor]) -> None:
    """Run a batch, so that what it needs is planned. Raises NotApplicable where nothing is skipped."""
    known = tally(model)
    if known is None:
        return
    known.told = True
    with torch.no_grad():
        model(**batch)
    if not known.done:
        raise NotApplicable(next(iter(known.reasons), "nothing is hidden"))


class Skip:
    """Attends in place of one site's stages on scores, which hide the same of every text."""

    def __init__(self, methods: Sequence[Method], site: Site, heads: Sequence[int], tally: Tally) -> None:
        self.pattern = Pattern(methods, site, heads)
        self.terms = len(methods)
        self.name = "+".join(method.name for method in methods)
        self.uniform = all(method.empty == "uniform" for method in methods)
        self.tally = tally
        self.plans: OrderedDict[object, Plan | str] = OrderedDict()

    def __call__(
        self, block: Block, query: Tensor, key: Tensor, value: Tensor, scale: float, out: Tensor
    ) -> bool:
        """Write the context of a block into `out` (batch, queries, heads, head_dim); False: simulated."""
        examples = block.examples.stop - block.examples.start
        found = self._plan(block, query, query.shape[1] // key.shape[1])
        if isinstance(found, str):
            self.tally.tell(found, examples, block.shape()[1] > FEW)
            return False
        sparse.attend_block(found, block, query, key, value, scale, self.uniform, self.tally.room, out)
        self.tally.done += examples
        self.tally.kept += examples * found.cost
        return True

    def _plan(self, block: Block, query: Tensor, groups: int) -> Plan | str:
        """Return the plan for a block, or why there is none."""
        seen = span(block)
        if seen is None or block.bias is not None:
            return f"{self.name}: the model's own mask is none of runs of keys"
        if seen.queries <= FEW and seen.keys < FEW_KEYS and not self.tally.forced:
            return f"{self.name} on {seen.queries} queries: too few"
        key = seen.key, query.device, query.dtype, self.tally.forced
        if key not in self.plans:
            self.plans[key] = self._make(seen, query[:0], groups)
            if len(self.plans) > KEPT:
                self.plans.popitem(last=False)
        self.plans.move_to_end(key)
        return self.plans[key]

    def _make(self, seen: Span, like: Tensor, groups: int) -> Plan | str:
        way = {"cpu": planning.plan, "cuda": flexible.plan}.get(like.device.type)
        if way is None:
            return f"{self.name}: no way to skip on {like.device.type}"
        try:
            return way(self.pattern, seen, like, groups, math.inf if self.tally.forced else PAYS)
        except NotApplicable as reason:
            return f"{self.name} on {seen.queries} queries and {seen.keys} keys: {reason}"


@contextlib.contextmanager
def skipped(
    model: nn.Module, methods: Sequence[Method], kept: Mapping[tuple[str, int], tuple[Site, Sequence[int]]]
) -> Iterator[Tally]:
    """Let a model attend to what methods leave, and to nothing else, until the block ends.

    `kept` are the sites of the whole model, and the heads of each that are still there.
    """
    found = Tally()
    if len({method.empty for method in methods}) > 1:
        names = " and ".join(method.name for method in methods)
        raise NotApplicable(f"{names} differ in what a query with nothing left attends to: only simulated")
    with apply(model, *methods) as applied:
        for place in applied.places:
            site, heads = kept.get((place.site.kind, place.site.layer), (place.site, ()))
            acting = [method for method in methods if method.selects(site)]
            if acting and heads:
                place.skip = Skip(acting, site, heads, found)
        _tallies[model] = found
        try:
            yield found
        finally:
            del _tallies[model]
            for place in applied.places:
                place.skip = None
