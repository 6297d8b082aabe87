"""How far apart two ways to compute one number may be: as far as rounding reaches on any processor.

A bound is eps x roundings x size. eps is that of the coarser dtype. `roundings` counts the steps in a row
that round, on both sides together: LAYER for each attention of a model and what lies between two, a dozen a
side (norm, projection, scores, softmax, sum over keys, projection, sum, norm, two products, activation, sum).
`size` is the largest value expected: a small one is a sum of terms as large, whose order is the processor's
choice. Outputs of a model are sums of normed states, so that their terms are of size 1. `gain` is what a step
makes of the error that it gets.

A jump (a threshold, a rank, a level) makes any error large. So what jumps is compared on inputs of which none
lies within rounding of a jump; `clear_of_jumps` draws them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from attnbench import apply, parse, transform, watch
from attnbench.methods.protocol import overridden
from attnbench.methods.spec import format

EPS = torch.finfo(torch.float32).eps
LAYER = 24
NEAR = 64 * EPS  # relative; attention of the tiny models, sharp as it is, is off by less
PRIME = 2**31 - 1
NOISES = 8  # each takes a value that rounding could move over a jump with a chance of almost one half

Batch = dict[str, torch.Tensor]


def close(
    found: Any, expected: Any, *, layers: int = 0, roundings: float = 0, gain: float = 1, says: str = ""
) -> None:
    """Require equality but for rounding: `layers` of outputs of a model, `roundings` of anything else."""
    dtypes = [each.dtype for each in (found, expected) if isinstance(each, torch.Tensor)]
    eps = max((torch.finfo(dtype).eps for dtype in dtypes), default=EPS)
    a, b = (
        (each.detach() if isinstance(each, torch.Tensor) else torch.tensor(np.array(each))).double()
        for each in (found, expected)
    )
    size = float(b.abs().max()) if b.numel() else 0.0
    most = eps * (LAYER * layers + roundings) * gain * (max(size, 1.0) if layers else size)
    torch.testing.assert_close(a, b, atol=most, rtol=0, msg=lambda text: f"{says}\n{text}")


def rounded(layers: int, dtype: torch.dtype) -> float:
    """Return the size of LAYER roundings a layer by half an eps, each up or down as it happens."""
    return torch.finfo(dtype).eps / 2 * (LAYER * layers) ** 0.5


def sharpness(model: Any, batch: Batch, *methods: Any) -> float:
    """Return the gain of the softmax: |dp| <= |ds| / 2, and ds is relative to the largest score."""
    largest = [1.0]

    def look(scores: torch.Tensor, _: Any) -> None:
        seen = scores[scores.isfinite() & (scores > torch.finfo(scores.dtype).min / 4)]
        largest.append(float(seen.abs().max()) if seen.numel() else 0.0)

    with torch.no_grad(), apply(model, *methods), watch(model, scores=look):
        model(**batch)
    return max(1.0, max(largest) / 2)


def jumps(spec: str, tensor: torch.Tensor, visible: torch.Tensor | None = None) -> bool:
    """Say whether rounding could take a value of a stage's input over a jump of the method."""
    full = tensor if tensor.dim() > 2 else tensor[None]
    seen = None if visible is None else visible.expand_as(full).repeat(NOISES, *[1] * (full.dim() - 1))
    factors = torch.randint(1, PRIME, (NOISES,), generator=torch.Generator().manual_seed(0))
    # drawn from the bits of a value: equal ones, of which a formula made both, stay equal
    noise = (
        full.float().view(torch.int32).long() * factors.view(-1, *[1] * full.dim()) % PRIME / PRIME * 2 - 1
    )
    many = (full * (1 + NEAR * noise).to(full.dtype)).flatten(0, 1)
    here = transform(spec, full, visible).repeat(NOISES, *[1] * (full.dim() - 1))
    there = transform(spec, many, seen)
    # what does not jump goes as far as its input does
    return bool(((here == 0) != (there == 0)).any() or ((here - there).abs() > 4 * NEAR * here.abs()).any())


@contextlib.contextmanager
def near_jumps(model: Any, spec: str, *earlier: Any) -> Iterator[list[bool]]:
    """Apply a spec that changes probabilities or hidden states; list what `jumps` says of every tensor."""
    found: list[bool] = []
    look = {}
    for stage in ("hidden", "probs"):
        own = format([method for method in parse(spec) if overridden(method) == (stage,)])
        if own != "dense":
            look[stage] = lambda tensor, site, own=own: found.append(jumps(own, tensor, site.visible))
    with torch.no_grad(), apply(model, *earlier), watch(model, **look), apply(model, spec):
        yield found


def clear_of_jumps(model: Any, spec: str, make: Callable[[int], Batch], *earlier: Any) -> Batch:
    """Return the first batch `make(draw)`, of draw 1 and up, of which no value comes close to a jump."""
    for draw in range(1, 100):
        batch = make(draw)
        with near_jumps(model, spec, *earlier) as near:
            model(**batch)
        if not any(near):
            return batch
    raise AssertionError(f"every batch comes close to a jump of {spec}")
