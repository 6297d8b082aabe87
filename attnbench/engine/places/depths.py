"""Number the layers of a forward pass: a layer's place in the model's own list, whatever the others do."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from torch import nn


class Call(NamedTuple):
    """One call of a layer: the list it stands in, and which call of the forward pass it is."""

    where: str
    number: int


class Depths:
    """Follows which layer is being called."""

    def __init__(self, model: nn.Module) -> None:
        self.calls: list[Call] = []
        self._inside: list[tuple[nn.Module, Call]] = []
        self._elements = dict(_elements(model))

    def here(self, path: str) -> Call:
        """Return the call of the outermost layer that is running; what stands in no list is its own."""
        return self._inside[0][1] if self._inside else self._new(f"{path} itself")

    @contextlib.contextmanager
    def open(self) -> Iterator[None]:
        """Follow until the block ends."""
        handles = []
        for module in self._elements:
            handles.append(module.register_forward_pre_hook(self._enter))
            handles.append(module.register_forward_hook(self._leave, always_call=True))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _new(self, where: str) -> Call:
        self.calls.append(Call(where, len(self.calls)))
        return self.calls[-1]

    def _enter(self, module: nn.Module, _: Any) -> None:
        self._inside.append((module, self._new(self._elements[module])))

    def _leave(self, module: nn.Module, *_: Any) -> None:
        while self._inside and self._inside.pop()[0] is not module:
            pass


def _elements(module: nn.Module, path: str = "") -> Iterator[tuple[nn.Module, str]]:
    """Yield the elements of the outermost lists, lists in lists as one, each with its list's path."""
    for name, child in module.named_children():
        inner = f"{path}.{name}".removeprefix(".")
        if isinstance(child, nn.ModuleList):
            for element in _flat(child):
                yield element, inner
        else:
            yield from _elements(child, inner)


def _flat(layers: nn.ModuleList) -> Iterator[nn.Module]:
    for element in layers:
        if isinstance(element, nn.ModuleList):
            yield from _flat(element)
        else:
            yield element


def numbers(calls: Sequence[Call], attending: Sequence[tuple[str, str, Call]]) -> list[int]:
    """Return the layer of each attention (path, kind, the layer's call), in the order of the forward pass.

    A layer is numbered among all of those lists where its kind attends, in the order of their calls. Where
    several modules of a kind attend in one call, no such number tells them apart: they are counted instead.
    """
    found: dict[int, int] = {}
    for kind in dict.fromkeys(kind for _, kind, _ in attending):
        own = [k for k, (_, each, _) in enumerate(attending) if each == kind]
        lists = {attending[k][2].where for k in own}
        place = {call: layer for layer, call in enumerate(call for call in calls if call.where in lists)}
        several = len({attending[k][2] for k in own}) < len({attending[k] for k in own})
        found |= {k: count if several else place[attending[k][2]] for count, k in enumerate(own)}
    return [found[k] for k in range(len(attending))]
