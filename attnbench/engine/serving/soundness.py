"""Whether a model is served as it attends by itself, and whether methods ran wherever they act."""

from __future__ import annotations

import contextlib
from typing import Any

from torch import Tensor, nn

from attnbench.engine.places import probing, routing, sites, softmax
from attnbench.engine.places.kept import kept
from attnbench.engine.serving.attention import apply
from attnbench.errors import UserError
from attnbench.inputs.settings import EAGER_TOLERANCE
from attnbench.methods.protocol import Method, Site


class Identity(Method):
    """Change nothing, by the same path as what changes attention."""

    name = "identity"

    def probs(self, probs: Tensor, site: Site) -> Tensor:
        return probs


def compare_with_eager(model: nn.Module, batch: dict[str, Tensor] | None = None) -> float:
    """Return the largest difference of one dense pass through our function from the eager one, padding aside.

    Relative to the largest eager output where that exceeds 1. Raises UserError for an architecture that is
    not supported.
    """
    batch = probing.probe_batch(model, examples=2, padding=2) if batch is None else batch
    sites.discover(model)  # refuses what a probe of few tokens would change
    # a tap makes a model eager: it is compared with what the model does by itself
    with kept(model):
        with contextlib.nullcontext() if softmax.needed(model) else routing.implementation(model, "eager"):
            expected = probing.run(model, batch)
        with apply(model, Identity()):
            found = probing.run(model, batch)
    seen = batch.get("decoder_attention_mask" if "decoder_input_ids" in batch else "attention_mask")
    if seen is not None and seen.shape == expected.shape[:2]:
        expected, found = expected[seen.bool()], found[seen.bool()]
    return float((expected - found).abs().max() / expected.abs().max().clamp(min=1))


def require_sound(name: str, model: Any, dtype: str) -> None:
    """Compare a loaded model with its own eager attention.

    Raises UserError where they differ, ArithmeticError for a weight that is not finite.
    """
    from attnbench.engine.serving.soundness import compare_with_eager

    strange = [path for path, weight in model.named_parameters() if not weight.isfinite().all()]
    if strange:
        raise ArithmeticError(f"{name}: {strange[0]} holds values that are not finite")
    difference = compare_with_eager(model)
    if not difference <= EAGER_TOLERANCE[dtype]:
        raise UserError(
            f"model '{name}' ({type(model).__name__}) differs from its eager attention "
            f"by {difference:.2g} under attnbench: this architecture is not supported."
        )


def require_hits(applied: Any) -> dict[str, Any]:
    """Raise RuntimeError where methods ran at fewer sites than they act at, or never cut a cache they should.

    Returns what a receipt says of caches: the share of scored tokens whose query saw a cut one, and on how
    many texts there was something to note.
    """
    if applied.hit < applied.expected:
        raise RuntimeError(
            f"the method ran at {applied.hit} of {applied.expected} sites: its numbers would be the dense "
            "model's in part"
        )
    if not applied.cutting:
        return {}
    if not applied.cut:
        raise RuntimeError(
            "no scored token's query saw a cut cache: its numbers would be the dense model's. Prompts have 2 "
            "tokens or more"
        )
    notes = {"notes": dict(applied.notes)} if applied.notes else {}
    return {"cut": min(1.0, applied.cut / applied.scored), **notes}
