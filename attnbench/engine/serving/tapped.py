"""Serve models that keep their attention to themselves: take the softmax's result inside an attention module.

Scores come with the mask added, probabilities go on to the values: only methods that change `probs` work.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from transformers import PreTrainedModel

from attnbench.engine.places import sites
from attnbench.engine.places.blocks import read
from attnbench.engine.places.origins import Origin
from attnbench.engine.serving.applied import Applied
from attnbench.engine.serving.dispatch import Engine
from attnbench.errors import NotApplicable, UserError
from attnbench.methods.protocol import Method, Site, overridden

SOFTMAX = (torch.softmax, Tensor.softmax, functional.softmax)
HIDDEN = -1e4  # masks of these models are -65,500 or less, scores are not
Answer = Callable[[nn.Module, Tensor, Tensor], Tensor]


def needed(model: nn.Module) -> bool:
    """Tell whether a model's attention is not on transformers' interface."""
    return isinstance(model, PreTrainedModel) and not type(model)._can_set_attn_implementation()


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


@contextlib.contextmanager
def eager(model: nn.Module) -> Iterator[None]:
    """Let a model compute its attention step by step, whatever it would choose."""
    with sites.restored(model) as configs:
        for config in configs:
            config._attn_implementation_internal = "eager"
        yield


class Tap(TorchFunctionMode):
    """Hand each softmax over the last of four axes inside some modules to `answer`: module, scores, probs."""

    def __init__(self, modules: Sequence[nn.Module], answer: Answer) -> None:
        super().__init__()
        self.modules, self.answer = modules, answer
        self.inside: list[nn.Module] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if not self.inside or func not in SOFTMAX:
            return result
        scores, dim = _given(*args, **(kwargs or {}))
        return (
            result
            if scores.dim() != 4 or dim not in (-1, 3)
            else self.answer(self.inside[-1], scores, result)
        )

    @contextlib.contextmanager
    def open(self) -> Iterator[None]:
        """Follow the modules' calls, innermost last. A call from another thread raises UserError."""
        handles, home = [], threading.get_ident()

        def enter(module: nn.Module, _: Any) -> None:
            if threading.get_ident() != home:
                raise UserError(
                    f"{type(module).__name__}'s softmax is tapped in one thread only: "
                    "run the model in the thread that applies the methods"
                )
            self.inside.append(module)

        for module in self.modules:
            handles.append(module.register_forward_pre_hook(enter))
            handles.append(module.register_forward_hook(self._leave, always_call=True))
        try:
            with self:
                yield
        finally:
            for handle in handles:
                handle.remove()

    def _leave(self, module: nn.Module, *_: Any) -> None:
        while self.inside and self.inside.pop() is not module:
            pass


def _given(input: Tensor, dim: int | None = None, *_: Any, **__: Any) -> tuple[Tensor, int | None]:
    return input, dim


def visible_in(scores: Tensor, kind: str) -> Tensor:
    """Tell which keys masked scores show, the same for all heads: (batch, 1, queries, keys).

    In an encoder a key that no other token sees is padding: XLNet's padding sees itself.
    """
    visible = scores[:, :1] > HIDDEN
    if kind != "encoder":
        return visible
    alone = torch.eye(visible.shape[2], dtype=torch.bool, device=visible.device)
    seen = (visible & ~alone).any(2, keepdim=True)
    return visible & (seen | ~seen.any(3, keepdim=True))


def probe(model: nn.Module) -> list[Site]:
    """List where a model's softmax attends, in the order of one forward pass.

    Raises UserError where there is not one softmax over all tokens a layer.
    """
    paths = {module: path for path, module in model.named_modules()}
    found: list[Site] = []
    batch = sites.probe_batch(model)
    tokens = batch["input_ids"].shape[1]

    def record(module: nn.Module, scores: Tensor, probs: Tensor) -> Tensor:
        if scores.shape[2:] != (tokens, tokens):
            raise sites.unsupported(model)
        kind = sites.kind_of(module, tokens, tokens, visible_in(scores, "decoder"), None)
        layer = sum(site.kind == kind for site in found)
        config: Any = model.config
        size = getattr(config, "head_dim", None) or config.hidden_size // scores.shape[1]
        found.append(Site(paths[module], kind, layer, heads=scores.shape[1], head_dim=size))
        return probs

    attending = [module for module in paths if "Attention" in type(module).__name__]
    with eager(model), Tap(attending, record).open():
        sites.run(model, batch)
    if not found:
        raise sites.unsupported(model)
    return found


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
            with sites.registered(model, self), eager(model), tap.open():
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
                block.visible, block.offset,
            )  # fmt: skip
            tile = probs[where] if probs.requires_grad else probs[where].clone()
            for stage in place.stages.probs:
                tile = stage(tile, at)
                tile = tile if block.visible is None else tile * block.visible
            result[where] = tile
        place.add(result)
        return result
