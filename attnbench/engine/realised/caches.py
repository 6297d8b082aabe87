"""Serve a model whose caches hold of a prompt only what methods left: dense before, plain SDPA after it."""

from __future__ import annotations

import contextlib
import inspect
import threading
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from attnbench.engine.places import probing, routing, softmax
from attnbench.engine.places.blocks import Block, visible_in
from attnbench.engine.realised.held import Held
from attnbench.engine.serving.applied import Applied, Place
from attnbench.engine.serving.cutting import Cutting
from attnbench.engine.serving.dispatch import Engine
from attnbench.engine.serving.prompts import SHORTEST, bodies_of
from attnbench.engine.serving.turns import Turn, given_to
from attnbench.errors import NotApplicable, UserError
from attnbench.methods.prompt import Kept
from attnbench.methods.protocol import Method, overridden

PROBED = 24  # tokens, of which the first are a prompt
PARTS = (1, 1, 3, 1)  # read after it


def held(method: Method) -> bool:
    """Tell whether all that a method does is to cut caches."""
    return overridden(method) == ("cache",) and type(method).realize is Method.realize


class Holding:
    """Answers for a model's attention while its caches are cut for real."""

    def __init__(self, model: nn.Module, methods: Sequence[Method]) -> None:
        from attnbench.engine.places.sites import discover

        self.engine = Engine(model)
        self.applied = Applied(tuple(methods), discover(model))
        self.engine.push(self.applied)
        self.open = True
        self.layers: Any = partial(Held, self)
        self.now = threading.local()

    def __deepcopy__(self, memo: dict[int, Any]) -> Holding:
        return self  # a copy of a cache is held by the same block

    def reads(self, layer: Held) -> None:
        """Note which layer of a cache is being read. Raises UserError after the block's end."""
        if not self.open:
            raise UserError(
                "this cache is of a block of attnbench.realize that has ended: use it within its block"
            )
        self.now.layer = layer

    def __call__(
        self, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **kwargs: Any
    ) -> tuple[Tensor, None]:
        place, turn = self.engine.place_of(module), self.engine.now.turn
        for hits in place.reach:
            hits[place.key] += 1
        layer: Held | None = getattr(self.now, "layer", None)
        if turn is not None and turn.caching:
            _require(module, layer, key, kwargs)
            assert layer is not None
            if turn.told is not None:
                raise UserError(
                    "a realised cache takes its first pass as the prompt: leave attnbench.prompts out"
                )
            if turn.past:
                mask = layer.mask(mask, query.shape[1], query.shape[2])
        found, _ = sdpa_attention_forward(module, query, key, value, mask, **kwargs)
        if turn is not None and turn.caching and layer is not None and not turn.past:
            layer.keep(self._left(place, turn, module, query, key, value, mask, kwargs.get("scaling")))
        return found, None

    @torch.no_grad()
    def _left(
        self,
        place: Place,
        turn: Turn,
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Tensor | None,
        scaling: float | None,
    ) -> list[tuple[int, Kept]]:
        """Ask the methods what is left of each example's prompt, and say where that begins."""
        turn.memory.end = query.shape[2]
        cutting = Cutting(place, turn, module, query.shape[-1] ** -0.5 if scaling is None else scaling)
        found = []
        for example, (first, end) in enumerate(_spans(mask, len(query), query.shape[2])):
            kept, span = Kept(tokens=_all(key, end - first)), slice(first, end)
            if place.stages.cache and end - first >= SHORTEST:
                block = Block(slice(example, example + 1), span, span)
                kept = cutting.of_whole(block, query, key, value)
                if kept.bits is not None:
                    name = place.stages.cache[-1].name.removesuffix(".cache")
                    raise NotApplicable(
                        f"{name} gives values fewer bits, which only a packed storage "
                        "would save: it is only simulated"
                    )
                if kept.tokens is None:
                    kept.tokens = _all(key, end - first)
            found.append((first, kept))
        return found

    @contextlib.contextmanager
    def serving(self, model: nn.Module) -> Iterator[None]:
        """Let every cache that the model begins in this block be one that is cut."""
        bodies = bodies_of(model, self.engine.at)
        handles = [body.register_forward_pre_hook(self._entering, with_kwargs=True) for body in bodies]
        try:
            with (
                routing.implementation(model, routing.PLAIN),
                routing.registered(model, self),
                self.engine.hooks(model),
            ):
                yield
        finally:
            self.open = False
            for handle in handles:
                handle.remove()

    def _entering(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Make an empty cache, or none where one is wanted, a cache of ours."""
        given = given_to(module, args, kwargs)
        cache, wanted = given.get("past_key_values"), given.get("use_cache")
        if cache is None and (module.config.use_cache if wanted is None else wanted):
            bound = inspect.signature(module.forward).bind_partial(*args, **kwargs)
            bound.arguments["past_key_values"] = Cache(layer_class_to_replicate=self.layers)
            return bound.args, bound.kwargs
        if cache is not None and not int(cache.get_seq_length()):
            self._fill(cache)
        return None

    def _fill(self, cache: Cache) -> None:
        if all(isinstance(layer, Held) and layer.owner is self for layer in cache.layers) and cache.layers:
            return
        plain = all(type(layer) in (DynamicLayer, Held) for layer in cache.layers)
        if not plain or cache.offloading or not isinstance(cache, (DynamicCache, Cache)):
            kinds = ", ".join(sorted({type(layer).__name__ for layer in cache.layers}))
            raise UserError(
                f"{type(cache).__name__} of {kinds}: a realised cache grows by what is read and stays where "
                "it is. Give a DynamicCache of whole layers, or none"
            )
        if cache.layers:
            cache.layers = [Held(self) for _ in cache.layers]
        else:
            cache.layer_class_to_replicate = self.layers


def _require(module: nn.Module, layer: Held | None, key: Tensor, kwargs: dict[str, Any]) -> None:
    """Raise NotApplicable where attention is not of what the cache holds, or no plain one."""
    why = None
    if layer is None or layer.keys is not key:
        why = "does not attend to the very keys that its cache holds"
    elif kwargs.get("sliding_window") is not None:
        why = "attends in a window"
    elif kwargs.get("softcap") is not None or kwargs.get("position_bias") is not None:
        why = "adds to its scores what a cut cache has no place for"
    if why:
        raise NotApplicable(f"{type(module).__name__} {why}: a cache cut there is only simulated")


def _all(key: Tensor, tokens: int) -> Tensor:
    return torch.ones(key.shape[1], tokens, dtype=torch.bool, device=key.device)


def _spans(mask: Tensor | None, examples: int, tokens: int) -> list[tuple[int, int]]:
    """Return where each example's prompt begins and ends. Raises UserError where it has holes."""
    if mask is None:
        return [(0, tokens)] * examples
    seen = visible_in(mask)[:, 0, -1].expand(examples, -1)
    first = seen.to(torch.uint8).argmax(1)
    count = seen.sum(1)
    end = tokens - seen.flip(1).to(torch.uint8).argmax(1)
    if bool((end - first != count)[count > 0].any()):
        raise UserError("a prompt's attention mask has holes: a realised cache needs its tokens in one piece")
    end = torch.where(count > 0, end, first)
    return [*zip(first.tolist(), end.tolist(), strict=True)]


@contextlib.contextmanager
def holding(model: nn.Module, methods: Sequence[Method]) -> Iterator[Holding]:
    """Let a model's caches hold of each prompt only what methods leave of it, until the block ends.

    Raises NotApplicable for a method or an architecture where that cannot be.
    """
    if softmax.needed(model):
        raise NotApplicable(
            f"{type(model).__name__} keeps its attention to itself: a cache cut there is only simulated"
        )
    for method in methods:
        if method.ahead:
            raise NotApplicable(f"{method.name} looks at queries after the prompt: it is only simulated")
        if method.interval():
            raise NotApplicable(f"{method.name} cuts again while it generates: it is only simulated")
    config: Any = model.config
    if any(type(layer) is not DynamicLayer for layer in DynamicCache(config=config).layers):
        raise NotApplicable(
            f"{type(model).__name__} has layers whose cache is a window or a state: one cut there is only "
            "simulated"
        )
    serve = Holding(model, methods)
    with serve.serving(model):
        yield serve


def probe(model: nn.Module) -> Tensor:
    """Return what a model says after two prompts, one of them shorter: read on their cache in pieces."""
    ids = probing.probe_batch(model, examples=2)["input_ids"]
    config: Any = model.config
    longest = getattr(config.get_text_config(), "max_position_embeddings", None) or PROBED
    tokens = min(PROBED, longest)
    ids = ids.repeat(1, -(-tokens // ids.shape[1]))[:, :tokens]
    mask = torch.ones_like(ids)
    mask[-1, :3] = 0
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    takes_positions = "position_ids" in inspect.signature(model.forward).parameters
    cache, done, found = DynamicCache(), 0, []
    with probing.evaluating(model):
        for size in (tokens - sum(PARTS), *PARTS):
            part = slice(done, done + size)
            more = {"position_ids": positions[:, part]} if takes_positions else {}
            output = model(
                ids[:, part], attention_mask=mask[:, : done + size], past_key_values=cache, use_cache=True,
                return_dict=True, **more,
            )  # fmt: skip
            found.append(output[0])
            done += size
    return torch.cat(found[1:], 1)
