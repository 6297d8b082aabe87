"""Serve one model while methods are applied to it: plan what acts where, count that it did."""

from __future__ import annotations

import contextlib
import threading
import weakref
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, UntypedStorage, nn
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from attnbench.engine.places import origins, routing, sites
from attnbench.engine.places.blocks import Rows, blocks, rows_of
from attnbench.engine.realised.near import near
from attnbench.engine.realised.sparse import Room
from attnbench.engine.serving import turns
from attnbench.engine.serving.applied import Applied, Place, plan
from attnbench.engine.serving.cutting import Cutting
from attnbench.engine.serving.prompts import Cutters, require_caches
from attnbench.engine.serving.scored import Scratch
from attnbench.engine.serving.shown import Shown, cannot_show, wanted
from attnbench.engine.serving.tiles import attend

PLANNED = ("stages", "hidden", "reach", "reach_hidden", "cutting", "near")  # of a place, by what is applied


class Pass(threading.local):
    """What one thread's pass through the model has come to."""

    def __init__(self, scratches: weakref.WeakSet[Scratch]) -> None:
        self.calls: dict[str, int] = defaultdict(int)
        self.scratch = Scratch()
        scratches.add(self.scratch)
        # where the decoder's queries stand, and its padding: a cross-attention cannot tell by itself
        self.rows: list[Rows] | None = None
        self.turn: turns.Turn | None = None  # where prompts end, while caches are cut
        self.shown = False  # the call asks for attentions
        self.depth = 0  # of calls of the model within each other
        self.reading: Any = None  # keeps what a dense pass is called with, in place of every stage

    def begin(self, shown: bool) -> None:
        self.calls.clear()
        self.rows, self.shown = None, shown


