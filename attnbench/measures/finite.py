"""Numbers that are not finite: refused where they would be recorded, traced to the stage that made them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from attnbench.methods.protocol import Method


def origin(model: Any, methods: Sequence[Method], batches: Iterable[dict[str, Any]]) -> str:
    """Say which stage at which site makes the first such value on these batches; nothing where none does."""
    from attnbench.engine.serving.spies import blame

    try:
        for batch in batches:
            if found := blame(model, methods, batch):
                return found
    except KeyboardInterrupt:
        raise
    except BaseException:  # the method may be what raised
        return ""
    return ""


def require_finite(values: Mapping[str, Any]) -> None:
    """Raise ArithmeticError for a number, of nested ones too, that is not finite."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            require_finite({f"{name} {key}": item for key, item in value.items()})
        elif isinstance(value, float) and not math.isfinite(value):
            raise ArithmeticError(f"{name} is {value}")
