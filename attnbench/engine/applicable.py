"""Which methods make sense at which places of a model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from attnbench.errors import NotApplicable, UserError
from attnbench.methods import spec
from attnbench.methods.plugins import option, registry
from attnbench.methods.protocol import Method, needs_fit, overridden


def quantised(model: Any) -> str | None:
    """Return how a model's weights are quantised, as transformers names it, None where they are numbers."""
    if not getattr(model, "is_quantized", False):
        return None
    told = getattr(model.config, "quantization_config", None)
    kind = getattr(told, "quant_method", None) or "in a way of its own"
    return str(getattr(kind, "value", kind))


def require_numbers(model: Any, what: str) -> None:
    """Raise NotApplicable where something needs weights as numbers, and they are quantised."""
    if (kind := quantised(model)) is not None:
        raise NotApplicable(f"{what}: this model's weights are quantised ({kind})")


def require_sites(model: Any, methods: Sequence[Method]) -> None:
    """Raise NotApplicable where a method has no site or would see the future, TypeError for no stage.

    Raises UserError for a name that stands for two methods.
    """
    from attnbench.engine.serving import tapped
    from attnbench.engine.serving.applied import require_reach
    from attnbench.engine.serving.dispatch import Engine
    from attnbench.engine.serving.prompts import require_caches

    for method in methods:
        text = spec.format([method])
        if method.name in registry().contested:
            raise UserError(registry().contested[method.name])
        if not overridden(method) and not needs_fit(method):
            raise TypeError(
                f"{text} overrides no stage: `attnbench check {text}{option(type(method))}` says more"
            )
        places = Engine(model).places
        require_caches(model, [method], places)
        chosen = require_reach(method, text, places)
        if method.rows == "all" and any(site.kind != "encoder" for site in chosen):
            raise NotApplicable(f"{text} needs all query rows: in a decoder it would see the future")
        tapped.require(model, [method])
