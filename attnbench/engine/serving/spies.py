"""Stages that are watched: what each got and gave, and which first made a value that is not finite."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from attnbench.engine.serving.attention import apply
from attnbench.engine.serving.guard import Guard, StageError
from attnbench.engine.serving.prompts import prompts
from attnbench.methods.prompt import Kept, Prompt
from attnbench.methods.protocol import Method, Site, overridden

Seen = Callable[[Method, str, Site, Tensor, Tensor], None]


class Spy(Guard):
    """A stage that tells what it got (a copy of it, where stages edit it), what it gave, and where."""

    __slots__ = ("copies", "method", "see", "stage")

    def __init__(self, method: Method, stage: str, see: Seen, copies: bool) -> None:
        super().__init__(method, stage)
        self.method, self.stage, self.see, self.copies = method, stage, see, copies

    def __call__(self, tensor: Tensor, site: Site) -> Tensor:
        learning = tensor.requires_grad
        given = tensor.detach().clone() if self.copies or learning else tensor
        result = super().__call__(tensor, site)
        # an edit through `.data` too, which autograd does not count
        if learning and not torch.equal(given.nan_to_num(), tensor.detach().nan_to_num()):
            raise StageError(f"{self.at(site)} edited its tensor in place although it requires a gradient")
        self.see(self.method, self.stage, site, given, result)
        return result


class CacheSpy:
    """A `cache` that tells of the keys that it was shown and left."""

    def __init__(self, method: Method, see: Seen) -> None:
        self.method, self.call, self.see = method, method.cache, see

    def __call__(self, prompt: Prompt, site: Site) -> Kept:
        kept = self.call(prompt, site)
        self.see(self.method, "cache", site, prompt.keys, prompt.keys if kept.keys is None else kept.keys)
        return kept


def spied(methods: Sequence[Method], see: Seen, copies: bool = False) -> Sequence[Method]:
    """Let `see` watch every stage of these methods, which are changed."""
    for method in methods:
        for stage in overridden(method):
            vars(method)[stage] = (
                CacheSpy(method, see) if stage == "cache" else Spy(method, stage, see, copies)
            )
    return methods


def blame(model: Any, methods: Sequence[Method], inputs: dict[str, Tensor]) -> str:
    """Say which stage at which site made the first non-finite value, or nothing."""
    origin, look = first_nonfinite()
    watched = spied(copy.deepcopy(list(methods)), look, copies=True)
    with torch.no_grad(), apply(model, *watched), prompts(model, None):
        model(**inputs)
    return "".join(origin)


def first_nonfinite() -> tuple[list[str], Seen]:
    """Return an empty list, and what fills it with the first stage that made a non-finite value."""
    origin: list[str] = []

    def look(method: Method, stage: str, site: Site, given: Tensor, result: Tensor) -> None:
        bad = result.isnan() | result.isposinf() | (result.isneginf() if stage != "scores" else False)
        if not origin and bool(bad.any()) and not bool(given.isnan().any()):
            origin.append(f"{Guard(method, stage).at(site)} made {int(bad.sum())} non-finite values")

    return origin, look
