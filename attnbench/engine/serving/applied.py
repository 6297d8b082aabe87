"""The places of a model where it attends: what acts there, whether it was reached and what came of it."""

from __future__ import annotations

import gc
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor, UntypedStorage

from attnbench.engine.places.blocks import Block
from attnbench.engine.serving.guard import CacheGuard, Guard, StageError, require_not_held
from attnbench.engine.serving.scored import Stages
from attnbench.errors import NotApplicable, UserError
from attnbench.methods.prompt import Kept
from attnbench.methods.protocol import Method, Site, overridden

BITS = 16  # of a value that is kept as it is
ATTENTION = {"queries", "keys", "values", "scores", "normalize", "probs", "context"}
INSIDE = ATTENTION | {"cache"}


@dataclass
class Tally:
    """What methods left of prompts so far: sums over prompts, sites and key-value heads."""

    seen: float = 0
    tokens: Tensor | float = 0.0
    bits: Tensor | float = 0.0

    def add(self, kept: Kept, heads: int, tokens: int) -> None:
        """Count one prompt at one site; each counts alike, whatever its length."""
        share: Tensor | float = 1.0 if kept.tokens is None else kept.tokens.double().mean()
        width: Tensor | float = share
        if kept.bits is not None:
            bits = torch.as_tensor(kept.bits).double().expand(heads, tokens)
            width = (bits if kept.tokens is None else bits * kept.tokens.to(bits.device)).mean() / BITS
        self.seen += 1
        self.tokens = self.tokens + share
        self.bits = self.bits + width


@dataclass
class Applied:
    """What `apply` did: `expected` sites where a method acts, `hits` calls of each site so far.

    Of methods for caches: `scored` predictions, of which the queries of `cut` saw a cut cache, what they left
    and the notes they made.
    """

    methods: tuple[Method, ...]
    sites: list[Site]
    acting: set[str] = field(default_factory=set)
    hits: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    guards: list[Guard | CacheGuard] = field(default_factory=list)
    places: list[Place] = field(default_factory=list)
    cutting: set[str] = field(default_factory=set)  # the places where caches are cut
    tally: Tally = field(default_factory=Tally)
    scored: float = 0
    cut: float = 0
    notes: Counter[str] = field(default_factory=Counter)
    paused: bool = False  # as if its block were not there

    def cached(self) -> dict[str, float]:
        """Return what is kept of prompts, mean over prompts, layers and key-value heads; empty without any.

        cache   tokens kept of those seen
        kv      bits kept over 16 bits a value
        """
        acting = len(self.cutting)
        layers = sum(bool(place.site.heads) for place in self.places)
        if not self.tally.seen:
            return {}
        rest = layers - acting  # whole
        found = {"cache": self.tally.tokens, "kv": self.tally.bits}
        return {
            name: (float(total) / self.tally.seen * acting + rest) / layers for name, total in found.items()
        }

    @property
    def expected(self) -> int:
        return len(self.acting)

    @property
    def hit(self) -> int:
        return sum(self.hits.get(key, 0) > 0 for key in self.acting)

    def strange(self) -> str:
        """Say where values that are not finite came first, and of which methods; nothing where all are."""
        for place in self.places:
            if place.total is not None and not bool(place.total.isfinite()):
                site = place.site
                acting = [method for method in self.methods if overridden(method) and method.selects(site)]
                names = "+".join(method.name or type(method).__name__ for method in acting)
                where = f"{site.path} ({site.kind} layer {site.layer})"
                return f"{names} at {where} made values that are not finite"
        return ""


def require_nothing_kept(blocks: Sequence[Applied], lent: Iterable[UntypedStorage]) -> None:
    """Raise StageError where a method holds a tensor or memory that was lent to its stages, wherever.

    `blocks` from the outermost. Nested ones are lent the same tensors: where no attribute holds one, each of
    them is named, the innermost first.
    """
    require_not_held([method for block in blocks for method in block.methods], lent)
    suspects = [guard for block in reversed(blocks) for guard in block.guards if guard.lent]
    if suspects:
        gc.collect()  # what is only part of a cycle is not kept
        names = dict.fromkeys(guard.name for guard in suspects if guard.lent)
        if names:
            whose = " or ".join(f"{name}'s" for name in names)
            raise StageError(f"{whose} tensor is kept: its memory is used again. Clone it.")


class Skip(Protocol):
    """Attends to what `terms` stages on scores leave, writes to `out`; False where it does not."""

    terms: int

    def __call__(
        self, block: Block, query: Tensor, key: Tensor, value: Tensor, scale: float, out: Tensor, /
    ) -> bool: ...


