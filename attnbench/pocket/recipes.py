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
    onset: tuple[float, float] = (0.0, 0.0)  # shares of the steps between which the task's own loss comes in

    def share(self, done: float) -> float:
        """Return how much the task's own loss counts at a share of the steps, from 0 to 1."""
        start, end = self.onset
        return 0.0 if done < start else 1.0 if done >= end else (done - start) / (end - start)


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


def lengthening(done: float) -> dict[str, Any]:
    """Begin with short reviews: who says what is learned there, longer sums later."""
    if done < 0.5:
        return {"own": (2, 6), "others": (0, 2), "conceded": (0, 1)}
    if done < 0.7:
        return {"own": (6, 12), "others": (1, 3)}
    return {}


SENTIMENT = Recipe(steps=1600, batch=32, options=lengthening, onset=(0.1, 0.15))
RECIPES = {
    ("bert", "sentiment"): SENTIMENT,
    ("bert", "qa"): Recipe(steps=1600, batch=32, options=growing),
    ("roberta", "sentiment"): SENTIMENT,
    ("roberta", "qa"): Recipe(steps=1600, batch=32, options=growing),
    ("electra", "sentiment"): SENTIMENT,
    ("electra", "qa"): Recipe(steps=1600, batch=32, options=growing, seed=1),
    ("gpt", "language"): Recipe(steps=1000, batch=32, rate=2e-3),
    ("llama", "language"): Recipe(steps=500, batch=32, rate=2e-3),
    ("marian", "translation"): Recipe(steps=1200, batch=64, rate=2e-3),
}
