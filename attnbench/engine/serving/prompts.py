"""Where the prompts of a batch end, as a caller tells; which methods cut caches, and where they cannot."""

from __future__ import annotations

import contextlib
import inspect
import itertools
import warnings
import weakref
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from attnbench.engine.places import routing
from attnbench.errors import NotApplicable, UserError
from attnbench.methods.protocol import Method, overridden

SHORTEST = 2  # tokens of a prompt
FULL = ("full_attention", "sliding_attention")  # of a configuration's layer_types


@dataclass
class Told:
    """Where the prompts of a batch end, and of how many query rows of each example a cut cache was seen."""

    lengths: list[int | None]
    known: bool = True
    later: list[int] = field(default_factory=list)
    saw: list[int] = field(default_factory=list)


_told: weakref.WeakKeyDictionary[nn.Module, list[Told]] = weakref.WeakKeyDictionary()


@contextlib.contextmanager
def prompts(
    model: nn.Module, lengths: Sequence[int | None] | None, scored: Sequence[int] | None = None
) -> Iterator[Told]:
    """Say how many tokens of each example are its prompt, padding not counted, until the block ends.

    Methods for caches let the queries after it see what they left of it; those of the prompt see all. Where
    a length is None, or `lengths` is, there is no prompt, and all is dense. Beams share the length of their
    example. A prompt under 2 tokens is none. `scored` is how many predictions of each example count: by them
    `Applied.cut` is counted, by the queries after the prompt unless given.
    """
    if lengths is not None and any(length is not None and length < 0 for length in lengths):
        raise UserError(f"a prompt has 0 tokens or more, not {min(each or 0 for each in lengths)}")
    told = Told([*lengths] if lengths is not None else [], lengths is not None)
    stack = _told.setdefault(model, [])
    stack.append(told)
    try:
        yield told
    finally:
        stack.remove(told)
    serving = routing.serving(model)
    for applied in getattr(serving, "applied", ()):
        counts = told.later if scored is None else scored
        seen = [*told.saw, *[0] * (len(counts) - len(told.saw))]
        later = [*told.later, *[0] * (len(counts) - len(told.later))]
        applied.scored += sum(counts)
        applied.cut += sum(n * s / m if m else 0 for n, s, m in zip(counts, seen, later, strict=True))


def told_of(bodies: Sequence[nn.Module]) -> Told | None:
    """Return what was last told of a model's prompts, by the model itself or a body of it."""
    return next((stack[-1] for body in bodies if (stack := _told.get(body))), None)


def cuts(model: nn.Module) -> bool:
    """Tell whether methods cut a model's caches at the moment."""
    cutters = getattr(routing.serving(model), "cutters", None)
    return cutters is not None and bool(cutters.number)


def bodies_of(model: nn.Module, paths: Iterable[str]) -> list[nn.Module]:
    """List the modules that have all the places in them and take a cache: each may be called by itself."""
    parts = [path.split(".") for path in paths]
    shared = next((k for k, names in enumerate(zip(*parts, strict=False)) if len({*names}) > 1), 0)
    found, module = list[nn.Module](), model
    for name in (*parts[0][:shared], ""):
        if "past_key_values" in inspect.signature(module.forward).parameters:
            found.append(module)
        module = getattr(module, name) if name else module
    return found


_numbers = itertools.count(1)


class Cutters:
    """The methods that cut caches at the moment, under a number that other ones never have; 0 for none."""

    def __init__(self) -> None:
        self.number = 0
        self._methods: list[Method] = []
        self._warned = False

    def become(self, methods: Sequence[Method]) -> None:
        """Take those of the methods that cut caches."""
        wanted = [method for method in methods if "cache" in overridden(method)]
        if [*map(id, wanted)] != [*map(id, self._methods)]:
            self._methods, self._warned = wanted, False
            self.number = next(_numbers) if wanted else 0

    def warn(self) -> None:
        """Say once that a pass had no prompt."""
        if not self._warned:
            self._warned = True
            warnings.warn(
                "a pass without a cache has no prompt, so that methods for caches change nothing there: "
                "attnbench.prompts(model, lengths) says where the prompts end",
                stacklevel=2,
            )


def require_caches(model: nn.Module | None, methods: Sequence[Method], places: Sequence[Any]) -> None:
    """Raise NotApplicable where a method cuts caches, for a model with none of keys and values to cut."""
    cutting = [method.name or type(method).__name__ for method in methods if "cache" in overridden(method)]
    if not cutting or model is None:
        return
    why = f"{cutting[0]} cuts what a decoder remembers of its prompt"
    if any(place.site.kind != "decoder" for place in places if place.site.heads):
        raise NotApplicable(f"{why}: a model with an encoder has none, or another")
    config: Any = getattr(model, "config", None)
    types = getattr(config.get_text_config(), "layer_types", None) or ()
    if others := [each for each in types if each not in FULL]:
        raise NotApplicable(f"{why}: this model has layers of {others[0].replace('_', ' ')}")
