"""Which methods make sense at which places of a model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from attnbench import spec
from attnbench.errors import NotApplicable, UserError
from attnbench.method import Method, needs_fit, overridden
from attnbench.plugins import registry


def require_sites(model: Any, methods: Sequence[Method]) -> None:
    """Raise NotApplicable where a method has no site or would see the future, TypeError for no stage.

    Raises UserError for a name that stands for two methods.
    """
    from attnbench import tap
    from attnbench.sites import discover

    for method in methods:
        text = spec.format([method])
        if method.name in registry().contested:
            raise UserError(registry().contested[method.name])
        if not overridden(method) and not needs_fit(method):
            raise TypeError(f"{text} overrides no stage: `attnbench check {text}` says more")
        chosen = [site for site in discover(model) if method.selects(site)]
        if overridden(method) and not chosen:
            limits = [
                *(f"on={kind}" for kind in method.on),
                *(f"layers={layers}" for layers in method.layers),
            ]
            raise NotApplicable(f"{text}: no attention at {' '.join(limits) or 'all'}")
        if method.rows == "all" and any(site.kind != "encoder" for site in chosen):
            raise NotApplicable(f"{text} needs all query rows: in a decoder it would see the future")
        tap.require(model, [method])
