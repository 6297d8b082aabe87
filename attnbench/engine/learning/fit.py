"""Let methods learn: each on its own copy of the samples, the earlier ones applied."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

from attnbench.engine.applicable import require_sites
from attnbench.errors import UserError
from attnbench.methods.protocol import Method, fitted, needs_fit

Batch = dict[str, Any]


def placed(batches: Sequence[Batch], device: str) -> list[Batch]:
    """Return batches on a device."""
    return [{key: value.to(device) for key, value in batch.items()} for batch in batches]


def learn(model: Any, methods: Sequence[Method], seed: int, samples: Callable[[], Sequence[Batch]]) -> None:
    """Let methods learn as a run lets them: where they act, by its seed, from samples if one of them learns.

    Raises NotApplicable where a method has no place in the model or there is nothing to learn from, and what
    `fit` raises.
    """
    import torch

    torch.manual_seed(seed)
    require_sites(model, methods)
    fit(model, methods, samples() if any(map(needs_fit, methods)) else [])


def fit(model: Any, methods: Sequence[Method], batches: Sequence[Batch]) -> None:
    """Let each method that learns do so with the methods before it applied.

    Raises UserError where what it learned is nowhere to be found.
    """
    from attnbench.engine.serving.attention import apply

    for position, method in enumerate(methods):
        if needs_fit(method):
            before = set(vars(method))
            with apply(model, *methods[:position]) if position else contextlib.nullcontext():
                try:
                    method.fit(model, list(batches))
                except (Exception, SystemExit) as error:
                    error.add_note(f"{method.name}.fit")
                    raise
            if not fitted(method):
                others = ", ".join(sorted(set(vars(method)) - before))
                raise UserError(
                    f"{method.name or type(method).__name__}: its fit left no attribute that ends in an "
                    "underscore, where what it learned belongs" + (f"; it set {others}" if others else "")
                )
