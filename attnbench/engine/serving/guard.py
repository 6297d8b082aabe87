"""A stage that says who it is when it breaks: its tensor's shape and dtype, no edit that autograd forbids."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, UntypedStorage

from attnbench.methods.prompt import Kept, Prompt
from attnbench.methods.protocol import Method, Site

Stage = Callable[[Tensor, Site], Tensor]
KEPT = (
    "return attnbench.Kept(tokens=), booleans (key-value heads, tokens), True where a token stays, and "
    "keys= and values= of the prompt's shape and dtype where they change"
)


class StageError(Exception):
    """A stage returned what cannot stand for its tensor, or edited a tensor that autograd still needs."""


class Guard:
    """One stage of one method. Raises StageError; what the stage itself raises gets a note with its site."""

    __slots__ = ("call", "lent", "name", "uniform")

    def __init__(self, method: Method, stage: str) -> None:
        self.call: Stage = getattr(method, stage)
        self.name = f"{method.name or type(method).__name__}.{stage}"
        self.uniform = method.empty == "uniform"
        # not of `hidden`: a layer's input may be among a model's outputs
        self.lent: weakref.WeakSet[Tensor] | None = None if stage == "hidden" else weakref.WeakSet()

    def __call__(self, tensor: Tensor, site: Site) -> Tensor:
        shape, dtype, device = tensor.shape, tensor.dtype, tensor.device
        version = tensor._version if tensor.requires_grad else None
        seen = site.visible
        shown = None if seen is None or seen.is_inference() else seen._version
        if self.lent is not None and not torch.is_grad_enabled():  # autograd keeps tensors itself
            self.lent.add(tensor)
        try:
            result = self.call(tensor, site)
        except BaseException as error:
            error.add_note(self.at(site))
            raise
        if not isinstance(result, Tensor):
            raise StageError(f"{self.at(site)} returned {type(result).__name__}, not a tensor")
        if result.shape != shape:
            raise StageError(f"{self.at(site)} returned shape {tuple(result.shape)} for {tuple(shape)}")
        if result.dtype != dtype:
            raise StageError(f"{self.at(site)} returned {result.dtype} for {dtype}")
        if result.device != device or result.layout != tensor.layout:
            found = f"a {result.layout} tensor on {result.device}"
            raise StageError(f"{self.at(site)} returned {found} for a dense one on {device}")
        if version is not None and tensor._version != version:
            raise StageError(f"{self.at(site)} edited its tensor in place although it requires a gradient")
        if seen is not None and shown is not None and seen._version != shown:
            raise StageError(f"{self.at(site)} edited site.visible: a method may hide keys, never show them")
        return _ours(result, tensor)

    def at(self, site: Site) -> str:
        """Name the method, the stage and the site."""
        return f"{self.name} at {site.path} ({site.kind} layer {site.layer})"


class CacheGuard:
    """The `cache` of one method: what it says is kept fits the prompt. Raises StageError as `Guard` does."""

    __slots__ = ("ahead", "call", "interval", "lent", "name")

    def __init__(self, method: Method) -> None:
        self.call: Callable[[Prompt, Site], Kept] = method.cache
        self.name = f"{method.name or type(method).__name__}.cache"
        self.ahead, self.interval = method.ahead, method.interval()
        self.lent: weakref.WeakSet[Tensor] = weakref.WeakSet()

    def __call__(self, prompt: Prompt, site: Site) -> Kept:
        """Return what is kept, with what the terms before have left where this one leaves it as it is."""
        for tensor in (prompt.keys, prompt.values, prompt.queries):
            self.lent.add(tensor)
        try:
            kept = self.call(prompt, site)
        except BaseException as error:
            error.add_note(self.at(site))
            raise
        if not isinstance(kept, Kept):
            raise StageError(f"{self.at(site)} returned {type(kept).__name__}, not Kept: {KEPT}")
        tokens = prompt.keys.shape[:2]
        for name, wanted in (("keys", prompt.keys), ("values", prompt.values)):
            found = getattr(kept, name)
            if found is not None and (found.shape, found.dtype) != (wanted.shape, wanted.dtype):
                raise StageError(
                    f"{self.at(site)} kept {name} {tuple(found.shape)} of {found.dtype} for "
                    f"{tuple(wanted.shape)} of {wanted.dtype}: {KEPT}"
                )
        if kept.tokens is not None and (kept.tokens.shape, kept.tokens.dtype) != (tokens, torch.bool):
            raise StageError(
                f"{self.at(site)} kept tokens {tuple(kept.tokens.shape)} of {kept.tokens.dtype}, not "
                f"booleans {tuple(tokens)}: {KEPT}"
            )
        return _joined(prompt.kept, kept, prompt)

    def at(self, site: Site) -> str:
        """Name the method, the stage and the site."""
        return f"{self.name} at {site.path} ({site.kind} layer {site.layer})"


def _joined(before: Kept, kept: Kept, prompt: Prompt) -> Kept:
    """Return what two terms leave together; nothing of it is the model's own memory, or the method's."""
    tokens = before.tokens if kept.tokens is None else kept.tokens.clone()
    if kept.tokens is not None and before.tokens is not None:
        tokens = kept.tokens & before.tokens
    keys = before.keys if kept.keys is None or kept.keys is prompt.keys else kept.keys.clone()
    values = before.values if kept.values is None or kept.values is prompt.values else kept.values.clone()
    bits = before.bits if kept.bits is None else kept.bits
    return Kept(keys, values, tokens, bits, kept.note or before.note)


def _ours(result: Tensor, lent: Tensor) -> Tensor:
    """Return a stage's result in the memory it was lent: what is edited later is not the method's own."""
    if result.requires_grad or lent.requires_grad:
        return result
    if result.data_ptr() == lent.data_ptr() and result.stride() == lent.stride():
        return result
    if result.untyped_storage().data_ptr() == lent.untyped_storage().data_ptr():
        result = result.clone()  # another view of the same memory
    return lent.copy_(result)


def require_not_held(methods: Sequence[Method], lent: Iterable[UntypedStorage]) -> None:
    """Raise StageError where an attribute of a method is a tensor in memory that was lent."""
    addresses = {memory.data_ptr() for memory in lent}
    for method in methods:
        for path, tensor in tensors_in(vars(method)):
            if tensor.untyped_storage().data_ptr() in addresses:
                name = method.name or type(method).__name__
                raise StageError(
                    f"{name} keeps a stage's tensor in .{path}: its memory is used again. Clone it."
                )


def tensors_in(value: Any, path: str = "") -> Iterator[tuple[str, Tensor]]:
    """Find tensors in nested dicts, lists and tuples, with their paths."""
    if isinstance(value, Tensor):
        yield path, value
    elif isinstance(value, dict | list | tuple):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, item in items:
            yield from tensors_in(item, f"{path}.{key}" if path else str(key))
