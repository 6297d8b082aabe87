"""What `output_attentions=True` gets of a model that methods are applied to: the probabilities used."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from torch import Tensor

from attnbench.errors import UserError

if TYPE_CHECKING:
    from attnbench.engine.places.blocks import Block
    from attnbench.engine.serving.scored import Stages
    from attnbench.methods.protocol import Site

ASKED = "output_attentions"


def wanted(model: Any, given: Mapping[str, Any]) -> bool:
    """Tell whether a call of a model, or else its configuration, asks for attentions."""
    asked = given.get(ASKED)
    return bool(getattr(model.config, ASKED, False) if asked is None else asked)


def cannot_show(path: str) -> UserError:
    """Build the error for a call in which heads see what is left of a prompt, each its own keys."""
    return UserError(
        f"{path}: {ASKED} has no probabilities while a method cuts caches, as heads keep different keys: "
        "leave it out, or apply methods that cut none"
    )


@dataclass
class Shown:
    """The probabilities of one call (batch, heads, queries, keys): 0 where nothing is seen and at pads."""

    probs: Tensor | None = None

    def begin(self, query: Tensor, key: Tensor) -> None:
        """Make room for the probabilities of queries and keys (batch, heads, tokens, head_dim)."""
        self.probs = query.new_zeros(*query.shape[:3], key.shape[2])

    def within(self, stages: Stages, part: Block) -> Stages:
        """Return the stages of a tile that note its probabilities after all methods."""

        def note(probs: Tensor, site: Site) -> Tensor:
            if self.probs is not None:
                self.probs[part.examples, :, part.queries, part.keys] = probs
            return probs

        return replace(stages, probs=[*stages.probs, note])
