"""Serve models that keep their attention to themselves: take the softmax's result inside an attention module.

Scores come with the mask added, probabilities go on to the values: only methods that change `probs` work.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from attnbench.engine.places import routing
from attnbench.engine.places.blocks import read
from attnbench.engine.places.origins import Origin
from attnbench.engine.places.softmax import Tap, eager, needed, visible_in
from attnbench.engine.serving.applied import Applied
from attnbench.engine.serving.dispatch import Engine
from attnbench.errors import NotApplicable
from attnbench.methods.protocol import Method, Site, overridden


def require(model: nn.Module, methods: Sequence[Method]) -> None:
    """Raise NotApplicable for a method that does more than change `probs` of a model that needs a tap."""
    for method in methods if needed(model) else ():
        beyond = [stage for stage in overridden(method) if stage != "probs"]
        if beyond:
            name, stages = method.name or type(method).__name__, " and ".join(beyond)
            raise NotApplicable(
                f"{name} changes {stages}, but {type(model).__name__} is served by a tap on its "
                "softmax, where methods change probs only: it is off transformers' attention interface"
            )


class TapEngine(Engine):
    """Serves a model through a tap: example by example without padding, as tiles do."""

    # where a step's mask stands, of which a window shows only the end; known while the whole model is called
    origin: Origin | None = None

    def push(self, applied: Applied) -> None:
        model = self.model()
        if model is not None:
            require(model, applied.methods)
        super().push(applied)

    @contextlib.contextmanager
    def attached(self, model: nn.Module) -> Iterator[None]:
        """Open the tap for a while."""
        tap = Tap(list(self.paths), self.answer)

        def begin(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            tap.inside.clear()
            shown = kwargs.get("attention_mask")
            known = len(args) < 2 and (shown is None or shown.dim() == 2)
            self.origin = Origin(None, 0, shown) if known else None

        def end(*_: Any) -> None:
            self.origin = None

        handles = [model.register_forward_pre_hook(begin, with_kwargs=True)]
        handles.append(model.register_forward_hook(end, always_call=True))
        try:
            with routing.registered(model, self), eager(model), tap.open():
                yield
        finally:
            for handle in handles:
                handle.remove()

    def answer(self, module: nn.Module, scores: Tensor, probs: Tensor) -> Tensor:
        """Return what the methods make of one softmax; what is padding gets zeros."""
        path = self.paths[module]
        place = self._next(path, self.at[path])
        for hits in place.reach:
            hits[place.key] += 1
        if not place.stages.probs:
            return probs
        result, kind = torch.zeros_like(probs), place.site.kind
        origin = self.origin if kind == "decoder" and scores.shape[2] < scores.shape[3] else None
        for block in read(kind, scores.shape[2], visible_in(scores.detach(), kind), origin):
            where = block.examples, slice(None), block.queries, block.keys
            at = Site(
                place.site.path, place.site.kind, place.site.layer, probs.shape[1], place.site.head_dim,
                block.visible, block.offset, range(block.examples.start, block.examples.stop),
            )  # fmt: skip
            tile = probs[where] if probs.requires_grad else probs[where].clone()
            for stage in place.stages.probs:
                tile = stage(tile, at)
                tile = tile if block.visible is None else tile * block.visible
            result[where] = tile
        place.add(result)
        return result
