"""Probes of many sets of vectors at once: trained on train, chosen on dev, scored on test.

Nothing that is chosen sees a test label: `train` takes none, `Trained.score` is what is left to do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from attnbench.errors import UserError
from attnbench.studies.probes import logistic, perceptron
from attnbench.studies.probes.logistic import Scaling

PART_OF_METHODS = True  # what is found here is found by a study: its records' identity covers this file

PENALTIES = (1e-2, 1e-3, 1e-4, 1e-5)  # SentEval's weight decay for a classifier in torch, strongest first
LOOSE, TIGHT = 1e-2, 1e-3  # share of the objective that a fit may be above its minimum: on the grid, refit
RESOLUTION = torch.finfo(torch.float16).eps  # what half precision tells apart


class Targets(NamedTuple):
    """What is to be told of the samples of train and dev: class numbers, or numbers where `classes` is 0."""

    train: Tensor
    dev: Tensor
    classes: int


@dataclass
class Trained:
    """The probes of some sets, each at its best penalty: their dev scores, and what scores other samples."""

    scaling: Scaling
    weights: list[Tensor]
    dev: Tensor  # (sets,)
    penalty: Tensor  # (sets,)
    classes: int

    def score(self, features: Tensor, labels: Tensor) -> Tensor:
        """Return each set's accuracy, of numbers Pearson's correlation (sets,), in float64.

        A correlation with a prediction that is the same for all samples is NaN.
        """
        return _score(self.scaling.apply(features), self.weights, labels, self.classes)

    def right(self, features: Tensor, labels: Tensor) -> Tensor:
        """Tell which samples each set's probe names the class of: (sets, samples). Not for numbers."""
        return _predicted(self.scaling.apply(features), self.weights) == labels


def train(given: Tensor, held: Tensor, targets: Targets, hidden: int = 0, seed: int = 0) -> Trained:
    """Train a linear probe on each set of vectors, its L2 penalty chosen on dev, then refit.

    `given` are those of train, `held` those of dev: (sets, samples, columns).

    The vectors are standardised by the training samples. Classes: multinomial logistic regression,
    min mean cross entropy + penalty/2 |weights|^2 over PENALTIES, first to within LOOSE of the minimum; the
    penalty with the best dev accuracy, of equal ones the strongest, is then solved to within TIGHT, on train
    alone. Numbers: ridge regression, min mean squared error/2 + penalty/2 |weights|^2, chosen by Pearson's
    correlation on dev (SentEval has a softmax over the scores 1 to 5 there: https://arxiv.org/abs/1503.00075,
    section 4.2). `hidden`: units of a multilayer perceptron instead, stopped by dev.
    """
    scaling = Scaling.of(given, RESOLUTION)
    inputs, dev = scaling.apply(given), scaling.apply(held)
    if hidden:
        if not targets.classes:
            raise UserError("a probe with hidden units is for classes: leave units= out for numbers")
        weights, best = perceptron.train(
            inputs, targets.train, dev, targets.dev, targets.classes, hidden, seed
        )
        return Trained(scaling, weights, best, torch.full_like(best, torch.nan), targets.classes)
    kept, best, penalty = _grid(inputs, dev, scaling, targets)
    if targets.classes:
        kept = logistic.solve(
            inputs, targets.train, targets.classes, scaling.variance, penalty, kept, TIGHT
        ).weights
        best = _score(dev, [kept], targets.dev, targets.classes)
    return Trained(scaling, [kept], best, penalty, targets.classes)


def _grid(inputs: Tensor, dev: Tensor, scaling: Scaling, targets: Targets) -> tuple[Tensor, Tensor, Tensor]:
    """Return the weights of each set's best penalty, its dev score, and the penalty."""
    weights = None
    best = torch.full((len(inputs),), -torch.inf, dtype=torch.float64, device=inputs.device)
    penalty = torch.full_like(best, PENALTIES[0])
    for each in PENALTIES:
        if targets.classes:
            weights = logistic.solve(
                inputs, targets.train, targets.classes, scaling.variance, each, weights, LOOSE
            ).weights
        else:
            weights = _ridge(inputs, targets.train, scaling.variance, each)
        score = _score(dev, [weights], targets.dev, targets.classes)
        better = score > best
        if each == PENALTIES[0]:
            kept = weights.clone()
        kept[better], best[better], penalty[better] = weights[better], score[better], each
    return kept, torch.where(best.isfinite(), best, torch.nan), penalty


def _ridge(inputs: Tensor, numbers: Tensor, variance: Tensor, penalty: float) -> Tensor:
    """Solve along eigenvectors, where the columns do not depend on each other: (sets, columns + 1, 1)."""
    centred = (numbers - numbers.mean()).to(inputs.dtype)
    weights = (inputs.mT @ centred)[:, :, None] / inputs.shape[1] / (variance + penalty)[:, :, None]
    weights[:, -1] = numbers.mean().to(inputs.dtype)
    return weights


def _predicted(inputs: Tensor, weights: list[Tensor]) -> Tensor:
    return perceptron.predict(inputs, weights) if len(weights) > 1 else logistic.predict(inputs, *weights)


def _score(inputs: Tensor, weights: list[Tensor], labels: Tensor, classes: int) -> Tensor:
    if classes:
        return (_predicted(inputs, weights) == labels).double().mean(1)
    said = (inputs @ weights[0])[:, :, 0].double()
    said, meant = said - said.mean(1, keepdim=True), labels.double() - labels.double().mean()
    constant = said.abs().amax(1) <= RESOLUTION * (inputs.shape[2] * torch.finfo(inputs.dtype).eps)
    found = (said @ meant) / (said.norm(dim=1) * meant.norm())
    return found.masked_fill(constant, torch.nan)


def room(samples: int, columns: int, classes: int, limit: int = 1 << 29) -> int:
    """Return how many sets are trained together, so that they need about `limit` bytes."""
    outputs = 1 if classes <= 2 else classes
    one = 4 * (columns + 1) * (3 * samples + (2 * logistic.MEMORY + 6) * outputs)
    return max(1, limit // one)
