"""What a method does to a model's answers: how many turn, how many are others, how far their odds move.

An accuracy tells only how many more turn one way than the other; most of what a method changes it does not
show (Dutta et al. 2024, https://arxiv.org/abs/2407.09141).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import log_softmax

from attnbench.measures.likely import LOGS, OURS, SIZES, divergence
from attnbench.statistics.aggregates import Array
from attnbench.statistics.fidelity import CHANGED, FLIPS, KL, array_name, interval

OUTPUTS = "outputs"
ONE_DECISION = ("mcc", "f1")  # of their counts (tp, fp, fn, tn) a sample has one, where it is one decision


@dataclass(frozen=True)
class Form:
    """What a task's outputs (samples, k) are answers as.

    classes    logits: the answer is the largest
    pairs      (log-likelihood, tokens) of two texts in turn: the answer is the likelier one
    choices    log-likelihoods, `options` of each sample: the answer is the likeliest one, of any length
    labels     logits: the answer is which of them are above 0
    span       (first character, one past the last, score): the answer is the place
    text       what stands for a text
    target     a text after a prompt: the answer is the tokens that are likeliest there
    rolling    a whole text: nothing is asked
    number     no answer can be the same as another
    """

    name: str
    options: Sequence[int] = ()


def compared(
    form: Form, metrics: Mapping[str, Any], dense: Mapping[str, Array], own: Mapping[str, Array]
) -> dict[str, Array]:
    """Return what is defined of flips, answers-changed and kl, each (samples,), by the names of arrays.

    flips            1 where the sample is right with one and wrong with the other, by the task's first metric
                     that is right or wrong
    answers-changed  1 where the answer is not dense's
    kl               KL(dense || method) = sum_a p(a) log(p(a) / q(a)), in nats, of the answer's distribution:
                     of classes and of choices (softmax of their log-likelihoods), summed over labels; of a
                     target's tokens see `likely`
    """
    found = {
        FLIPS: _flips(metrics, dense, own),
        CHANGED: _changed(form, dense, own),
        KL: _kl(form, dense, own),
    }
    return {array_name(name): np.asarray(array, float) for name, array in found.items() if array is not None}


def summary(arrays: Mapping[str, Array]) -> dict[str, dict[str, float]]:
    """Return the mean of each and its 95 % interval, as a record has them."""
    names = {array_name(name): name for name in (FLIPS, CHANGED, KL)}
    return {names[key]: interval([array])._asdict() for key, array in arrays.items() if key in names}


def _flips(metrics: Mapping[str, Any], dense: Mapping[str, Array], own: Mapping[str, Array]) -> Array | None:
    for name, metric in metrics.items():
        before, now = (_right(metric.get("aggregate", "mean"), each.get(name)) for each in (dense, own))
        if before is not None and now is not None:
            return np.asarray(before != now, float)
    return None


def _right(kind: str, scores: Array | None) -> Array | None:
    """Return whether each sample is right, None where that is a matter of degree."""
    if scores is None:
        return None
    if kind in ONE_DECISION:
        return scores[:, 0] + scores[:, 3] if bool((scores.sum(1) == 1).all()) else None
    return scores if kind == "mean" and bool(np.isin(scores, (0, 1)).all()) else None


def _changed(form: Form, dense: Mapping[str, Array], own: Mapping[str, Array]) -> Array | None:
    if form.name == "target":
        parts = _by_sample(own[OURS], dense[SIZES])
        return np.array([float(not part.all()) for part in parts])
    before, now = (_answers(form, each[OUTPUTS]) for each in (dense, own))
    return None if before is None or now is None else np.asarray((before != now).any(1), float)


def _answers(form: Form, outputs: Array) -> Array | None:
    """Return what is the same for the same answers (samples, k)."""
    logs = _logs(form, outputs)
    if logs is not None:
        return logs.argmax(1)[:, None]
    if form.name == "labels":
        return np.asarray(outputs > 0, float)
    return {"span": outputs[:, :2], "text": outputs}.get(form.name)


def _logs(form: Form, outputs: Array) -> Array | None:
    """Return the log odds of each option (samples, options), -inf where a sample has fewer."""
    if form.name == "classes":
        return np.asarray(outputs, float)
    if form.name == "pairs":
        return np.asarray(outputs[:, ::2], float)
    if form.name != "choices":
        return None
    there = np.arange(outputs.shape[1]) < np.array(form.options)[:, None]
    return np.where(there, outputs.astype(float), -np.inf)


def _kl(form: Form, dense: Mapping[str, Array], own: Mapping[str, Array]) -> Array | None:
    if form.name in ("target", "rolling"):
        parts = _by_sample(divergence(dense[LOGS], own[LOGS]), dense[SIZES])
        return np.array([part.mean() if len(part) else 0.0 for part in parts])
    if form.name == "labels":
        logs, others = (np.asarray(each[OUTPUTS], float) for each in (dense, own))
        said = [np.stack([z, np.zeros_like(z)], -1) for z in (logs, others)]  # odds of yes and of no
        return np.asarray(_divergence(*said).sum(-1))
    before, now = (_logs(form, each[OUTPUTS]) for each in (dense, own))
    return None if before is None or now is None else _divergence(before, now)


def _divergence(logs: Array, others: Array) -> Array:
    """Return KL over the last axis of two softmaxes; an option that a sample has not adds nothing."""
    before, now = log_softmax(logs, axis=-1), log_softmax(others, axis=-1)
    there = ~np.isneginf(before)
    gap = np.where(there, before, 0.0) - np.where(there, now, 0.0)
    return np.asarray(np.maximum((np.exp(before) * gap).sum(-1), 0.0))


def _by_sample(array: Array, sizes: Array) -> list[Array]:
    return np.split(array, np.cumsum(sizes)[:-1])