@dataclass
class Place:
    """A site, its key in `Applied.hits`, its layer's path if it is the first there, and what acts on it."""

    site: Site
    key: str
    layer: str | None
    stages: Stages = field(default_factory=Stages)
    hidden: list[Callable[[Tensor, Site], Tensor]] = field(default_factory=list)
    reach: list[dict[str, int]] = field(default_factory=list)
    reach_hidden: list[dict[str, int]] = field(default_factory=list)
    cutting: list[Applied] = field(default_factory=list)  # whose methods cut caches here
    rank: int = 0
    skip: Skip | None = None  # of a realised model
    near: Skip | None = None
    total: Tensor | None = None  # of all that methods made of it, in any thread
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, tensor: Tensor) -> None:
        """Add to the total, which a value that is not finite makes so for good, without a wait for a GPU."""
        total = tensor.detach().sum(dtype=torch.promote_types(tensor.dtype, torch.float32))
        with self.lock:
            self.total = total if self.total is None else self.total + total


def plan(place: Place, active: Sequence[Applied]) -> None:
    """Settle what acts at a place, of blocks from the outermost one on."""
    place.stages, place.hidden, place.reach, place.reach_hidden = Stages(), [], [], []
    place.cutting = []
    for applied in active:
        acting = [method for method in applied.methods if method.selects(place.site)]
        for method in acting:
            _add(place, applied, method)
        changed = {stage for method in acting for stage in _acting(place, method)}
        if "cache" in changed:
            place.cutting.append(applied)
            applied.cutting.add(place.key)
        if changed & INSIDE:
            place.reach.append(applied.hits)
        elif "hidden" in changed and place.layer is not None:
            place.reach_hidden.append(applied.hits)
        else:
            continue
        applied.acting.add(place.key)


def _add(place: Place, applied: Applied, method: Method) -> None:
    stages, acting = place.stages, _acting(place, method)
    guards = {stage: Guard(method, stage) for stage in acting if stage != "cache"}
    applied.guards += guards.values()
    if "cache" in acting:
        stages.cache.append(CacheGuard(method))
        applied.guards.append(stages.cache[-1])
    if "hidden" in guards and place.layer is not None:
        place.hidden.append(guards["hidden"])
    if "normalize" in guards:
        if stages.normalize is not None:
            raise UserError(f"{method.name}: another method replaces the softmax already")
        stages.normalize = guards["normalize"]
    for stage in ("queries", "keys", "values", "scores", "probs", "context"):
        if stage in guards:
            getattr(stages, stage).append(guards[stage])
    stages.whole |= method.rows == "all" and bool(INSIDE & set(acting))


def _acting(place: Place, method: Method) -> tuple[str, ...]:
    """List the stages of a method that a place has: without heads, its input alone."""
    return tuple(stage for stage in overridden(method) if place.site.heads or stage not in INSIDE)


def require_reach(method: Method, text: str, places: Sequence[Place]) -> list[Site]:
    """Return the sites with heads that a method selects. Raises NotApplicable where it acts at none."""
    limits = [*(f"on={kind}" for kind in method.on), *(f"layers={layers}" for layers in method.layers)]
    where = " ".join(limits) or "all"
    reached = [place for place in places if method.selects(place.site)]
    chosen = [place.site for place in reached if place.site.heads]
    if "hidden" in overridden(method) and all(place.layer is None for place in reached):
        raise NotApplicable(f"{text}: no layer begins at {where}")
    if not chosen and set(overridden(method)) != {"hidden"}:
        raise NotApplicable(f"{text}: no attention at {where}{_there(places) if limits else ''}")
    return chosen


def _there(places: Sequence[Place]) -> str:
    """Say which layers of which kinds attend."""
    kinds: dict[str, list[int]] = defaultdict(list)
    for place in places:
        if place.site.heads:
            kinds[place.site.kind].append(place.site.layer)
    return "".join(f". It attends at {kind} {numbered(layers)}" for kind, layers in kinds.items())


def numbered(layers: Iterable[int]) -> str:
    """Write numbers of layers, neighbours joined: 0-2, 5."""
    parts: list[list[int]] = []
    for layer in sorted(set(layers)):
        if parts and parts[-1][-1] == layer - 1:
            parts[-1].append(layer)
        else:
            parts.append([layer])
    return ", ".join(f"{part[0]}-{part[-1]}" if len(part) > 1 else str(part[0]) for part in parts)
