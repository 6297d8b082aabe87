"""Measure what a method does to attention: on real samples, by watching, never by asking the method."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from attnbench.method import Method, Site, overridden

if TYPE_CHECKING:
    from torch import Tensor, nn

SAMPLES = 16  # enough: every sample has thousands of attention values a site
LEVELS = 256  # more distinct values than this are no quantisation
SHARED = 2  # nor are values that no other has: so many have the same on average
BEYOND_ATTENTION = {"hidden"}


def measure(model: nn.Module, batches: list[dict[str, Tensor]], methods: Sequence[Method]) -> dict[str, Any]:
    """Return sparsity, bits, heads and divergence of `methods` on a few samples.

    sparsity    share of visible probabilities that are exactly 0
    nominal     the same, what causality hides counted as zero too
    bits        log2 of the most distinct probabilities in one example at one site, null above 256 of them and
                where hardly two are alike
    entropy     bits that such a code needs on average: -sum_v f_v log2 f_v over its values, mean over sites
    heads       share of heads whose context is not all zero
    divergence  mean total variation 1/2 sum_k |p - p_dense| between a query's attention with and without the
                methods, for the same input to the site
    """
    import torch

    from attnbench import tap
    from attnbench.attention import apply, watch

    if not any(set(overridden(method)) - BEYOND_ATTENTION for method in methods):
        return {}
    dense: dict[tuple[str, int], Tensor] = {}
    zeros: dict[str, float] = defaultdict(float)
    levels: dict[tuple[str, int], int] = {}
    entropies: list[float] = []
    silent: dict[tuple[str, int], Tensor] = {}

    def before(scores: Tensor, site: Site) -> None:
        dense[site.kind, site.layer] = scores.float().softmax(-1).nan_to_num()

    def after(probs: Tensor, site: Site) -> None:
        key = (site.kind, site.layer)
        seen = (
            site.visible.expand_as(probs)
            if site.visible is not None
            else torch.ones_like(probs, dtype=torch.bool)
        )
        zeros["zero"] += float(((probs == 0) & seen).sum())
        zeros["visible"] += float(seen.sum())
        zeros["all"] += seen.numel()
        zeros["distance"] += float((probs.float() - dense.pop(key)).abs().sum()) / 2
        zeros["rows"] += probs[..., 0].numel()
        values, repeats = probs[seen].unique(return_counts=True)
        counts = repeats.double()
        zeros["others"] += float(counts[values != 0].sum())
        zeros["distinct"] += float((values != 0).sum())
        levels[key] = max(levels.get(key, 0), len(counts))
        shares = counts / counts.sum()
        entropies.append(-float((shares * shares.log2()).sum()))

    def outputs(context: Tensor, site: Site) -> None:
        key = (site.kind, site.layer)
        silent[key] = (
            silent.get(key, torch.ones(context.shape[1], dtype=torch.bool))
            & (context == 0).all(-1).all(-1).all(0).cpu()
        )

    def beside(probs: Tensor, site: Site) -> None:
        after(probs, site)
        outputs(probs, site)

    def as_it_is(probs: Tensor, site: Site) -> None:
        dense[site.kind, site.layer] = probs.float().clone()

    by_tap = tap.needed(model)  # where there is nothing but probabilities, a silent head has none
    with (
        torch.no_grad(),
        watch(model, probs=as_it_is) if by_tap else watch(model, scores=before),
        apply(model, *methods),
        watch(model, probs=beside) if by_tap else watch(model, probs=after, context=outputs),
    ):
        for batch in batches:
            model(**batch)
    most = max(levels.values(), default=0)
    heads = torch.cat(list(silent.values()))
    coded = 0 < most <= LEVELS and zeros["others"] >= SHARED * zeros["distinct"]
    return {
        "sparsity": zeros["zero"] / zeros["visible"],
        "nominal": 1 - (zeros["visible"] - zeros["zero"]) / zeros["all"],
        "bits": math.log2(most) if coded else None,
        "entropy": sum(entropies) / len(entropies) if coded else None,
        "heads": float(1 - heads.float().mean()),
        "divergence": zeros["distance"] / zeros["rows"],
        "samples": sum(len(batch["input_ids"]) for batch in batches),
    }


def summary(value: Any, most: int = 4096) -> Any:
    """Return what `fit` learned as JSON: small tensors whole, large ones as shape and share of non-zeros."""
    if isinstance(value, dict):
        return {
            " ".join(map(str, key)) if isinstance(key, tuple) else str(key): summary(item)
            for key, item in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [summary(item) for item in value]
    if hasattr(value, "numel"):
        if value.numel() <= most and value.dtype.is_floating_point:
            return [summary(item) for item in value.tolist()] if value.dim() else value.item()
        return {"shape": list(value.shape), "density": float((value != 0).double().mean())}
    return round(value, 9) if isinstance(value, float) else value
