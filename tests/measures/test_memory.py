"""What an evaluation keeps grows with its answers alone: no batch, attention or method leaves anything."""

from __future__ import annotations

import contextlib
import gc
import tracemalloc

import pytest
import torch

from attnbench import apply
from attnbench.backends import lm_eval
from attnbench.inputs import models
from attnbench.inputs.settings import Settings

SAMPLES, BATCH = 120, 8
ANSWER = 400  # bytes a sample at most: a few numbers, and what Python and numpy need to hold them
SLACK = 100_000  # bytes: caches that fill once. The attention of one batch at one layer is more


def _held() -> int:
    """Return the bytes of live tensors, and of what Python and numpy have allocated since tracing began."""
    gc.collect()
    # no stand-ins without memory, which torch.compile keeps
    tensors = [item for item in gc.get_objects() if type(item) in (torch.Tensor, torch.nn.Parameter)]
    storages = {each.untyped_storage().data_ptr(): each.untyped_storage().nbytes() for each in tensors}
    return sum(storages.values()) + tracemalloc.get_traced_memory()[0]


@pytest.mark.parametrize(
    ("model", "task"), [("bert", "pocket-sentiment"), ("bert", "pocket-qa"), ("gpt", "pocket-agreement")]
)
def test_memory_stays_flat_over_batches_and_methods(model, task):
    checkpoint = models.find(model, task)
    prepared = lm_eval.prepare(task, checkpoint, Settings(limit=SAMPLES))
    loaded = checkpoint.load(prepared.head)
    tracemalloc.start()
    try:
        after = [_evaluated(prepared, loaded, spec) for spec in (None, "prune80+logquant3", None)]
    finally:
        tracemalloc.stop()
    # the first evaluation fills lm-eval's caches, the second torch's and ours
    assert after[2] - after[1] < SLACK


def _evaluated(prepared, loaded, spec):
    """Evaluate with a method, look twice on the way, and return what is held when all is done."""
    seen: list[tuple[int, int]] = []

    def progress(done):
        wanted = (SAMPLES // 4, SAMPLES - BATCH)
        if len(seen) < 2 and done >= wanted[len(seen)]:
            seen.append((done, _held()))

    with apply(loaded, spec) if spec else contextlib.nullcontext():
        prepared.evaluate(loaded, batch_size=BATCH, progress=progress)
    (first, before), (last, then) = seen
    assert last - first > SAMPLES // 2
    assert then - before < ANSWER * (last - first) + SLACK, f"{spec}: {then - before:,} bytes"
    return _held()
