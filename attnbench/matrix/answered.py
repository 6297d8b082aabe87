"""What a cell answered, sample by sample, and whether that is what dense answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from attnbench.measures.fidelity import OUTPUTS
from attnbench.measures.likely import KEPT

if TYPE_CHECKING:
    from attnbench.backends.measurement import Measurement
    from attnbench.statistics.aggregates import Array


def arrays(found: Measurement) -> dict[str, Array]:
    """Return what an evaluation answered: outputs (samples, k), its scores, what it expected of targets."""
    outputs = np.stack([np.asarray(output, dtype=np.float32).ravel() for output in found.outputs])
    return {**found.scores, OUTPUTS: outputs, **found.likely}


def kept(own: dict[str, Array]) -> dict[str, Array]:
    """Return what a dense record keeps beside its scores, for methods to be held against it."""
    return {name: own[name] for name in (OUTPUTS, *KEPT) if name in own}


def effect(dense: dict[str, Array], own: dict[str, Array], dtype: str) -> dict[str, Any]:
    """Return the share of samples whose output is not dense's, and whether any is.

    Raises RuntimeError where dense was not measured on the same samples.
    """
    import torch

    before, now = dense.get(OUTPUTS), own[OUTPUTS]
    if before is None or before.shape != now.shape or any(name in own and name not in dense for name in KEPT):
        raise RuntimeError("the dense cell of this model and task has to be measured first")
    # above what the order of a sum changes in this dtype, below what changes a decision; a text's
    # log-likelihood is a sum over its tokens, of which the errors grow with the square root alone
    tolerance = max(1e-4, 4 * torch.finfo(getattr(torch, dtype)).eps)
    largest = np.abs(before).max(0)
    close = np.abs(now - before) <= tolerance * np.minimum(largest, np.sqrt(largest))
    changed = float((~close.all(1)).mean())
    return {"changed": changed, "effect": "applied" if changed else "no effect"}
