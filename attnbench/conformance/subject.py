"""What a check works with: a spec on one tiny model, spies on its stages, the fault that it raises."""

from __future__ import annotations

import contextlib
import copy
import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_post_hook

from attnbench.conformance import seeds, tiny
from attnbench.engine.learning import fit
from attnbench.engine.serving.attention import apply
from attnbench.engine.serving.prompts import prompts
from attnbench.errors import described
from attnbench.methods.protocol import Method, overridden

TOLERANCE = 1e-5


class Fault(Exception):
    """A broken promise: where, and by how much."""


@dataclass
class Subject:
    """A spec on one architecture. Every run gets copies of the methods as fitted, every fit a fresh model."""

    family: str
    terms: tuple[Method, ...]
    device: str = "cpu"
    fitted: tuple[Method, ...] = field(default=(), init=False)
    trains: bool = field(default=False, init=False)  # whether a fit took a step of an optimizer
    seen: dict[torch.dtype, Tensor] = field(default_factory=dict, init=False)  # outputs that `finite` saw

    def model(self) -> Any:
        return tiny.build(self.family).to(self.device)

    @functools.cached_property
    def shared(self) -> Any:
        return self.model()

    def methods(self) -> tuple[Method, ...]:
        return copy.deepcopy(self.fitted)

    def fit(self, model: Any, methods: Sequence[Method], *, seeded: bool = True, **batching: Any) -> None:
        """Fit from left to right, each with the earlier ones applied, on `tiny.labelled` samples.

        `seeded`: what is drawn from everybody's generators is the same in every fit.
        """
        batches = tiny.labelled(self.family, device=self.device, **batching)
        with contextlib.ExitStack() as stack:
            if seeded:
                stack.enter_context(seeds.kept())
                seeds.sow(20210408)
            handle = register_optimizer_step_post_hook(lambda *_: setattr(self, "trains", True))
            stack.callback(handle.remove)
            fit.fit(model, methods, batches)

    def batch(self, chosen: Sequence[tiny.Sample], side: tiny.Side = "right") -> dict[str, Tensor]:
        return tiny.batch(self.family, chosen, side, self.device)

    def run(
        self, inputs: dict[str, Tensor], methods: Sequence[Method] | None = None, model: Any = None
    ) -> Tensor:
        """Return the outputs (batch, tokens, ...) with the methods applied, without gradients."""
        model = self.shared if model is None else model
        methods = self.methods() if methods is None else methods
        with torch.no_grad(), apply(model, *methods), self.prompts(model, inputs):
            return self.outputs(model, inputs)

    def outputs(self, model: Any, inputs: dict[str, Tensor]) -> Tensor:
        """Return what a pass gives each token, on a cache where a term cuts it again."""
        return tiny.outputs(model, inputs, caching=self.again)

    @property
    def cuts(self) -> bool:
        """Whether a term cuts caches: then three quarters of every text are its prompt."""
        return any("cache" in overridden(term) for term in self.terms)

    @property
    def again(self) -> bool:
        """Whether a term cuts caches again while generating, which one pass without a cache has not."""
        return any(term.interval() for term in self.terms)

    def prompts(self, model: Any, inputs: dict[str, Tensor], spare: int | None = None) -> Any:
        """Tell where prompts end, of which `spare` tokens are left out at the end."""
        if not self.cuts:
            return contextlib.nullcontext()
        tokens = inputs["attention_mask"].sum(1)
        return prompts(model, (tokens * 3 // 4 if spare is None else tokens - spare).tolist())

    def sample(self, seed: int, length: int = 12) -> dict[str, Tensor]:
        return self.batch(tiny.samples(self.family, (length,) * 2, seed))


Check = Callable[[Subject, int], str]


def worst(found: Tensor, expected: Tensor) -> float:
    """Return the largest difference, relative to the largest expected value where that exceeds 1."""
    gap = (found.double() - expected.double()).abs().max() / expected.double().abs().max().clamp(min=1)
    return math.inf if bool(gap.isnan()) else float(gap)


def within(gap: float, what: str, most: float = TOLERANCE) -> float:
    if not gap <= most:
        raise Fault(
            f"{what}: differs by {gap:.2g}, {most:g} is allowed" if most else f"{what}: differs by {gap:.2g}"
        )
    return gap


def confirmed(check: Check) -> Check:
    """Check on other data too before a fault counts: a value on a bin's edge may fall to either side."""

    @functools.wraps(check)
    def twice(subject: Subject, seed: int) -> str:
        try:
            return check(subject, seed)
        except Fault as fault:
            try:
                return f"{check(subject, seed + 1)} (at the second draw)"
            except Fault:
                raise fault from None

    return twice


def named(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def told(error: BaseException) -> str:
    """Return an error in one line, with the site that a guard noted."""
    return described(error)
