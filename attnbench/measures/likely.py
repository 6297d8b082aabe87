"""What a model expects in the place of each token of a text: of dense's likeliest tokens, and of all others.

All of a vocabulary would be gigabytes a text. KL(dense || method) over dense's K likeliest tokens and one
event for all others is a lower bound of it (no grouping of events adds to a divergence), and all of it where
the vocabulary is no larger.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

    from attnbench.statistics.aggregates import Array

K = 16
# arrays of a record: of each target token, sample by sample
IDS, LOGS, SIZES = "likely ids", "likely logs", "likely sizes"
OURS = "likely ours"  # is dense's likeliest token still the likeliest: in no record
KEPT = (IDS, LOGS, SIZES)
LEAST = 1e-7  # of all other tokens: less is the rounding of a sum of single precision


class Likely:
    """Collects what a model expects for the target tokens of samples, each some requests and their tokens.

    Without `ids` (tokens, K), which are dense's, it finds the likeliest tokens itself.
    """

    def __init__(self, samples: Iterable[Sequence[tuple[Any, int]]], ids: Array | None = None) -> None:
        asked = [[*sample] for sample in samples]
        self._sizes = [sum(size for _, size in sample) for sample in asked]
        ends = np.cumsum([0, *(size for sample in asked for _, size in sample)])
        requests = (request for sample in asked for request, _ in sample)
        self._first = {id(request): int(start) for request, start in zip(requests, ends[:-1], strict=True)}
        self._given = ids
        self._tokens = int(ends[-1])
        self.arrays: dict[str, Array] = {}

    def first(self, request: Any) -> int:
        """Return the place of a request's first target token."""
        return self._first[id(request)]

    def take(self, places: Array, logits: Tensor) -> None:
        """Take the logits (tokens, vocabulary) of the target tokens at these places."""
        import torch

        if self._given is None:
            values, ids = logits.topk(min(K, logits.shape[1]), dim=1)
        else:
            ids = torch.from_numpy(self._given[places].astype(np.int64)).to(logits.device)
            values = logits.gather(1, ids)
        logs = values.double() - logits.double().logsumexp(1, keepdim=True)
        found = {IDS: ids, LOGS: logs, OURS: values[:, :1] >= logits.amax(1, keepdim=True)}
        for name, tensor in found.items():
            array = tensor.cpu().numpy()
            if name not in self.arrays:
                self.arrays[name] = np.zeros((self._tokens, array.shape[1]), array.dtype)
            self.arrays[name][places] = array

    def recorded(self) -> dict[str, Array]:
        """Return the arrays as small as they can be, and how many target tokens each sample has."""
        ids = self.arrays[IDS]
        return {
            IDS: ids.astype(np.uint16 if ids.max(initial=0) < 1 << 16 else np.uint32),
            LOGS: self.arrays[LOGS].astype(np.float32 if self._given is None else np.float64),
            OURS: self.arrays[OURS],
            SIZES: np.asarray(self._sizes, np.int64),
        }


def divergence(dense: Array, own: Array) -> Array:
    """Return KL(dense || own) of each token, (tokens,), in nats, of log-probabilities (tokens, K).

    sum_k p_k log(p_k / q_k) + r log(r / s) with r = 1 - sum_k p_k and s = 1 - sum_k q_k.
    """
    p, q = (np.exp(np.asarray(each, float)) for each in (dense, own))
    r, s = (np.maximum(1 - each.sum(1), LEAST) for each in (p, q))
    inside = p * (np.asarray(dense, float) - np.asarray(own, float))
    return np.maximum(inside.sum(1) + r * np.log(r / s), 0.0)
