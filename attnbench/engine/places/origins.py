"""Remember where a mask stands among all tokens: a window's cache no longer has the first keys."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad
from torch.utils.weak import WeakTensorKeyDictionary
from transformers.masking_utils import eager_mask

from attnbench.errors import UserError


@dataclass(frozen=True)
class Origin:
    """How many tokens, padding counted, come before a mask's first query and before its first key.

    Where `queries` is None, the first query that sees the last key stands at it. `shown` (batch, tokens) is
    True where a token is none of padding, None where no token is.
    """

    queries: int | None
    keys: int
    shown: Tensor | None

    def starts(self, examples: int) -> list[int]:
        """Return each example's first token that is no padding."""
        if self.shown is None:
            return [0] * examples
        return self.shown.to(torch.uint8).argmax(1).expand(examples).tolist()

    def whole(self, mask: Tensor) -> Tensor:
        """Put the keys back that the cache has lost: they are hidden."""
        hidden = 0 if mask.dtype == torch.bool else torch.finfo(mask.dtype).min
        return pad(mask, (self.keys, 0), value=hidden) if self.keys else mask


# a mask -> where it stands: all layers of one kind share one, and nothing here keeps it alive
_known: WeakTensorKeyDictionary = WeakTensorKeyDictionary()


def mask(**given: Any) -> Tensor | None:
    """Make the mask of eager attention, as transformers asks for it, and remember where it stands."""
    made = eager_mask(**given)
    queries, keys = given.get("q_offset", 0), given.get("kv_offset", 0)
    if made is not None and (keys or given["q_length"] != given["kv_length"]):
        _remember(made, queries, keys, given.get("attention_mask"))
    return made


@torch.compiler.disable
def _remember(made: Tensor, queries: int | Tensor, keys: int, shown: Tensor | None) -> None:
    _known[made] = Origin(int(queries), keys, shown)


def of(mask: Tensor) -> Origin | None:
    """Return where a mask stands; None for one that covers as many keys as queries or was made elsewhere."""
    return _known.get(mask)


def require_positions(path: str, queries: int, keys: int, mask: Tensor | None, window: int | None) -> None:
    """Raise UserError where nothing tells which tokens the keys are that a window has left."""
    if window is None or mask is None or keys == queries or keys < window or of(mask):
        return
    raise UserError(
        f"{path} has a window of {window} keys and a mask that says not which tokens they are: "
        "pass attention_mask with two axes (batch, tokens), or use no cache"
    )
