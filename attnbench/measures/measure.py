"""Measure what a method does to attention: on real samples, by watching, never by asking the method."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from attnbench.engine.places import softmax
from attnbench.methods.protocol import Method, Site, fitted, needs_fit, overridden

if TYPE_CHECKING:
    from torch import Tensor, nn

SAMPLES = 16  # enough: every sample has thousands of attention values a site
LEVELS = 256  # more distinct values than this are no quantisation, nor are those of which most occur once


@dataclass
class Codes:
    """The distinct values of attention, example by example, while there are few enough to be a code."""

    most: int = 0
    entropies: list[float] = field(default_factory=list)
    found: dict[tuple[str, int], list[tuple[Tensor, Tensor]]] = field(
        default_factory=lambda: defaultdict(list)
    )

    def add(self, key: tuple[str, int], values: Tensor) -> None:
        """Count the values of one example at one site."""
        if self.most > LEVELS or not values.numel():
            return
        distinct, counts = values.unique(return_counts=True)
        self.most = max(self.most, len(counts))
        shares = counts.double() / counts.sum()
        self.entropies.append(-float((shares * shares.log2()).sum()))
        self.found[key].append((distinct, counts))

    def few(self) -> bool:
        """Tell whether the values are levels: few, and of those that are not 0 at least half occur again."""
        import torch

        once = others = 0
        for pairs in self.found.values():
            values, counts = (torch.cat(parts) for parts in zip(*pairs, strict=True))
            distinct, place = values.unique(return_inverse=True)
            total = torch.zeros_like(distinct, dtype=counts.dtype).index_add_(0, place, counts)
            once += int((total[distinct != 0] == 1).sum())
            others += int((distinct != 0).sum())
        return 0 < self.most <= LEVELS and 2 * once <= others


def measure(model: nn.Module, batches: list[dict[str, Tensor]], methods: Sequence[Method]) -> dict[str, Any]:
    """Return sparsity, bits, heads and divergence of `methods` on a few samples.

    sparsity    share of visible probabilities that are exactly 0
    nominal     the same, what causality hides counted as zero too
    bits        log2 of the most distinct probabilities in one example at one site (of a long one, in one
                tile), null above 256 of them and where most occur only once in all samples at a site
    entropy     bits that such a code needs on average: -sum_v f_v log2 f_v over the values v of an example at
                a site, mean over both
    heads       share of heads whose context is not all zero
    divergence  mean total variation 1/2 sum_k |p - p_dense| between a query's attention with and without the
                methods, for the same input to the site; null where one changes queries or keys, before which
                nobody looks
    """
    import torch

    from attnbench.engine.serving.attention import apply, watch
    from attnbench.engine.serving.dispatch import ATTENTION
    from attnbench.engine.serving.prompts import prompts

    if not any(ATTENTION & set(overridden(method)) for method in methods):
        return {}
    dense: dict[tuple[str, int], Tensor] = {}
    zeros: dict[str, float] = defaultdict(float)
    codes = Codes()
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
        for example, visible in zip(probs, seen, strict=True):
            codes.add(key, example[visible])

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

    blind = any({"queries", "keys"} & set(overridden(method)) for method in methods)
    by_tap = softmax.needed(model)  # where there is nothing but probabilities, a silent head has none
    with (
        torch.no_grad(),
        watch(model, probs=as_it_is) if by_tap else watch(model, scores=before),
        apply(model, *methods),
        watch(model, probs=beside) if by_tap else watch(model, probs=after, context=outputs),
    ):
        for batch in batches:
            with prompts(model, None):  # of evaluation samples: what is done to a cache is counted there
                model(**batch)
    heads = torch.cat(list(silent.values()))
    return {
        "sparsity": zeros["zero"] / zeros["visible"],
        "nominal": 1 - (zeros["visible"] - zeros["zero"]) / zeros["all"],
        "bits": math.log2(codes.most) if codes.few() else None,
        "entropy": sum(codes.entropies) / len(codes.entropies) if codes.few() else None,
        "heads": float(1 - heads.float().mean()),
        "divergence": None if blind else zeros["distance"] / zeros["rows"],
        "samples": sum(len(batch["input_ids"]) for batch in batches),
    }


def learned(methods: Sequence[Method]) -> dict[str, Any]:
    """Return what each method that learns has learned, by its spec; one that stands twice gets a number.

    As in mask50+mask50: the second is mask50:2.
    """
    from attnbench.methods import spec

    found: dict[str, Any] = {}
    names: list[str] = []
    for method in filter(needs_fit, methods):
        names.append(spec.format([method]))
        times = names.count(names[-1])
        found[names[-1] + (f":{times}" if times > 1 else "")] = summary(fitted(method))
    return found


def summary(value: Any, most: int = 4096, name: str = "") -> Any:
    """Return what `fit` learned as JSON: small tensors of numbers whole, others as shape and density.

    Others are large ones, and those of booleans; density is the share of non-zeros. Arrays are as tensors.
    Raises ValueError or TypeError naming the attribute that JSON cannot hold: what is not finite, what is no
    number, text, list or dict.
    """
    import numpy as np
    import torch

    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, np.ndarray):
        value = torch.as_tensor(value)
    if isinstance(value, dict):
        named = {" ".join(map(str, key)) if isinstance(key, tuple) else str(key): key for key in value}
        return {
            key: summary(value[own], most, f"{name}.{key}" if name else key) for key, own in named.items()
        }
    if isinstance(value, (list, tuple)):
        return [summary(item, most, name) for item in value]
    if isinstance(value, torch.Tensor):
        if value.numel() <= most and value.dtype != torch.bool:
            return summary(value.tolist(), most, name)
        return {"shape": list(value.shape), "density": float((value != 0).double().mean())}
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{name} is {value}: a record holds finite numbers only")
        return round(value, 9)
    if isinstance(value, str):
        value.encode()  # half a character cannot be written
    if value is not None and not isinstance(value, (bool, int, str)):
        raise TypeError(f"{name} is a {type(value).__name__}: a record holds numbers, texts, lists and dicts")
    return value
