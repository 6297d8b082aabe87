"""What a pocket model's training consists of, and each model's recipe."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class Recipe:
    """How long and how fast a task is trained."""

    steps: int
    batch: int
    options: Callable[[float], dict[str, Any]] = lambda done: {}  # the writer's, by the share of steps done
    rate: float = 1e-3
    warmup: int = 100
    seed: int = 0


@dataclass
class Lesson:
    """What the training loop needs: what to train, on which batches, to which loss."""

    model: Any
    vocabulary: Any  # the tokenizer, saved beside the weights
    tutor: nn.Module  # trained with the model and thrown away
    batches: Callable[[int], Iterator[dict[str, Tensor]]]  # from batch number n on
    loss: Callable[[dict[str, Tensor], float], Tensor]  # of a batch, at the share of steps done


def growing(done: float) -> dict[str, Any]:
    """Begin with few facts a paragraph: matching is learned there, the full length is practice."""
    if done < 0.4:
        return {"people": (3, 4), "relations": 2, "turned": 0.0}
    if done < 0.7:
        return {"people": (4, 6), "relations": 3}
    return {}


RECIPES = {
    ("bert", "sentiment"): Recipe(steps=1000, batch=64),
    ("bert", "qa"): Recipe(steps=1600, batch=32, options=growing),
    ("roberta", "sentiment"): Recipe(steps=2000, batch=64),
    ("roberta", "qa"): Recipe(steps=1600, batch=32, options=growing),
    ("electra", "sentiment"): Recipe(steps=1000, batch=64),
    ("electra", "qa"): Recipe(steps=1600, batch=32, options=growing),
    ("gpt", "language"): Recipe(steps=1000, batch=32, rate=2e-3),
    ("llama", "language"): Recipe(steps=500, batch=32, rate=2e-3),
    ("marian", "translation"): Recipe(steps=1200, batch=64, rate=2e-3),
}
