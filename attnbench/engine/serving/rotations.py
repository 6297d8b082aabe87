"""The rotation of queries and keys to their positions, as the model itself does it."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

Made = tuple[nn.Module, tuple[Any, ...], dict[str, Any], Any]  # a rotary module, its arguments, its result
Function = Callable[[Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


@dataclass
class Turned:
    """The rotation of one example's tokens: cosines and sines (tokens, head_dim) at their positions."""

    cosines: Tensor
    sines: Tensor
    apply: Function
    made: Made
    first: int  # the position of the example's first token, as the model counts

    def rotate(self, vectors: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
        """Rotate (heads, tokens, head_dim)."""
        found, _ = self.apply(vectors[None], vectors[None], cosines[None], sines[None])
        return found[0]

    def back(self, queries: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
        """Undo the rotation; what it scales by, as YaRN does, is undone too."""
        last = slice(len(self.cosines) - keys.shape[1], None)  # what a window has lost comes first
        cosines, sines = self.cosines[last], self.sines[last]
        size = cosines.square() + sines.square()
        pair = (cosines / size)[None], (-sines / size)[None]
        q, k = self.apply(queries[None], keys[None], *pair)
        return q[0], k[0]

    def at(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Return the rotation to other positions, by the model's own module."""
        module, args, kwargs, _ = self.made
        given = inspect.signature(module.forward).bind(*args, **kwargs)
        given.arguments["position_ids"] = (positions.to(self.cosines.device) + self.first)[None]
        with torch.no_grad():
            cosines, sines = module(*given.args, **given.kwargs)
        return cosines[0], sines[0]


def of(
    module: nn.Module, tables: tuple[Tensor, Tensor], made: Sequence[Made], example: int, tokens: slice
) -> Turned | None:
    """Return how an attention module rotates the tokens of one example; None where that cannot be told."""
    function = getattr(sys.modules[type(module).__module__], "apply_rotary_pos_emb", None)
    if function is None or [*inspect.signature(function).parameters][:4] != ["q", "k", "cos", "sin"]:
        return None
    known = next((each for each in made if isinstance(each[3], tuple) and each[3][0] is tables[0]), None)
    if known is None:
        return None
    given = inspect.signature(known[0].forward).bind(*known[1], **known[2]).arguments.get("position_ids")
    if given is None:
        return None
    row = example if len(given) > 1 else 0
    cosines, sines = (table[example if len(table) > 1 else 0, tokens] for table in tables)
    return Turned(cosines, sines, function, known, int(given[row, tokens.start]))
