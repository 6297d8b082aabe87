"""Apply methods to a model for a while, watch what its attention does, try a stage on a tensor."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from attnbench import sites
from attnbench.errors import UserError
from attnbench.method import Method, Site, fitted, needs_fit, overridden
from attnbench.tiles import Scratch, Stages, attend

ATTENTION = {"scores", "normalize", "probs", "context"}
Watcher = Callable[[Tensor, Site], None]


@dataclass
class Applied:
    """What `apply` did: `expected` sites where a method acts, `hits` calls of each site so far."""

    methods: tuple[Method, ...]
    sites: list[Site]
    acting: set[str] = field(default_factory=set)
    hits: dict[str, int] = field(default_factory=lambda: defaultdict(int))

    @property
    def expected(self) -> int:
        return len(self.acting)

    @property
    def hit(self) -> int:
        return sum(self.hits.get(key, 0) > 0 for key in self.acting)


@dataclass
class Place:
    """A site, its key in `Applied.hits`, the path of its layer where it is the first site of it, and what acts there."""

    site: Site
    key: str
    layer: str | None
    stages: Stages = field(default_factory=Stages)
    hidden: list[Callable[[Tensor, Site], Tensor]] = field(default_factory=list)
    reach: list[dict[str, int]] = field(default_factory=list)
    reach_hidden: list[dict[str, int]] = field(default_factory=list)


class Engine:
    """Serves one model while methods are applied to it; outer methods act before inner ones."""

    def __init__(self, model: nn.Module) -> None:
        found = sites.discover(model)
        calls: dict[str, int] = defaultdict(int)
        seen: set[tuple[str, int]] = set()
        self.applied: list[Applied] = []
        self.places: list[Place] = []
        self.at: dict[str, list[Place]] = defaultdict(list)  # a shared module's path has one place a call
        for site in found:
            call = calls[site.path]
            calls[site.path] += 1
            layer = _layer(model, site.path)
            first = layer is not None and (layer, call) not in seen
            seen.add((layer or "", call))
            place = Place(site, f"{site.path}#{call}" if call else site.path, layer if first else None)
            self.places.append(place)
            self.at[site.path].append(place)
        self.paths = {module: path for path, module in model.named_modules() if path in self.at}
        self.calls: dict[str, int] = defaultdict(int)
        self.scratch = Scratch()

    def push(self, applied: Applied) -> None:
        self.applied.append(applied)
        self._plan()

    def pop(self, applied: Applied) -> None:
        self.applied = [other for other in self.applied if other is not applied]
        self._plan()

    def _plan(self) -> None:
        for place in self.places:
            place.stages, place.hidden, place.reach, place.reach_hidden = Stages(), [], [], []
            for applied in self.applied:
                acting = [method for method in applied.methods if method.selects(place.site)]
                for method in acting:
                    self._add(place, method)
                changed = {stage for method in acting for stage in overridden(method)}
                if changed & ATTENTION:
                    place.reach.append(applied.hits)
                elif "hidden" in changed and place.layer is not None:
                    place.reach_hidden.append(applied.hits)
                else:
                    continue
                applied.acting.add(place.key)

    def _add(self, place: Place, method: Method) -> None:
        stages, changed = place.stages, overridden(method)
        if "hidden" in changed and place.layer is not None:
            place.hidden.append(method.hidden)
        if "normalize" in changed:
            if stages.normalize is not None:
                raise UserError(f"{method.name}: another method replaces the softmax already")
            stages.normalize = method.normalize
        for stage in ("scores", "probs", "context"):
            if stage in changed:
                getattr(stages, stage).append(getattr(method, stage))
        stages.whole |= method.rows == "all" and bool(ATTENTION & set(changed))
        stages.uniform |= method.empty == "uniform" and "scores" in changed

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
    ) -> tuple[Tensor, None]:
        path = self.paths.get(module)
        places = self.at[path] if path is not None else []
        place = self._next(path or "", places)
        stages = place.stages if place else Stages()
        for hits in place.reach if place else ():
            hits[place.key] += 1
        dropout = dropout if module.training else 0.0
        if place is None or not (stages.on_scores() or stages.context or softcap is not None):
            more = {
                "dropout": dropout,
                "scaling": scaling,
                "is_causal": is_causal,
                "position_bias": position_bias,
                **kwargs,
            }
            return sdpa_attention_forward(module, query, key, value, mask, **more)
        causal = place.site.kind == "decoder" and is_causal is not False
        context = attend(
            place.site,
            stages,
            self.scratch,
            query,
            key,
            value,
            mask,
            scaling=scaling,
            dropout=dropout,
            causal=causal,
            position_bias=position_bias,
            softcap=softcap,
        )
        return context, None

    def _next(self, name: str, places: list[Place]) -> Place | None:
        if len(places) < 2:
            return places[0] if places else None
        call = self.calls[name]
        self.calls[name] = (call + 1) % len(places)
        return places[call]

    @contextlib.contextmanager
    def hooks(self, model: nn.Module) -> Iterator[None]:
        """Hook into the model's start, to count calls from zero, and into the input of every layer."""
        layers: dict[str, list[Place]] = defaultdict(list)
        for place in self.places:
            if place.layer is not None:
                layers[place.layer].append(place)
        modules = dict(model.named_modules())
        handles = [model.register_forward_pre_hook(lambda *_: self.calls.clear())]
        for path, places in layers.items():
            handles.append(
                modules[path].register_forward_pre_hook(
                    self._on_input(f"{path} input", places), with_kwargs=True
                )
            )
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _on_input(self, name: str, places: list[Place]) -> Callable[..., Any]:
        def change(
            module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
        ) -> tuple[Any, Any] | None:
            place = self._next(name, places)
            if place is None or not place.hidden:
                return None
            for hits in place.reach_hidden:
                hits[place.key] += 1
            hidden = args[0] if args else kwargs["hidden_states"]
            if not hidden.requires_grad:
                hidden = hidden.clone()
            for stage in place.hidden:
                hidden = stage(hidden, place.site)
            return ((hidden, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": hidden})

        return change


def _layer(model: nn.Module, path: str) -> str | None:
    """Return the path of the outermost list element that contains a module: its layer."""
    module, parts = model, path.split(".")
    for place, part in enumerate(parts):
        if isinstance(module, nn.ModuleList):
            return ".".join(parts[: place + 1])
        module = getattr(module, part)
    return None


def methods_of(specs: Iterable[Method | str]) -> tuple[Method, ...]:
    """Read specs, keep methods."""
    methods: list[Method] = []
    for item in specs:
        if isinstance(item, str):
            from attnbench.spec import parse

            methods += parse(item)
        else:
            methods.append(item)
    return tuple(methods)


@contextlib.contextmanager
def apply(model: nn.Module, *methods: Method | str) -> Iterator[Applied]:
    """Change a model's attention by methods or a spec string, until the block ends.

    Nested blocks compose: inner methods act after outer ones. Raises UserError for a method that is not fitted yet or
    an architecture that is not supported.
    """
    wanted = methods_of(methods)
    for method in wanted:
        if needs_fit(method) and not fitted(method):
            raise UserError(f"{method.name} learns from data: call its fit(model, batches) first")
    applied = Applied(wanted, sites.discover(model))
    serving = sites.serving(model)
    with contextlib.ExitStack() as stack:
        if isinstance(serving, Engine):
            engine = serving
        else:
            engine = Engine(model)
            stack.enter_context(sites.attached(model, engine))
            stack.enter_context(engine.hooks(model))
        stack.callback(engine.pop, applied)
        engine.push(applied)
        yield applied


def watch(
    model: nn.Module,
    *,
    scores: Watcher | None = None,
    probs: Watcher | None = None,
    context: Watcher | None = None,
    hidden: Watcher | None = None,
) -> contextlib.AbstractContextManager[Applied]:
    """Show each stage's tensor and site to a function, after the methods applied so far, until the block ends.

    The functions must not change the tensor, and clone what they keep: its memory is used again for the next tile.
    """
    watchers = {"scores": scores, "probs": probs, "context": context, "hidden": hidden}
    stages = {stage: _showing(function) for stage, function in watchers.items() if function is not None}
    return apply(model, type("Watch", (Method,), stages)())


def _showing(function: Watcher) -> Callable[[Method, Tensor, Site], Tensor]:
    def show(self: Method, tensor: Tensor, site: Site) -> Tensor:
        function(tensor, site)
        return tensor

    return show


def transform(spec: Method | str, tensor: Tensor, visible: Tensor | None = None) -> Tensor:
    """Apply the one stage that each fit-less method of a spec overrides to a copy of a tensor.

    `tensor` has the stage's shape or its last axes only: a row of probabilities is enough. `visible` tells which keys
    count. Raises UserError for a method that is fitted or changes several stages.
    """
    shape = (1,) * (4 - tensor.dim()) + tuple(tensor.shape)
    result = tensor.clone()
    for method in methods_of([spec]):
        changed = overridden(method)
        if needs_fit(method) or len(changed) != 1:
            raise UserError(
                f"{method.name} cannot be tried on a tensor: it needs a fit or changes {len(changed)} stages"
            )
        stage = changed[0]
        full = result if stage == "hidden" else result.view(shape)
        seen = None if visible is None else visible.expand(tensor.shape).reshape(shape)
        site = Site("", "encoder", 0, heads=shape[1], head_dim=shape[3], visible=seen)
        full = getattr(method, stage)(full, site)
        if seen is not None and stage in ("normalize", "probs"):
            full = full.masked_fill(~seen, 0)
        result = full.reshape(tensor.shape)
    return result


class _Identity(Method):
    name = "identity"

    def probs(self, probs: Tensor, site: Site) -> Tensor:
        return probs


def compare_with_eager(model: nn.Module, batch: dict[str, Tensor] | None = None) -> float:
    """Return the largest difference of one dense pass through our function from the eager one, padding aside.

    Relative to the largest eager output where that exceeds 1. Raises UserError for an architecture that is not supported.
    """
    batch = sites.probe_batch(model, examples=2, padding=2) if batch is None else batch
    with sites.implementation(model, "eager"):
        expected = sites.run(model, batch)
    with apply(model, _Identity()):
        found = sites.run(model, batch)
    seen = batch.get("decoder_attention_mask" if "decoder_input_ids" in batch else "attention_mask")
    if seen is not None and seen.shape == expected.shape[:2]:
        expected, found = expected[seen.bool()], found[seen.bool()]
    return float((expected - found).abs().max() / expected.abs().max().clamp(min=1))
