"""A prompt that is read once: one method after another cuts what it left, the model is not asked again.

What a method for caches does changes nothing of the prompt's own pass. So its queries, keys and values, of
one dense pass, are all that any of them needs.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from attnbench.engine.places import routing
from attnbench.engine.places.blocks import Block, blocks
from attnbench.engine.serving.applied import Place
from attnbench.engine.serving.cutting import Cutting
from attnbench.engine.serving.dispatch import Engine
from attnbench.engine.serving.rotations import Made
from attnbench.engine.serving.scored import Stages
from attnbench.engine.serving.turns import HELD, Turn
from attnbench.methods.protocol import Method, overridden


@dataclass
class Call:
    """What one place's attention was called with for a prompt, but for its tensors."""

    module: nn.Module
    layer: int
    scale: float
    softcap: float | None
    rotation: tuple[Tensor, Tensor] | None


@dataclass
class Reading:
    """What a prompt of so many tokens left, by the key of each place.

    `tensors` holds queries (1, heads, tokens, head_dim), keys and values (1, key-value heads, tokens,
    head_dim).
    """

    tokens: int
    calls: dict[str, Call] = field(default_factory=dict)
    tensors: dict[str, tuple[Tensor, Tensor, Tensor]] = field(default_factory=dict)
    rotary: list[Made] = field(default_factory=list)
    plain: bool = True  # each query sees all keys up to its own, by no bias

    def take(
        self,
        engine: Engine,
        place: Place,
        module: nn.Module,
        tensors: tuple[Tensor, Tensor, Tensor],
        scaling: float | None,
        softcap: float | None,
        more: tuple[Tensor | None, Tensor | None, int | None],
    ) -> Stages:
        """Keep one attention call, and return what acts on it: nothing."""
        query, key, _ = tensors
        mask, bias, window = more
        found = blocks(place.site.kind, query, key, mask, True)
        alone = len(found) == 1 and found[0].shape() == (1, self.tokens, self.tokens)
        shifted = bias is not None or any(block.bias is not None for block in found)
        self.plain &= alone and not shifted and window is None and hasattr(module, "layer_idx")
        turn = engine.now.turn
        if self.plain and turn is not None:
            scale = query.shape[-1] ** -0.5 if scaling is None else scaling
            layer = int(module.layer_idx)  # type: ignore[arg-type]
            rotation = turn.rotations.get(place.site.path)
            self.calls[place.key] = Call(module, layer, scale, softcap, rotation)
            self.tensors[place.key] = tensors
            self.rotary = self.rotary or [_small(made) for made in turn.rotary]
        return Stages()


def recalls(model: nn.Module) -> bool:
    """Tell whether what is applied to a model does nothing but cut caches of prompts that are complete.

    A method that installs other weights, looks ahead at what follows the prompt or cuts again does more.
    """
    engine = routing.serving(model)
    if type(engine) is not Engine or not engine.cutters.number:
        return False
    methods = [method for applied in engine.applied for method in applied.methods]
    return all(
        set(overridden(method)) == {"cache"}
        and type(method).installed is Method.installed
        and not method.ahead
        and not method.interval()
        for method in methods
    )


@torch.no_grad()
def read(model: nn.Module, ids: Tensor) -> Reading | None:
    """Read one prompt (1, tokens) densely; None where its attention is more than a causal one, or more than
    keys and values is remembered of it.

    Only within a block of `apply`, where `recalls`.
    """
    engine: Any = routing.serving(model)
    engine.now.reading = reading = Reading(ids.shape[1])
    try:
        cache = model(input_ids=ids, use_cache=True).past_key_values
    finally:
        engine.now.reading = None
    whole = all(place.key in reading.calls for place in engine.places)
    return reading if whole and reading.plain and _all_that_is_kept(reading, cache) else None


def _all_that_is_kept(reading: Reading, cache: Any) -> bool:
    """Tell whether a model's own cache holds what its attention was called with, and nothing else.

    One that keeps keys in another form, or states of other layers, would not go on from ours.
    """
    layers = getattr(cache, "layers", ())
    calls = {call.layer: reading.tensors[key][1:] for key, call in reading.calls.items()}
    if sorted(calls) != [*range(len(layers))] or len(calls) != len(reading.calls):
        return False
    return all(
        type(layer) is DynamicLayer
        and layer.keys is not None
        and layer.values is not None
        and torch.equal(layer.keys, calls[k][0])
        and torch.equal(layer.values, calls[k][1])
        for k, layer in enumerate(layers)
    )


@torch.no_grad()
def cut(model: nn.Module, reading: Reading) -> DynamicCache:
    """Return the cache of a prompt that was read, cut by what is applied to the model now."""
    engine: Any = routing.serving(model)
    turn, cache = Turn(engine.cutters.number, engine.layers, None, None, True), DynamicCache()
    turn.rotary = reading.rotary
    whole = Block(slice(0, 1), slice(0, reading.tokens), slice(0, reading.tokens))
    for place in engine.places:
        call, tensors = reading.calls[place.key], reading.tensors[place.key]
        cache.update(tensors[1], tensors[2], call.layer)
        if place.stages.cache:
            if call.rotation is not None:
                turn.rotations[place.site.path] = call.rotation
            Cutting(place, turn, call.module, call.scale, call.softcap).take(whole, *tensors)
    for applied in engine.applied:
        applied.notes.update(note for _, note in turn.notes)
    setattr(cache, HELD, turn.memory)
    return cache


def _small(made: Made) -> Made:
    """Drop the hidden states that a rotary module was given: their dtype and device are all it reads."""
    module, args, kwargs, result = made
    return module, tuple(map(_bare, args)), {name: _bare(value) for name, value in kwargs.items()}, result


def _bare(value: Any) -> Any:
    if not isinstance(value, Tensor) or not value.is_floating_point() or value.dim() < 3:
        return value
    return value.new_zeros(()).expand(value.shape)
