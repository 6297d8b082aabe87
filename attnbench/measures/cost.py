"""What a method costs: FLOPs that its zeros could save, and those, time and memory of the model made smaller.

Simulated and realised are kept apart: a zero after the softmax saves nothing by itself. Only what `realize`
really leaves out has a latency and a memory; where a method has no such way, they stay empty.
"""

from __future__ import annotations

import contextlib
import copy
import time
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from attnbench.engine.serving.applied import ATTENTION
from attnbench.engine.serving.attention import apply, watch
from attnbench.engine.serving.prompts import prompts
from attnbench.errors import NotApplicable
from attnbench.measures.cached import cached, prompts_of
from attnbench.measures.peak import peak_memory
from attnbench.measures.turns import NOISY, compared, in_turns
from attnbench.methods.protocol import Method, Site, overridden

Batch = dict[str, Tensor]


class Costs:
    """Measure methods on one model and a few samples; what dense costs is measured once."""

    def __init__(self, model: nn.Module, samples: list[Batch], batch: Batch) -> None:
        self.model, self.samples, self.batch = model, samples, batch
        self.dense = copy.deepcopy(model)  # takes turns with the model while that is realised
        self.flops = flops(self.dense, samples)
        self.memory = peak_memory(self.dense, batch)

    def of(self, methods: Sequence[Method]) -> dict[str, dict[str, Any]]:
        """Return `flops`, `latency` and `memory` of fitted methods.

        flops    dense: multiplications and additions a sample; simulated: the share left if attention's
                 products skipped what is hidden or zero; realised: the share the smaller model does
        latency  ratio: a batch's time as realised over dense SDPA's, median of interleaved rounds, low and
                 high its 95 % interval, no ratio where that is wider than NOISY; seconds: dense SDPA's
                 median; why: what hindered, of a method that can be realised elsewhere
        memory   ratio: as realised over dense, of dense: the most bytes one attention module holds
        Of methods for caches `latency` and `memory` are those of `measures.cached`, beside `first` and
        `held`. Where methods for caches are not realised, or noise swamps a ratio, `why` says so instead.
        """
        count = sum(len(batch["input_ids"]) for batch in self.samples)
        found: dict[str, dict[str, Any]] = {
            "flops": {"dense": self.flops / count, "simulated": None, "realised": None},
            "latency": {},
            "memory": {"dense": self.memory},
        }
        if not methods:
            return found
        if any(ATTENTION & set(overridden(method)) for method in methods):
            found["flops"]["simulated"] = 1 - skipped(self.model, methods, self.samples) / self.flops
        if any("cache" in overridden(method) for method in methods):
            return found | self._cached(methods)
        from attnbench.engine.realised.removal import realize
        from attnbench.engine.realised.skipping import hides_alone, require_skipped

        try:
            with realize(self.model, *methods):
                require_skipped(self.model, self.batch)
                found["flops"]["realised"] = flops(self.model, self.samples) / self.flops
                found["memory"]["ratio"] = peak_memory(self.model, self.batch) / self.memory
                found["latency"] = latency(self.model, self.dense, self.batch)
        except NotApplicable as reason:
            if all(map(hides_alone, methods)):
                found["latency"]["why"] = str(reason)
        return found

    def _cached(self, methods: Sequence[Method]) -> dict[str, Any]:
        """Return what methods for caches cost where they are realised, else why they are not."""
        config: Any = self.model.config
        positions = getattr(config.get_text_config(), "max_position_embeddings", None)
        prompts = prompts_of((one for batch in self.samples for one in alone(batch)), positions)
        try:
            return cached(self.model, self.dense, methods, prompts)
        except NotApplicable as reason:
            return {"latency": {"why": str(reason)}}


def flops(model: nn.Module, batches: Sequence[Batch]) -> int:
    """Count the floating-point operations of samples, each alone, without padding, by torch's counter."""
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    # torch's counter does not know the CPU's fused attention, but the products it is made of
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), _frozen(model), sdpa_kernel(SDPBackend.MATH), counter:
        for sample in (sample for batch in batches for sample in alone(batch)):
            model(**sample)
    return int(counter.get_total_flops())


@contextlib.contextmanager
def _frozen(model: nn.Module) -> Iterator[None]:
    # the counter hooks into gradients, which an output that is a parameter itself does not have: a layer's
    # bias, where all of its heads are gone
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    try:
        for parameter in trainable:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in trainable:
            parameter.requires_grad_(True)


def alone(batch: Batch) -> Iterator[Batch]:
    """Yield each sample of a batch without its padding."""
    for row in range(len(batch["input_ids"])):
        sample = {}
        for key, value in batch.items():
            mask = batch.get("decoder_attention_mask" if key.startswith("decoder_") else "attention_mask")
            line = value[row : row + 1]
            padded = mask is not None and mask.shape == value.shape
            sample[key] = line[:, mask[row].bool()] if mask is not None and padded else line
        yield sample


def skipped(model: nn.Module, methods: Sequence[Method], batches: Sequence[Batch]) -> int:
    """Count the operations of attention's two products that a perfect kernel would skip.

    A probability of 0 saves its product with a value, a hidden score the product with the key too, and a
    head whose context is 0 both products of all its queries and keys.
    """
    hidden: dict[tuple[str, int], Tensor] = {}
    tile: dict[str, Tensor] = {}
    total = 0

    def scores(scores: Tensor, site: Site) -> None:
        hidden[site.kind, site.layer] = scores == -torch.inf

    def probs(probs: Tensor, site: Site) -> None:
        seen = torch.ones_like(probs, dtype=torch.bool)
        if site.visible is not None:
            seen &= site.visible
        zero = (probs == 0) & seen
        both = zero & hidden.pop((site.kind, site.layer))
        tile.update({name: x.sum((-2, -1)) for name, x in (("seen", seen), ("zero", zero), ("both", both))})

    def context(context: Tensor, site: Site) -> None:
        nonlocal total
        silent = (context == 0).flatten(2).all(-1)  # (batch, heads)
        products = torch.where(silent, 2 * tile["seen"], tile["zero"] + tile["both"])
        total += 2 * site.head_dim * int(products.sum())

    looking = watch(model, scores=scores, probs=probs, context=context)
    with torch.no_grad(), apply(model, *methods), looking, prompts(model, None):
        for batch in batches:
            model(**batch)
    return total


def latency(model: nn.Module, dense: nn.Module, batch: Batch) -> dict[str, Any]:
    """Time two models in turns: median and 95 % interval of the ratios of their seconds in a round."""
    own, theirs = in_turns(lambda: seconds(model, batch), lambda: seconds(dense, batch))
    samples, tokens = batch["input_ids"].shape
    return compared(own, theirs, noisy=NOISY) | {"samples": samples, "tokens": tokens}


def seconds(model: nn.Module, batch: Batch) -> float:
    """Time one pass."""
    on_gpu = batch["input_ids"].is_cuda
    if on_gpu:
        torch.cuda.synchronize()
    started = time.perf_counter()
    with torch.no_grad():
        model(**batch)
    if on_gpu:
        torch.cuda.synchronize()
    return time.perf_counter() - started
