"""Let methods learn: each on its own copy of the samples, the earlier ones applied."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from attnbench.engine.applicable import quantised, require_numbers, require_sites
from attnbench.errors import NotApplicable, UserError
from attnbench.methods.protocol import Method, fitted, needs_fit

Batch = dict[str, Any]


def placed(batches: Sequence[Batch], device: str) -> list[Batch]:
    """Return batches on a device."""
    return [{key: value.to(device) for key, value in batch.items()} for batch in batches]


class Absent(list[Batch]):
    """Batches that there are none of: who reads them learns why. Methods that learn from weights do not."""

    def __init__(self, reason: NotApplicable) -> None:
        super().__init__()
        self.reason = reason

    def _refuse(self, *_: Any) -> Any:
        raise self.reason

    __iter__ = __len__ = __getitem__ = __bool__ = __reversed__ = __add__ = _refuse


def available(samples: Callable[[], Sequence[Batch]]) -> list[Batch]:
    """Return batches to learn from, or where there are none what says so to a method that reads them."""
    try:
        return [*samples()]
    except NotApplicable as reason:
        return Absent(reason)


def learn(model: Any, methods: Sequence[Method], seed: int, samples: Callable[[], Sequence[Batch]]) -> None:
    """Let methods learn as a run lets them: where they act, by its seed, from samples if one of them learns.

    Raises NotApplicable where a method has no place in the model, or reads samples and there are none, and
    what `fit` raises.
    """
    import torch

    torch.manual_seed(seed)
    require_sites(model, methods)
    fit(model, methods, available(samples) if any(map(needs_fit, methods)) else [])


@contextlib.contextmanager
def _untrained(model: Any, name: str) -> Iterator[None]:
    """Raise NotApplicable where an optimizer takes a step through quantised weights."""
    if quantised(model) is None:
        yield
        return
    from torch.optim.optimizer import register_optimizer_step_pre_hook

    def refuse(*_: Any) -> None:
        require_numbers(model, f"{name} is trained")

    handle = register_optimizer_step_pre_hook(refuse)
    try:
        yield
    except (RuntimeError, TypeError) as error:
        if "floating point" in str(error):  # weights that are integers have no gradient
            refuse()
        raise
    finally:
        handle.remove()


def fit(model: Any, methods: Sequence[Method], batches: Sequence[Batch]) -> None:
    """Let each method that learns do so with the methods before it applied.

    Raises UserError where what it learned is nowhere to be found.
    """
    from attnbench.engine.serving.attention import apply

    for position, method in enumerate(methods):
        if needs_fit(method):
            before = set(vars(method))
            with contextlib.ExitStack() as stack:
                if position:
                    stack.enter_context(apply(model, *methods[:position]))
                stack.enter_context(_untrained(model, method.name))
                try:
                    method.fit(model, batches if isinstance(batches, Absent) else list(batches))
                except BaseException as error:
                    error.add_note(f"{method.name}.fit")
                    raise
            if not fitted(method):
                others = ", ".join(sorted(set(vars(method)) - before))
                raise UserError(
                    f"{method.name or type(method).__name__}: its fit left no attribute that ends in an "
                    "underscore, where what it learned belongs" + (f"; it set {others}" if others else "")
                )
