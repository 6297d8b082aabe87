"""Criteria of head importance that need labels: the loss's gradient, and what a linear probe reads."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from attnbench import hookimpl
from attnbench_plugins.head_scores import by_example
from attnbench_plugins.heads import Heads, Scores

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from attnbench import Site

DEV = 5  # one example in so many measures, the others train


@dataclass
class HeadsGradient(Heads):
    """Remove the heads to which the loss is least sensitive.

    importance_h = sum over examples and tokens of |context_h . dL/dcontext_h|, divided by the L2 norm of its
    layer; the product is the derivative by a gate on that head and token, taken at 1. It is of first order
    and of one head at a time: what several heads do when they go together is not in it. Shapes: context
    (batch, heads, queries, head_dim), one gate (batch, heads, queries, 1), scores_ (heads,) per layer. Needs
    labels. Source: Michel et al. 2019, https://arxiv.org/abs/1905.10650, with the paper's normalisation by
    layer. Differs from their code: L is the sum over examples, in a language model or a translation over
    tokens (there the batch's mean), so that scores do not depend on the batch; the per-layer denominators
    drop out.
    """

    name = "heads:gradient"
    examples = ("heads50:gradient",)

    def importance(self, model: Any, batches: list[dict[str, Tensor]]) -> Scores:
        from attnbench import head_sensitivity

        sums = head_sensitivity(model, batches, self.selects)
        return {key: score / (score.norm() + 1e-20) for key, score in sums.items()}


@dataclass
class HeadsProbe(Heads):
    """Remove the heads from whose output a linear classifier reads the label worst.

    importance = accuracy, on a fifth of the calibration examples, of a logistic regression (L2 penalty 1,
    features standardised) trained on the others; its features are the head's context averaged over the
    example's tokens, head_dim numbers. Which fifth depends on each example's tokens alone. Heads of equal
    accuracy: the earlier layer's goes first. It is coarse on few examples: n of them tell accuracies apart in
    steps of 1/n, with a standard error of sqrt(a (1 - a) / n) at an accuracy of a. Needs class labels.
    Shapes: context (batch, heads, queries, head_dim), scores_ (heads,) per layer. Source: Jo and Myaeng 2020,
    https://aclanthology.org/2020.acl-main.311. Differs: averaged over tokens for every architecture (there
    the first token, or for causal models the first padding), one fixed split, no search for the penalty; the
    worst heads are removed (there the best are joined as features and the model stays whole).
    """

    name = "heads:probe"
    examples = ("heads50:probe",)

    def importance(self, model: Any, batches: list[dict[str, Tensor]]) -> Scores:
        import torch

        from attnbench import NotApplicable

        labels = [batch.get("labels") for batch in batches]
        if any(label is None or label.dim() != 1 or label.is_floating_point() for label in labels):
            raise NotApplicable(f"{self.name} needs a class label for every example, and this task has none")

        def total(context: Tensor, site: Site) -> Tensor:
            # (batch, heads, head_dim + 1): a long example comes in parts
            tokens = context.new_full((*context.shape[:2], 1), context.shape[2])
            return torch.cat([context.sum(2), tokens], -1)

        totals = by_example(self, model, batches, "context", total)
        features = {key: values[..., :-1] / values[..., -1:] for key, values in totals.items()}
        target = torch.cat(labels).cpu().numpy()
        place = [
            zlib.crc32(ids[mask.bool()].cpu().numpy().astype("<i8").tobytes())
            for batch in batches
            for ids, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True)
        ]
        order = sorted(range(len(place)), key=lambda example: (place[example], example))
        dev, train = order[: len(order) // DEV], order[len(order) // DEV :]
        if not dev or len(set(target[train])) < 2:
            raise NotApplicable(f"{self.name} needs more calibration examples, of at least two classes")
        scores = {}
        for key, values in features.items():
            if len(values) != len(target):
                raise RuntimeError(f"{self.name}: {len(values)} contexts at {key} for {len(target)} examples")
            accuracies = [
                _accuracy(values[:, head].numpy(), target, train, dev) for head in range(values.shape[1])
            ]
            scores[key] = torch.tensor(accuracies)
        return scores


def _accuracy(features: np.ndarray, target: np.ndarray, train: list[int], dev: list[int]) -> float:
    from sklearn.linear_model import LogisticRegression

    mean, spread = features[train].mean(0), features[train].std(0)
    features = (features - mean) / spread.clip(min=1e-12)
    probe = LogisticRegression(max_iter=1000).fit(features[train], target[train])
    return float(probe.score(features[dev], target[dev]))


@hookimpl
def register_methods(register):
    register(HeadsGradient)
    register(HeadsProbe)
