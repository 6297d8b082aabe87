"""Apply methods to a model for a while, and let those that learn do so first."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from torch import nn

from attnbench.engine.learning.fit import fit
from attnbench.engine.serving import attention
from attnbench.engine.serving.applied import Applied
from attnbench.methods.protocol import Method


@contextlib.contextmanager
def apply(
    model: nn.Module, *methods: Method | str, fit_on: Iterable[Mapping[str, Any]] | None = None
) -> Iterator[Applied]:
    """Change a model's attention by methods or a spec string, until the block ends.

    `fit_on` are batches that the model takes, on its device, from which methods that learn do so first, each
    with those before it applied. Nested blocks compose: inner methods act after outer ones. Raises UserError
    for a method that is not fitted yet or an architecture that is not supported, NotApplicable for a method
    whose `on=` and `layers=` reach nothing there, or that does more than change `probs` of a model whose
    attention is not on transformers' interface.

    >>> with apply(model, "heads50:gradient", fit_on=batches):  # doctest: +SKIP
    ...     logits = model(**batch).logits
    """
    wanted = attention.methods_of(methods)
    if fit_on is not None:
        fit(model, wanted, [dict(batch) for batch in fit_on])
    with attention.apply(model, *wanted) as applied:
        yield applied
