"""Follow a model that keeps its attention to itself: take the softmax's result inside an attention module."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from transformers import PreTrainedModel

from attnbench.engine.places import probing, routing
from attnbench.engine.places.census import SOFTMAX, Census
from attnbench.errors import UserError

HIDDEN = -1e4  # masks of these models are -65,500 or less, scores are not


Answer = Callable[[nn.Module, Tensor, Tensor], Tensor]
Record = Callable[[nn.Module, str, int, int], None]  # a module that attends, its kind, heads, their size


def needed(model: nn.Module) -> bool:
    """Tell whether a model's attention is not on transformers' interface."""
    return isinstance(model, PreTrainedModel) and not type(model)._can_set_attn_implementation()


@contextlib.contextmanager
def eager(model: nn.Module) -> Iterator[None]:
    """Let a model compute its attention step by step, whatever it would choose."""
    with routing.restored(model) as configs:
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


@contextlib.contextmanager
def recorded(model: nn.Module, batch: dict[str, Tensor], record: Record, census: Census) -> Iterator[None]:
    """Show `record` each softmax in a module that attends: the module, its kind, how many heads it has.

    Raises UserError where there is not one softmax over all tokens a layer.
    """
    tokens = batch["input_ids"].shape[1]

    def answer(module: nn.Module, scores: Tensor, probs: Tensor) -> Tensor:
        if scores.shape[2:] != (tokens, tokens):
            raise routing.unsupported(model)
        kind = probing.kind_of(module, tokens, tokens, visible_in(scores, "decoder"), None)
        config: Any = model.config
        size = getattr(config, "head_dim", None) or config.hidden_size // scores.shape[1]
        record(module, kind, scores.shape[1], size)
        census.reached(probs)
        return probs

    attending = [module for module in model.modules() if "Attention" in type(module).__name__]
    with eager(model), Tap(attending, answer).open():
        yield
