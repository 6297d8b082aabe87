"""Leave a model as it was: a forward pass may exchange modules, buffers and settings, as BigBird's does."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from torch import nn

from attnbench.engine.places import routing


@contextlib.contextmanager
def kept(model: nn.Module) -> Iterator[list[str]]:
    """Put back what is set in a model's modules and configurations until the block ends.

    Yields a list that then names the modules that were exchanged.
    """
    exchanged: list[str] = []
    paths = {id(module): path for path, module in model.named_modules()}
    owners: list[Any] = [*model.modules(), *routing.configs(model)]
    before = [(owner, dict(vars(owner)), _tables(owner)) for owner in owners]
    try:
        yield exchanged
    finally:
        for owner, attributes, tables in before:
            if isinstance(owner, nn.Module):
                children, path = vars(owner)["_modules"], paths[id(owner)]
                exchanged += [
                    f"{path}.{name}".removeprefix(".")
                    for name, child in tables["_modules"].items()
                    if children.get(name) is not child
                ]
            now = vars(owner)
            for name in now.keys() - attributes.keys():
                del now[name]
            now.update(attributes)
            for name, table in tables.items():
                if not _same(now[name], table):
                    now[name].clear()
                    now[name].update(table)


def _tables(owner: Any) -> dict[str, dict[Any, Any]]:
    return {name: dict(value) for name, value in vars(owner).items() if isinstance(value, dict)}


def _same(now: dict[Any, Any], before: dict[Any, Any]) -> bool:
    return list(now) == list(before) and all(now[key] is value for key, value in before.items())
