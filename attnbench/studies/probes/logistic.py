"""Logistic regression on many sets of features at once: one convex problem a set, solved side by side."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

PART_OF_METHODS = True  # what is found here is found by a study: its records' identity covers this file

MEMORY = 10  # steps that a direction is made of
ARMIJO, SHRUNK = 1e-4, 0.5
ROUNDS = 500  # evaluations of a set at most; a weak penalty on many classes takes about 100
TILE = {"cpu": 1 << 21, "cuda": 1 << 28}  # bytes of logits at a time: of a CPU about a core's L2 cache


@dataclass
class Scaling:
    """What makes features standardised and uncorrelated; all of it is learned from the training samples.

    z = (x - mean) / deviation, then along the eigenvectors of z's correlations: a rotation, which an L2
    penalty does not see. A column that varies by less than `resolution` of its largest value is constant,
    and left at zero.
    """

    mean: Tensor  # (sets, 1, columns)
    inverse: Tensor  # (sets, 1, columns): 1 / deviation, 0 for a constant
    turned: Tensor  # (sets, columns, columns)
    variance: Tensor  # (sets, columns + 1): along each eigenvector; 1 for the bias

    @classmethod
    def of(cls, features: Tensor, resolution: float = 0.0) -> Scaling:
        """Learn from training features (sets, samples, columns)."""
        mean = features.mean(1, keepdim=True)
        deviation = (features - mean).square().mean(1, keepdim=True).sqrt()
        constant = deviation <= resolution * features.abs().amax(1, keepdim=True)
        inverse = torch.where(constant, 0.0, 1 / deviation.masked_fill(constant, 1.0))
        scaled = (features - mean) * inverse
        # in single precision LAPACK's eigenvectors of many equal eigenvalues can be NaN without a word
        variance, turned = torch.linalg.eigh((scaled.mT @ scaled / features.shape[1]).double())
        variance, turned = variance.to(features).clamp(min=0), turned.to(features)
        ones = variance.new_ones(len(variance), 1)
        return cls(mean, inverse, turned, torch.cat([variance, ones], 1))

    def apply(self, features: Tensor) -> Tensor:
        """Scale features (sets, samples, columns) and add a column of ones: (sets, samples, columns + 1)."""
        scaled = ((features - self.mean) * self.inverse) @ self.turned
        return torch.cat([scaled, scaled.new_ones(*scaled.shape[:2], 1)], 2)


class Solution(NamedTuple):
    """Of every set: weights (sets, columns + 1, outputs), the objective, how far it may be above the minimum.

    `gap` (sets,) is a bound as a share of the objective, `rounds` counts evaluations.
    """

    weights: Tensor
    objective: Tensor
    gap: Tensor
    rounds: Tensor


def solve(
    inputs: Tensor,
    labels: Tensor,
    classes: int,
    variance: Tensor,
    penalty: float | Tensor,
    start: Tensor | None = None,
    tolerance: float = 1e-4,
) -> Solution:
    """Minimise mean cross entropy + penalty/2 |weights|^2 for every set, the bias unpenalised.

    `inputs` (sets, samples, columns + 1) are those of `Scaling.apply`, `labels` (samples,) from 0 to
    `classes` - 1, each there at least once, `penalty` a number or one a set. Two classes have one output,
    the logit of class 1, more have one each: scikit-learn's LogisticRegression with
    C = 1 / (penalty samples). Raises ArithmeticError for inputs that are not finite.

    Ends where the duality gap, |slope|^2 / (2 penalty), is below `tolerance` times the objective: no minimum
    is further below. The bias has no penalty, its part is slope^2 / (2 p_c (1 - p_c)), with p_c the share of
    a class: its curvature where all weights are zero. Ends too after ROUNDS evaluations or where rounding
    hides every further step: `gap` says what was reached.

    L-BFGS (Nocedal and Wright, Numerical Optimization, 2nd edition, algorithm 7.5) with a step halved until
    it is Armijo's, a set at its own pace. It begins from the Hessian's diagonal where all weights are zero,
    variance_k p_c (1 - p_c) + penalty: along eigenvectors that is nearly all of the Hessian there, which
    saves most of the steps.
    """
    sets, samples, columns = inputs.shape
    shares = torch.bincount(labels, minlength=classes).to(inputs.dtype) / samples
    outputs = 1 if classes == 2 else classes
    shares = shares[1:] if outputs == 1 else shares
    ridge = torch.as_tensor(penalty, dtype=inputs.dtype, device=inputs.device).expand(sets)
    ridge = ridge[:, None, None].repeat(1, columns, 1)
    ridge[:, -1] = 0
    if start is None:
        start = inputs.new_zeros(sets, columns, outputs)
        start[:, -1] = shares.log() if outputs > 1 else (shares / (1 - shares)).log()
    scale = 1 / (variance[:, :, None] * shares * (1 - shares) + ridge)
    state = _Descent(inputs, labels, ridge, scale, start.clone())
    state.run(tolerance)
    return Solution(state.weights, state.value, state.gap() / state.value, state.rounds)


class _Descent:
    """The sets' weights on their way down, and the last steps of each."""

    def __init__(self, inputs: Tensor, labels: Tensor, ridge: Tensor, scale: Tensor, start: Tensor) -> None:
        self.inputs, self.labels, self.ridge, self.scale, self.weights = inputs, labels, ridge, scale, start
        self.value, self.slope = self.evaluate(torch.arange(len(start), device=start.device), start)
        sets, width = len(start), start[0].numel()
        self.steps = start.new_zeros(MEMORY, sets, width)
        self.turns = start.new_zeros(MEMORY, sets, width)  # what a step did to the slope
        self.inverse = start.new_zeros(MEMORY, sets)  # 1 / (step . turn), 0 where there is no step yet
        self.count = torch.zeros(sets, dtype=torch.long, device=start.device)  # of steps, kept in turn
        self.gain = start.new_ones(sets)
        self.rounds = torch.ones(sets, dtype=torch.long, device=start.device)
        self.excess = self.value.new_zeros(sets)
        self.direction = torch.zeros_like(start)
        self.lowest = torch.zeros(sets, dtype=torch.bool, device=start.device)  # below it lies rounding alone
        self.aim(torch.arange(sets, device=start.device))

    def run(self, tolerance: float) -> None:
        """Go on until every set has arrived."""
        length = self.gain.clone()
        noise = 8 * torch.finfo(self.weights.dtype).eps
        while len(left := self.above(tolerance)):
            self.rounds[left] += 1
            tried = self.weights[left] + length[left, None, None] * self.direction[left]
            value, slope = self.evaluate(left, tried)
            wanted = self.value[left] - 2 * ARMIJO * length[left] * self.excess[left]
            good = value <= wanted + noise * self.value[left]
            length[left[~good]] *= SHRUNK
            self.lowest[left[length[left] < noise]] = True
            if len(moved := left[good]):
                self.remember(moved, tried[good] - self.weights[moved], slope[good] - self.slope[moved])
                self.weights[moved], self.value[moved], self.slope[moved] = (
                    tried[good],
                    value[good],
                    slope[good],
                )
                length[moved] = 1
                self.aim(moved)

    def above(self, tolerance: float) -> Tensor:
        """Return the sets that go on. Raises ArithmeticError for a value that is not finite."""
        if not bool(self.value.isfinite().all()):
            raise ArithmeticError("a logistic regression on values that are not finite")
        over = (self.gap() > tolerance * self.value) & (self.rounds < ROUNDS)
        return torch.nonzero(over & ~self.lowest).flatten()

    def gap(self) -> Tensor:
        """Return how far each set's objective may be above its minimum (sets,)."""
        bias = self.slope[:, -1:].square() * self.scale[:, -1:]
        rest = self.slope[:, :-1].square() / self.ridge[:, :-1]
        return (bias.sum((1, 2), dtype=torch.float64) + rest.sum((1, 2), dtype=torch.float64)) / 2

    def remember(self, sets: Tensor, step: Tensor, turn: Tensor) -> None:
        step, turn = step.flatten(1), turn.flatten(1)
        product = (step * turn).sum(1)
        sound = product > 0  # rounding alone can make a convex function bend the other way
        sets, step, turn, product = sets[sound], step[sound], turn[sound], product[sound]
        place = self.count[sets] % MEMORY
        self.steps[place, sets], self.turns[place, sets], self.inverse[place, sets] = step, turn, 1 / product
        self.count[sets] += 1
        self.gain[sets] = product / (turn * self.scale[sets].flatten(1) * turn).sum(1)

    def aim(self, sets: Tensor) -> None:
        """Find the direction of the sets, and by how much a whole step of it lowers a quadratic."""
        ahead = self.slope[sets].flatten(1).clone()
        places = [(self.count[sets] - 1 - k) % MEMORY for k in range(MEMORY)]  # the newest first
        weights = []
        for place in places:
            weights.append(self.inverse[place, sets] * (self.steps[place, sets] * ahead).sum(1))
            ahead -= weights[-1][:, None] * self.turns[place, sets]
        ahead *= self.gain[sets, None] * self.scale[sets].flatten(1)
        for place in reversed(places):
            back = self.inverse[place, sets] * (self.turns[place, sets] * ahead).sum(1)
            ahead += (weights.pop() - back)[:, None] * self.steps[place, sets]
        self.direction[sets] = -ahead.reshape_as(self.slope[sets])
        self.excess[sets] = (ahead * self.slope[sets].flatten(1)).sum(1, dtype=torch.float64) / 2

    def evaluate(self, sets: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Return the objective (sets,) in float64 and its slope, of the given sets at the given weights."""
        ridge = self.ridge[sets]
        value = (ridge * weights.square()).sum((1, 2), dtype=torch.float64) / 2
        slope = ridge * weights
        samples = self.inputs.shape[1]
        row = weights.shape[2] * weights.element_size()
        for some, rows in tiles(len(sets), samples, row, weights):
            inputs = self.inputs[sets[some], rows]
            logits = inputs @ weights[some]
            loss, residual = _loss(logits, self.labels[rows])
            value[some] += loss / samples
            slope[some] += inputs.mT @ residual.div_(samples)
        return value, slope


def tiles(sets: int, samples: int, row: int, like: Tensor) -> Iterator[tuple[slice, slice]]:
    """Part sets x samples into pieces whose rows of so many bytes stay in the cache."""
    room = max(1, TILE.get(like.device.type, TILE["cpu"]) // row)
    together, at_once = max(1, room // samples), min(samples, room)
    for first in range(0, sets, together):
        for start in range(0, samples, at_once):
            yield slice(first, first + together), slice(start, start + at_once)


def _loss(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the summed cross entropy of each set and its slope by the logits, whose memory is used again."""
    if logits.shape[2] == 1:
        wanted = labels.to(logits.dtype)[None, :, None]
        loss = torch.nn.functional.softplus(logits) - wanted * logits
        return loss.sum((1, 2), dtype=torch.float64), logits.sigmoid_().sub_(wanted)
    place = labels[None, :, None].expand(len(logits), -1, 1)
    logits -= logits.amax(2, keepdim=True)
    right = logits.gather(2, place)
    logits.exp_()
    total = logits.sum(2, keepdim=True)
    loss = (total.log() - right).sum((1, 2), dtype=torch.float64)
    logits /= total
    return loss, logits.scatter_add_(2, place, logits.new_full((1, 1, 1), -1.0).expand_as(right))


def predict(inputs: Tensor, weights: Tensor) -> Tensor:
    """Return the likeliest class of every sample (sets, samples); of classes alike, the first."""
    found = torch.empty(inputs.shape[:2], dtype=torch.long, device=inputs.device)
    row = weights.shape[2] * weights.element_size()
    for some, rows in tiles(inputs.shape[0], inputs.shape[1], row, weights):
        logits = inputs[some, rows] @ weights[some]
        found[some, rows] = logits.argmax(2) if logits.shape[2] > 1 else (logits[:, :, 0] > 0).long()
    return found
