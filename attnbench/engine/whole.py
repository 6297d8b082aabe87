"""Tell whether a model, and torch beside it, are as they were; put torch back.

A method must leave both as it found them: what it leaves behind would change the numbers of others.
"""

from __future__ import annotations

import functools
import re
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from attnbench.engine.modes import MODES
from attnbench.engine.places import routing

PERIOD = 8191  # words of 8 bytes; a prime, so that no matrix has rows of it
SPACES: tuple[ModuleType, ...] = (torch, nn.functional)
FUNCTION = "function "
NOTED = re.compile(r'\n *"problem_type": .*')  # by transformers itself, at the first loss of a classifier


class Process:
    """What a method can change outside of a model: torch's modes, hooks and functions, modules' classes."""

    def __init__(self, model: nn.Module) -> None:
        self.modes = {words: read() for words, (read, _) in MODES.items()}
        self.tables = [(words, table, dict(table)) for words, table in _tables()]
        kinds = dict.fromkeys(kind for module in model.modules() for kind in type(module).__mro__[:-1])
        owners: list[Any] = [*SPACES, Tensor, *kinds]
        self.functions = [(owner, _functions(owner)) for owner in owners]

    def seen(self) -> dict[str, Any]:
        """Return each part under words for it."""
        seen: dict[str, Any] = dict(self.modes)
        for words, _, content in self.tables:
            seen[words] = content
        for owner, known in self.functions:
            space = owner.__name__ if isinstance(owner, ModuleType) else owner.__qualname__
            start = FUNCTION if isinstance(owner, ModuleType) else "class attribute "
            seen |= {f"{start}{space}.{name}": Same(function) for name, function in known.items()}
        return seen

    def restore(self) -> None:
        """Put everything back."""
        for words, value in self.modes.items():
            read, write = MODES[words]
            if read() != value:
                write(value)
        for _, table, content in self.tables:
            if dict(table) != content:
                table.clear()
                table.update(content)
        for owner, known in self.functions:
            now = _functions(owner)
            for name in now.keys() - known.keys() if isinstance(owner, type) else ():
                delattr(owner, name)
            for name, function in known.items():
                if now.get(name) is not function:
                    setattr(owner, name, function)


class Whole:
    """A model and torch as they were."""

    def __init__(self, model: nn.Module) -> None:
        self.process, self.seen = Process(model), snapshot(model)

    def left(self, model: nn.Module) -> str | None:
        """Name what differs now, or None."""
        return difference(self.seen, snapshot(model))


class Same:
    """An object that equals itself alone."""

    __slots__ = ("held",)

    def __init__(self, held: Any) -> None:
        self.held = held

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Same) and other.held is self.held


def _tables() -> Iterator[tuple[str, dict[Any, Any]]]:
    from transformers import AttentionInterface, AttentionMaskInterface

    for name, table in vars(sys.modules["torch.nn.modules.module"]).items():
        if name.startswith("_global_") and isinstance(table, dict):
            yield f"torch's {name.strip('_').replace('_', ' ')}", table
    for registry in (AttentionInterface, AttentionMaskInterface):
        yield f"transformers' {registry.__name__}", registry._global_mapping


def _functions(owner: Any) -> dict[str, Any]:
    return {
        name: value
        for name, value in vars(owner).items()
        if callable(value) or isinstance(value, property | staticmethod | classmethod)
    }


def snapshot(model: nn.Module) -> dict[str, Any]:
    """Return all that a method must leave as it found it, each part under words for it."""
    seen: dict[str, Any] = {}
    sums: dict[str, Tensor] = {}
    for kind, named in (("weight", model.named_parameters()), ("buffer", model.named_buffers())):
        for path, tensor in named:
            sums[f"{kind} {path}"] = checksum(tensor)
            seen[f"{kind} {path}"] = tensor.shape, tensor.dtype
            seen[f"requires_grad of {path}"] = tensor.requires_grad
            if tensor.grad is not None:
                sums[f"gradient of {path}"] = checksum(tensor.grad)
                seen[f"gradient of {path}"] = tensor.grad.shape, tensor.grad.dtype
    for part, value in zip(sums, torch.stack(list(sums.values())).tolist() if sums else (), strict=True):
        seen[part] = *seen[part], value
    configs: dict[int, tuple[str, str]] = {}
    for path, module in model.named_modules():
        seen |= {f"{part} of {path or 'the model'}": value for part, value in _state(module, configs)}
    return seen | Process(model).seen()


def _state(module: nn.Module, configs: dict[int, tuple[str, str]]) -> Iterator[tuple[str, Any]]:
    """Yield what one module is, beside its weights. A configuration is written out once."""
    yield "class", type(module).__qualname__
    yield "training mode", module.training
    yield "attention", routing.serving(module)
    for key, value in vars(module).items():
        if key == "forward":
            yield key, value
        elif key.endswith("_hooks") and isinstance(value, dict):
            if value:
                yield key.strip("_").replace("_", " "), tuple(value)
        elif isinstance(value, bool | int | float | str) and not key.startswith("_") and key != "training":
            yield key, repr(value)  # a NaN is no other NaN
    for key in ("config", "generation_config"):
        config = getattr(module, key, None)
        if config is not None:
            if id(config) not in configs:
                written = NOTED.sub("", repr(config))
                configs[id(config)] = str(getattr(config, "_attn_implementation", None)), written
            yield key.replace("config", "configuration").replace("_", " "), configs[id(config)]


def difference(before: dict[str, Any], after: dict[str, Any]) -> str | None:
    """Name the first part that differs, with how many others, or None."""
    changed = [part for part, value in before.items() if after.get(part) != value]
    # nobody who was there calls a function that is new in a module
    changed += [part for part in after if part not in before and not part.startswith(FUNCTION)]
    if not changed:
        return None
    more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
    return f"{changed[0]} changed{more}"


def checksum(tensor: Tensor) -> Tensor:
    """Return a number of 64 bits that every change of one word changes: words times odd numbers, summed.

    The factors repeat only after a prime number of words: moved rows are seen too.
    """
    data = tensor.detach().contiguous()
    data = (data.clone() if data.storage_offset() * data.element_size() % 8 else data).view(-1)
    data = data.view(torch.uint8)
    whole = len(data) // 8 * 8
    words, rest = data[:whole].view(torch.int64), data[whole:].long()
    factors = _factors(data.device)
    rows = len(words) // PERIOD
    total = (words[: rows * PERIOD].view(rows, PERIOD).sum(0) * factors).sum()
    words = words[rows * PERIOD :]
    return total + (words * factors[: len(words)]).sum() + (rest * factors[-len(rest) or PERIOD :]).sum()


@functools.cache
def _factors(device: torch.device) -> Tensor:
    draw = torch.Generator().manual_seed(1)
    return (torch.randint(-(2**62), 2**62, (PERIOD,), generator=draw) * 2 + 1).to(device)
