"""What a method says of its amount: that it does something, nothing at zero, more with more."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import torch
from torch import Tensor

from attnbench.conformance import tiny
from attnbench.conformance.promises import LENGTHS
from attnbench.conformance.subject import TOLERANCE, Fault, Subject, named, within, worst
from attnbench.engine.serving.soundness import Identity
from attnbench.engine.serving.spies import spied
from attnbench.errors import NotApplicable
from attnbench.measures import measure
from attnbench.methods import spec
from attnbench.methods.fields import amount_field
from attnbench.methods.protocol import Method, Site


def effect(subject: Subject, seed: int) -> str:
    """The outputs differ from the dense model's."""
    idle = [method for method in subject.terms if declared(method, "zero") == amount_of(method) is not None]
    if idle:
        raise NotApplicable(f"{spec.format(idle)} is declared to change nothing")
    for length in (12, tiny.LONGEST):
        inputs = subject.sample(seed, length)
        found, dense = subject.run(inputs), subject.run(inputs, [Identity()])
        share = float(((found - dense).abs() > TOLERANCE).double().mean())
        if share:
            return f"{share:.0%} of the outputs differ from dense"
    raise Fault("changes nothing")


def dtypes(subject: Subject, seed: int) -> str:
    """In bfloat16 and float16 it changes the outputs about as much as in float32."""
    full = 0.0
    for dtype, found in subject.seen.items():
        dense = _dense(subject.family, subject.device, dtype, seed)
        gap = float((found.double() - dense).square().mean().sqrt())
        full = full or gap  # float32 is the first
        rounding = torch.finfo(dtype).eps * float(dense.square().mean().sqrt())
        if gap < full / 2 - rounding:
            raise Fault(f"changes the outputs by {gap:.2g} in {named(dtype)}, by {full:.2g} in float32")
    return ", ".join(map(named, subject.seen))


@functools.cache
def _dense(family: str, device: str, dtype: torch.dtype, seed: int) -> Tensor:
    """Return what the unmodified model gives where `finite` saw a method's outputs."""
    subject = Subject(family, (), device)
    inputs = subject.batch(tiny.samples(family, LENGTHS, seed))
    found = subject.run(inputs, [Identity()], subject.model().to(dtype))
    return found[tiny.real(family, inputs)].double()


def zero_strength(subject: Subject, seed: int) -> str:
    """At the amount declared as zero, the outputs are the dense model's."""
    again = [with_amount(single(subject, "zero"), declared(subject.terms[0], "zero"))]
    inputs, text = subject.sample(seed), spec.format(again)
    subject.fit(subject.model(), again)
    gap = worst(subject.run(inputs, again), subject.run(inputs, [Identity()]))
    return f"{text}: {within(gap, text):.1g}"


def growth(subject: Subject, seed: int) -> str:
    """The measured sparsity grows with the amount, where that is declared.

    A hidden key counts, though a query that has lost all of its keys may attend uniformly.
    """
    method = single(subject, "grows")
    full, start = amount_of(method), declared(method, "zero") or 0
    if full is None or declared(method, "grows") != "sparsity":
        raise Fault("`grows` knows only 'sparsity', of a method with an amount")
    amounts = [type(full)(start + (full - start) * share) for share in (0.25, 0.5, 1)]
    found = []
    for value in amounts:
        model, again = subject.model(), [with_amount(method, value)]
        subject.fit(model, again)
        inputs = subject.sample(seed, 24)
        seen = measure.measure(model, [inputs], again)
        found.append(max(seen["sparsity"], 1 - seen["heads"], _hidden(subject, inputs, again, model)))
    words = ", ".join(f"{share:.0%} at {value:g}" for share, value in zip(found, amounts, strict=True))
    if found != sorted(found) or (amounts[0] < amounts[-1] and found[0] == found[-1]):
        raise Fault(f"sparsity {words}")
    return f"sparsity {words}"


def _hidden(subject: Subject, inputs: dict[str, Tensor], methods: list[Method], model: Any) -> float:
    """Return the share of the keys that queries may see which methods hide."""
    counts = [0, 0]

    def look(method: Method, stage: str, site: Site, given: Tensor, result: Tensor) -> None:
        if stage == "scores":
            shown = given.isfinite()
            counts[0] += int((shown & result.isneginf()).sum())
            counts[1] += int(shown.sum())

    subject.run(inputs, spied(methods, look, copies=True), model)
    return counts[0] / max(counts[1], 1)


def single(subject: Subject, declaration: str) -> Method:
    """Return the one method that declares this. Raises NotApplicable."""
    if len(subject.terms) != 1:
        raise NotApplicable("a composition")
    if declared(subject.terms[0], declaration) in (None, ""):
        raise NotApplicable(f"declares no `{declaration}`")
    return subject.terms[0]


def declared(method: Method, declaration: str) -> Any:
    """Return what a method's class says of its amount, or None."""
    return getattr(type(method), declaration, None)


def amount_of(method: Method) -> Any:
    """Return the amount in a method's spec, or None for a method without."""
    field = amount_field(type(method))
    return None if field is None else getattr(method, field.name)


def with_amount(method: Method, amount: Any) -> Method:
    """Return the same method at another amount. Raises Fault for a method that has none."""
    field = amount_field(type(method))
    if field is None:
        raise Fault(f"{method.name} declares `zero` and has no amount")
    return dataclasses.replace(method, **{field.name: amount})
