"""Measure what a method does to attention: on real samples, by watching, never by asking the method."""

from __future__ import annotations

import contextlib
import math
from collections import defaultdict
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

from attnbench.engine.places import softmax
from attnbench.measures.codes import Codes
from attnbench.methods.protocol import Method, Site, fitted, needs_fit, overridden

if TYPE_CHECKING:
    from torch import Tensor, nn

    from attnbench.engine.serving.applied import Applied

SAMPLES = 16  # enough: every sample has thousands of attention values a site


class Attention:
    """What `methods` do to a model's attention, added up over the passes between `before` and `after`.

    Of a pass it takes the examples of `rows` alone, where they are given.
    """

    def __init__(self, model: nn.Module, methods: Sequence[Method]) -> None:
        self._model = model
        changed = {stage for method in methods for stage in overridden(method)}
        self._blind, self._early = bool({"queries", "keys"} & changed), {"scores", "normalize"} & changed
        # where there is nothing but probabilities, a silent head has none
        self._by_tap = softmax.needed(model)
        self._dense: dict[tuple[str, int], Tensor] = {}
        self._zeros: dict[str, float] = defaultdict(float)
        self._codes = Codes()
        self._silent: dict[tuple[str, int], Tensor] = {}
        self.rows: Collection[int] | None = None
        self.samples = 0

    def before(self) -> contextlib.AbstractContextManager[Applied]:
        """Look at what the methods are given, in a block around theirs."""
        from attnbench.engine.serving.attention import watch

        if self._blind:
            return watch(self._model)
        if self._early and not self._by_tap:
            return watch(self._model, scores=self._scores)
        return watch(self._model, probs=self._as_it_is)  # nothing came before the softmax

    def after(self) -> contextlib.AbstractContextManager[Applied]:
        """Look at what they make of it, in a block inside theirs."""
        from attnbench.engine.serving.attention import watch

        if self._by_tap:
            return watch(self._model, probs=self._beside)
        return watch(self._model, probs=self._probs, context=self._context)

    def found(self) -> dict[str, Any]:
        """Return what `measure` does."""
        import torch

        heads, zeros, codes = torch.cat(list(self._silent.values())), self._zeros, self._codes
        return {
            "sparsity": zeros["zero"] / zeros["visible"],
            "nominal": 1 - (zeros["visible"] - zeros["zero"]) / zeros["all"],
            "bits": math.log2(codes.most) if codes.few() else None,
            "entropy": sum(codes.entropies) / len(codes.entropies) if codes.few() else None,
            "heads": float(1 - heads.float().mean()),
            "divergence": None if self._blind else zeros["distance"] / zeros["rows"],
            "samples": self.samples,
        }

    def _of(self, tensor: Tensor, site: Site) -> Tensor:
        """Return the examples of a tile (batch, heads, queries, n) that are looked at."""
        if self.rows is None:
            return tensor
        wanted = [k for k, row in enumerate(site.examples or ()) if row in self.rows]
        return tensor if len(wanted) == len(tensor) else tensor[wanted]

    def _scores(self, scores: Tensor, site: Site) -> None:
        mine = self._of(scores, site)
        if len(mine):
            self._dense[site.kind, site.layer] = mine.float().softmax(-1).nan_to_num_()

    def _as_it_is(self, probs: Tensor, site: Site) -> None:
        mine = self._of(probs, site)
        if len(mine):
            self._dense[site.kind, site.layer] = mine.float().clone()

    def _probs(self, probs: Tensor, site: Site) -> None:
        import torch

        key, mine, zeros = (site.kind, site.layer), self._of(probs, site), self._zeros
        if not len(mine):
            return
        visible = site.visible
        if visible is None:
            seen = torch.ones_like(mine, dtype=torch.bool)
        else:
            seen = (self._of(visible, site) if len(visible) > 1 else visible).expand_as(mine)
        zeros["zero"] += float(((mine == 0) & seen).sum())
        zeros["visible"] += float(seen.sum())
        zeros["all"] += seen.numel()
        if not self._blind:
            zeros["distance"] += float((mine.float() - self._dense.pop(key)).abs_().sum()) / 2
        zeros["rows"] += mine[..., 0].numel()
        for example, there in zip(mine, seen, strict=True):
            self._codes.add(key, example[there])

    def _context(self, context: Tensor, site: Site) -> None:
        import torch

        key, mine = (site.kind, site.layer), self._of(context, site)
        if len(mine):
            silent = (mine == 0).all(-1).all(-1).all(0).cpu()
            self._silent[key] = self._silent.get(key, torch.ones_like(silent)) & silent

    def _beside(self, probs: Tensor, site: Site) -> None:
        self._probs(probs, site)
        self._context(probs, site)


def looked_at(methods: Sequence[Method]) -> bool:
    """Tell whether methods do to attention what can be looked at: more than to weights, layers or caches."""
    from attnbench.engine.serving.applied import ATTENTION

    return any(ATTENTION & set(overridden(method)) for method in methods)


def measure(
    model: nn.Module,
    batches: Sequence[dict[str, Tensor]],
    methods: Sequence[Method],
    begun: Attention | None = None,
) -> dict[str, Any]:
    """Return sparsity, bits, heads and divergence of `methods` on a few samples, beside those `begun` with.

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

    from attnbench.engine.serving.attention import apply
    from attnbench.engine.serving.prompts import prompts

    if not looked_at(methods):
        return {}
    seen = begun or Attention(model, methods)
    seen.rows = None
    with torch.no_grad(), seen.before(), apply(model, *methods), seen.after():
        for batch in batches:
            with prompts(model, None):  # of evaluation samples: what is done to a cache is counted there
                model(**batch)
            seen.samples += len(batch["input_ids"])
    return seen.found()


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
