"""Probes with one hidden layer, for many sets of features side by side."""

from __future__ import annotations

import torch
from torch import Tensor

from attnbench.studies.probes.logistic import tiles

PART_OF_METHODS = True  # what is found here is found by a study: its records' identity covers this file

BATCH, RATE = 64, 1e-3
PASSES, CHECKS = 4, 50  # through train before each look at dev, looks at most
PATIENCE = 5  # looks at dev in a row without a better accuracy


def train(
    inputs: Tensor, labels: Tensor, dev: Tensor, wanted: Tensor, classes: int, hidden: int, seed: int = 0
) -> tuple[list[Tensor], Tensor]:
    """Return the weights of every set's network as they were best on dev, and that dev accuracy (sets,).

    `labels` are those of the training inputs, `wanted` those of dev.

    logits = sigmoid(x U) V, biases among the columns: `inputs` are those of `Scaling.apply`. Adam, without
    dropout and penalty; all sets see the same batches in the same order and begin alike. Batches, passes and
    patience are those of SentEval's classifier with `nhid` (https://github.com/facebookresearch/SentEval),
    which counts looks without improvement over all its training and has a weight decay chosen on dev.
    """
    draw = torch.Generator().manual_seed(seed)
    sets, samples, columns = inputs.shape
    shapes = ((columns, hidden), (hidden + 1, classes))
    with torch.enable_grad():
        weights = [
            torch.randn(shape, generator=draw)
            .mul(shape[0] ** -0.5)
            .to(inputs)
            .expand(sets, *shape)
            .clone()
            .requires_grad_()
            for shape in shapes
        ]
        adam = torch.optim.Adam(weights, lr=RATE)
        best = [each.detach().clone() for each in weights]
        scores = torch.full((sets,), -1.0, dtype=torch.float64, device=inputs.device)
        waited = torch.zeros_like(scores)
        for _ in range(CHECKS):
            order = [torch.randperm(samples, generator=draw).to(inputs.device) for _ in range(PASSES)]
            for rows in (part for each in order for part in each.split(BATCH)):
                logits = _logits(inputs[:, rows], weights)
                right = labels[rows].expand(sets, -1).flatten()
                loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), right, reduction="sum")
                adam.zero_grad()
                (loss / len(rows)).backward()
                adam.step()
            current = [each.detach() for each in weights]
            found = (predict(dev, current) == wanted).double().mean(1)
            better = (found > scores) & (waited < PATIENCE)
            for kept, each in zip(best, current, strict=True):
                kept[better] = each[better]
            scores[better] = found[better]
            waited = torch.where(better, 0.0, waited + 1)
            if bool((waited >= PATIENCE).all()):
                break
    return best, scores


def _logits(inputs: Tensor, weights: list[Tensor]) -> Tensor:
    inner = (inputs @ weights[0]).sigmoid()
    return torch.cat([inner, inner.new_ones(*inner.shape[:2], 1)], 2) @ weights[1]


def predict(inputs: Tensor, weights: list[Tensor]) -> Tensor:
    """Return the likeliest class of every sample (sets, samples)."""
    found = torch.empty(inputs.shape[:2], dtype=torch.long, device=inputs.device)
    row = (weights[0].shape[2] + weights[1].shape[2]) * weights[0].element_size()
    for some, rows in tiles(inputs.shape[0], inputs.shape[1], row, inputs):
        found[some, rows] = _logits(inputs[some, rows], [each[some] for each in weights]).argmax(2)
    return found
