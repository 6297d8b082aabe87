"""Find where a model attends."""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

from torch import Tensor, nn

from attnbench.engine.places import softmax
from attnbench.engine.places.probing import kind_of, probe_batch, run
from attnbench.engine.places.routing import HEADLESS, attached, unsupported
from attnbench.errors import UserError
from attnbench.methods.protocol import Site

__all__ = ["discover", "forget"]

_known: WeakKeyDictionary[nn.Module, list[Site]] = WeakKeyDictionary()


def discover(model: nn.Module, headless: bool = False) -> list[Site]:
    """List where a model attends, in the order of one forward pass.

    Run once per model on a few tokens with unequal encoder and decoder lengths; a module that is called for
    several layers (ALBERT) has as many sites. A layer without a head left does not attend: only `headless`
    lists it too, with 0 heads. Raises UserError for an architecture that is not supported.
    """
    if model not in _known:
        first = next(model.parameters(), None)
        if first is not None and first.is_meta:
            raise UserError(f"{type(model).__name__} has no weights yet: load it first (it is on 'meta')")
        _known[model] = softmax.probe(model) if softmax.needed(model) else _probe(model)
    return [site for site in _known[model] if site.heads or headless]


def forget(model: nn.Module) -> None:
    """Let `discover` look again: a model's heads have changed."""
    _known.pop(model, None)


def _probe(model: nn.Module) -> list[Site]:
    paths = {module: path for path, module in model.named_modules()}
    found: list[Site] = []

    def record(
        module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **kwargs: Any
    ) -> tuple[Tensor, None]:
        kind = kind_of(module, query.shape[2], key.shape[2], mask, kwargs.get("is_causal"))
        layer = sum(site.kind == kind for site in found)
        heads = 0 if hasattr(module, HEADLESS) else query.shape[1]
        found.append(Site(paths[module], kind, layer, heads=heads, head_dim=query.shape[3]))
        return query.new_zeros(query.shape[0], query.shape[2], query.shape[1], value.shape[3]), None

    with attached(model, record):
        run(model, probe_batch(model))
    if not found:
        raise unsupported(model)
    return found