class Engine:
    """Serves one model while methods are applied to it; outer methods act before inner ones."""

    def __init__(self, model: nn.Module) -> None:
        found = sites.discover(model, headless=True)
        self.model = weakref.ref(model)
        calls: dict[str, int] = defaultdict(int)
        seen: set[tuple[str, int]] = set()
        self.applied: list[Applied] = []
        self._plans: dict[tuple[int, ...], list[dict[str, Any]]] = {}  # of the blocks that are not paused
        self.places: list[Place] = []
        self.at: dict[str, list[Place]] = defaultdict(list)  # a shared module's path has one place a call
        for site in found:
            call = calls[site.path]
            calls[site.path] += 1
            layer = layer_of(model, site.path)
            first = layer is not None and (layer, call) not in seen
            seen.add((layer or "", call))
            place = Place(site, f"{site.path}#{call}" if call else site.path, layer if first else None)
            self.places.append(place)
            self.at[site.path].append(place)
        self.paths = {module: path for path, module in model.named_modules() if path in self.at}
        self.layers = 0
        for place in self.places:
            place.rank, self.layers = self.layers, self.layers + bool(place.site.heads)
        self.cutters = Cutters()
        self.scratches: weakref.WeakSet[Scratch] = weakref.WeakSet()
        self.now, self.room = Pass(self.scratches), Room()

    def lent(self) -> list[UntypedStorage]:
        """Return the memory whose views stages were given, in whatever thread."""
        return [memory for scratch in self.scratches for memory in scratch.lent()]

    def attached(self, model: nn.Module) -> contextlib.AbstractContextManager[None]:
        """Answer for the model's attention for a while."""
        return routing.attached(model, self)

    def push(self, applied: Applied) -> None:
        require_caches(self.model(), applied.methods, self.places)
        self.applied.append(applied)
        applied.places = self.places
        self._begin()

    def pop(self, applied: Applied) -> None:
        self.applied = [other for other in self.applied if other is not applied]
        self._begin()

    def pause(self, chosen: Sequence[Applied], paused: bool) -> None:
        """Let blocks rest, or act again: for some passes, between which nothing is planned anew."""
        for applied in chosen:
            applied.paused = paused
        self._plan()

    def _begin(self) -> None:
        self._plans.clear()
        for applied in self.applied:
            applied.guards.clear()
        self._plan()

    def _plan(self) -> None:
        active = [applied for applied in self.applied if not applied.paused]
        known = self._plans.setdefault(tuple(map(id, active)), [])
        for number, place in enumerate(self.places):
            if number == len(known):
                plan(place, active)
                place.near = near(active, place.site, self.room)
                known.append({name: getattr(place, name) for name in PLANNED})
            vars(place).update(known[number])
        self.cutters.become([method for applied in active for method in applied.methods])
        self.crossing = any(place.site.kind == "cross" and place.reach for place in self.places)

    def __call__(
        self,
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Tensor | None,
        scaling: float | None = None,
        dropout: float = 0.0,
        is_causal: bool | None = None,
        position_bias: Tensor | None = None,
        softcap: float | None = None,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor | None]:
        path, place = self.paths[module], self.place_of(module)
        stages, kind = place.stages, place.site.kind
        if self.now.reading is not None:
            more = mask, position_bias, kwargs.get("sliding_window")
            stages = self.now.reading.take(self, place, module, (query, key, value), scaling, softcap, more)
        for hits in place.reach if stages is place.stages else ():
            hits[place.key] += 1
        causal = kind == "decoder" and is_causal is not False
        if kind == "decoder" and self.crossing:
            self.now.rows = rows_of(blocks(kind, query, key, mask, causal), len(query))
        dropout = dropout if module.training else 0.0
        shown = Shown() if self.now.shown else None
        if not (stages.acting() or softcap is not None or shown):
            kwargs |= {"scaling": scaling, "dropout": dropout, "is_causal": is_causal}
            kwargs["position_bias"] = position_bias
            return sdpa_attention_forward(module, query, key, value, mask, **kwargs)
        if kind == "decoder":
            origins.require_positions(path, query.shape[2], key.shape[2], mask, kwargs.get("sliding_window"))
        cutting, turn = None, self.now.turn
        if stages.cache and turn is not None:
            if shown is not None:
                raise cannot_show(path)
            scale = query.shape[-1] ** -0.5 if scaling is None else scaling
            window = kwargs.get("sliding_window")
            cutting = Cutting(place, turn, module, scale, softcap, position_bias, window)
        context = attend(
            place.site, stages, self.now.scratch, query, key, value, mask, scaling=scaling, dropout=dropout,
            causal=causal, rows=self.now.rows if kind == "cross" else None, position_bias=position_bias,
            softcap=softcap, cutting=cutting, shown=shown, skip=place.skip or place.near,
        )  # fmt: skip
        if place.reach:
            place.add(context)
        return context, None if shown is None else shown.probs

    def place_of(self, module: nn.Module) -> Place:
        """Return the place whose turn it is among those of an attention module."""
        path = self.paths[module]
        return self._next(path, self.at[path])

    def _next(self, name: str, places: list[Place]) -> Place:
        if len(places) == 1:
            return places[0]
        call = self.now.calls[name]
        self.now.calls[name] = (call + 1) % len(places)
        return places[call]

    @contextlib.contextmanager
    def hooks(self, model: nn.Module) -> Iterator[None]:
        """Hook into the model's start, to count calls from zero, and into the input of every layer."""
        layers: dict[str, list[Place]] = defaultdict(list)
        for place in self.places:
            if place.layer is not None:
                layers[place.layer].append(place)
        modules = dict(model.named_modules())
        # no bound method: a copy of the model would copy the engine
        begin = torch.compiler.disable(lambda called, _, given: self.now.begin(wanted(called, given)))
        handles = [model.register_forward_pre_hook(begin, with_kwargs=True)]
        for path, places in layers.items():
            change = torch.compiler.disable(self._on_input(f"{path} input", places))
            handles.append(modules[path].register_forward_pre_hook(change, with_kwargs=True))
        handles += turns.watching(model, self)
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _on_input(self, name: str, places: list[Place]) -> Callable[..., Any]:
        def change(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            place = self._next(name, places)
            if not place.hidden:
                return None
            for hits in place.reach_hidden:
                hits[place.key] += 1
            hidden = args[0] if args else kwargs["hidden_states"]
            if not hidden.requires_grad:
                hidden = hidden.clone()
            for stage in place.hidden:
                hidden = stage(hidden, place.site)
            place.add(hidden)
            return ((hidden, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": hidden})

        return change


def layer_of(model: nn.Module, path: str) -> str | None:
    """Return the path of the outermost list element that contains a module: its layer."""
    module, parts = model, path.split(".")
    for place, part in enumerate(parts):
        if isinstance(module, nn.ModuleList):
            return ".".join(parts[: place + 1])
        module = getattr(module, part)
    return None
