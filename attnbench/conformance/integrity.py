"""Tell whether a model, and torch beside it, are whole again, whatever happened in between."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from attnbench.conformance import tiny
from attnbench.conformance.subject import Fault, Subject, confirmed, within, worst
from attnbench.engine.realised import removal, skipping
from attnbench.engine.realised.patterns import hides_alone
from attnbench.engine.serving.attention import apply
from attnbench.engine.whole import difference, snapshot
from attnbench.errors import NotApplicable
from attnbench.methods.protocol import Method, Site


class Planted(Exception):
    """What the kit raises in a block to see what is left behind."""


class Raiser(Method):
    """Raise in the middle of a forward pass."""

    name = "raiser"

    def __init__(self, error: type[BaseException]) -> None:
        super().__init__()
        self.error, self.calls = error, 0

    def context(self, context: Tensor, site: Site) -> Tensor:
        self.calls += 1
        if self.calls == 2:
            raise self.error
        return context


def restored(subject: Subject, seed: int) -> str:
    """The model is whole after success, after an exception in the block and in a stage, after Ctrl-C."""
    model, inputs = subject.model(), subject.sample(seed)
    methods = copy.deepcopy(subject.terms)
    before = snapshot(model)

    def require_whole(when: str) -> None:
        changed = difference(before, snapshot(model))
        if changed:
            raise Fault(f"after {when}: {changed}")

    forwards = _fit(subject, model, methods)
    require_whole("fit")
    subject.run(inputs, methods, model)
    require_whole("success")
    with contextlib.suppress(Planted), apply(model, *methods):
        raise Planted
    require_whole("an exception")
    for error in (Planted, KeyboardInterrupt):
        with contextlib.suppress(error):
            subject.run(inputs, [*methods, Raiser(error)], model)
        require_whole(f"{error.__name__} in a stage")
    if forwards:
        with contextlib.suppress(KeyboardInterrupt):
            _fit(subject, model, copy.deepcopy(subject.terms), stop=forwards // 2 + 1)
        require_whole("KeyboardInterrupt in fit")
    return "weights, flags, hooks, configuration, registries, torch's functions and modes"


@confirmed
def realized(subject: Subject, seed: int) -> str:
    """The model that does its work for real gives what the simulated one gives, and is whole afterwards."""
    methods, model = subject.methods(), subject.model()
    if all(type(method).realize is Method.realize and not hides_alone(method) for method in methods):
        raise NotApplicable("offers no `realize`")
    inputs = subject.batch(tiny.samples(subject.family, (12, 9), seed))
    real, before = tiny.real(subject.family, inputs), snapshot(model)
    expected = subject.run(inputs, methods)[real]
    with removal.changed(model, methods), torch.no_grad():
        known = skipping.tally(model)
        with contextlib.nullcontext() if known is None else known.checking():
            found = tiny.outputs(model, inputs)[real]
            if known is not None and known.reasons:
                raise NotApplicable(next(iter(known.reasons)))
    changed = difference(before, snapshot(model))
    if changed:
        raise Fault(f"after `realize`: {changed}")
    return f"{within(worst(found, expected), 'what `realize` computes'):.1g}"


def _fit(subject: Subject, model: Any, methods: Sequence[Method], stop: int = 0) -> int:
    """Fit, press Ctrl-C at forward pass `stop`, and return the number of forward passes."""
    forwards = 0

    def count(*_: Any) -> None:
        nonlocal forwards
        forwards += 1
        if forwards == stop:
            raise KeyboardInterrupt

    handle = model.get_input_embeddings().register_forward_pre_hook(count)
    try:
        subject.fit(model, methods)
    finally:
        handle.remove()
    return forwards
