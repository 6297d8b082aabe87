"""How far a method moves attention: Ji et al.'s distance of its values, and distances over keys."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import log
from typing import Any

from attnbench import Study, by_head, hookimpl
from attnbench_plugins.studies._histograms import BINS, Sums, binned, rows_with_keys, wide

SITE = tuple[str, int]


@dataclass
class Divergence(Study):
    """Compare each query's attention with a method and without, and what each head read.

    Dense and changed model run side by side, so that what earlier layers change is in it. Of a query's
    probabilities p with the method and d without, over its visible keys, means over queries:

    Values: `js_values`, the Jensen-Shannon distance of their histograms in 100 log bins, 1e-8 to 1.
    Keys: `tv` = sum |p - d| / 2 and `lost` = sum d - sum p, of what the model used; with p / sum p for p,
    `js_keys`, the distance, and `kl` = sum p ln(p / d). `empty` is the share of queries with sum p = 0,
    `unbounded` that of queries with p > 0 where d = 0: the first have no js_keys, both no kl, and the means
    are over the others. `error` = sqrt(sum (c - c_d)^2 / sum c_d^2) over all numbers of the context, of a
    head, and in `layers` of all heads together. The distance is sqrt(KL(x | m) / 2 + KL(y | m) / 2) with
    m = (x + y) / 2, natural logarithm, from 0 to sqrt(ln 2). Shapes: probs (batch, heads, queries, keys),
    context (batch, heads, queries, head_dim). Source: https://aclanthology.org/2021.findings-acl.363/, its
    code's F15, for js_values. Differs: theirs is of stored attention, quantised, and of the last sample
    alone (the sum begins anew with each), with bins from 1e-10; ours of every sample.
    """

    name, examples = "divergence", ("divergence",)
    shown = ("js_values", "tv", "error")

    def begin(self, model: Any, sites: Any) -> None:
        self.sums = Sums()
        self.batch = 0
        self.kept: dict[tuple[str, SITE], list[tuple[Any, Any]]] = {}

    def probs(self, probs: Any, site: Any) -> None:
        import torch

        if self.dense is None:
            self._keep("probs", probs, site)
            for name, part in zip(("bins", "counts"), binned(probs, site), strict=True):
                self._keep(name, part.to(torch.int16), site)
            return

        given, dense = wide(probs), wide(self.dense._kept("probs", probs, site))
        keys, real = rows_with_keys(probs, site)
        bins, counts = (part.to(torch.int16) for part in binned(probs, site))
        values = _distance_of_counts(
            bins, counts, self.dense._kept("bins", bins, site), self.dense._kept("counts", counts, site), keys
        )
        mass = given.sum(-1)
        held = mass > 0
        whole = given / mass.clamp(min=torch.finfo(mass.dtype).tiny)[..., None]
        bounded = held & ~((whole > 0) & (dense == 0)).any(-1)
        distance, relative = _distances(whole, dense)
        kl = torch.where(bounded, relative, 0)
        whole_number = torch.float64
        self.sums.add(
            site,
            rows=float(real.sum()),
            js_values=(values * real).sum((0, 2), dtype=whole_number),
            tv=(given - dense).abs().sum((0, 2, 3), dtype=whole_number) / 2,
            lost=(dense.sum(-1) - mass).sum((0, 2), dtype=whole_number),
            held=(held & real).sum((0, 2)),
            js_keys=(distance * held).sum((0, 2), dtype=whole_number),
            bounded=bounded.sum((0, 2)),
            kl=kl.sum((0, 2), dtype=whole_number),
            empty=(~held & real).sum((0, 2)),
            unbounded=(held & ~bounded).sum((0, 2)),
        )

    def context(self, context: Any, site: Any) -> None:
        if self.dense is None:
            self._keep("context", context, site)
            return
        import torch

        given, dense = wide(context), wide(self.dense._kept("context", context, site))
        self.sums.add(
            site,
            moved=(given - dense).square().sum((0, 2, 3), dtype=torch.float64),
            size=dense.square().sum((0, 2, 3), dtype=torch.float64),
        )

    def _keep(self, what: str, tensor: Any, site: Any) -> None:
        if site.batch != self.batch:
            self.batch, self.kept = site.batch, {}
        self.kept.setdefault((what, (site.kind, site.layer)), []).append((site, tensor.clone()))

    def _kept(self, what: str, like: Any, site: Any) -> Any:
        """Return what the dense pass had at this tile, whose rows it may have cut otherwise."""
        import torch

        whole = torch.full_like(like, BINS if what == "bins" else 0)
        for other, tensor in self.kept[what, (site.kind, site.layer)]:
            if other.examples == site.examples:
                if other.offset == site.offset and tensor.shape == like.shape:
                    return tensor
                first = max(other.offset, site.offset)
                last = min(other.offset + other.rows, site.offset + site.rows)
                if first < last:
                    width = min(tensor.shape[-1], like.shape[-1])
                    part = tensor[:, :, first - other.offset : last - other.offset, :width]
                    whole[:, :, first - site.offset : last - site.offset, :width] = part
        return whole

    def tables(self) -> Any:
        import numpy as np

        if self.dense is None:
            return {}
        sums = self.sums
        per = {"js_values": "rows", "tv": "rows", "lost": "rows", "js_keys": "held", "kl": "bounded"}
        per |= {"empty": "rows", "unbounded": "rows"}
        columns = {name: sums.column(name, count) for name, count in per.items()}
        if not any("moved" in kept for kept in sums.of.values()):  # a tap shows no context
            return {"heads": by_head(columns)}
        columns["error"] = {place: np.sqrt(values) for place, values in sums.column("moved", "size").items()}
        moved, size = (
            {place: values.sum()[None] for place, values in sums.column(name).items()}
            for name in ("moved", "size")
        )
        error = {place: np.sqrt(moved[place] / size[place]) for place in moved}
        return {"heads": by_head(columns), "layers": by_head({"error": error}).droplevel("head")}


def _distances(p: Any, q: Any) -> tuple[Any, Any]:
    """Return the Jensen-Shannon distance of rows that sum to 1, and KL(p | q) where q > 0 wherever p is."""
    import torch

    p, q = p.double(), q.double()  # a distance is a square root: of equal rows it would be 1e-4 in float32
    tiny = torch.finfo(torch.float32).tiny
    both = p + q
    log_p, log_q, log_both = (x.clamp(min=tiny).log_() for x in (p, q, both))
    js = (p * log_p + q * log_q - both * log_both).sum(-1)
    return (js / 2 + log(2)).clamp(min=0).sqrt(), (p * (log_p - log_q)).sum(-1)


def _distance_of_counts(bins: Any, counts: Any, other_bins: Any, other_counts: Any, keys: Any) -> Any:
    """Return the distance of two histograms of as many `keys`.

    The sum over bins of c ln c is that of ln c over values, c the count in the value's own bin, hidden ones
    left out: fewer than bins, and whole numbers, of which the logarithm is looked up.
    """
    import torch

    most = 2 * int(keys.max())
    table = torch.arange(most + 1, dtype=torch.float64, device=counts.device).clamp(min=1).log()
    total = 0.0
    for where, own in ((bins, counts), (other_bins, other_counts)):
        index, shown = where.long().clamp(max=BINS - 1), where < BINS
        single, joint = own.gather(-1, index), (counts + other_counts).gather(-1, index)
        total = total + ((table[single.long()] - table[joint.long()]) * shown).sum(-1)
    return (total / (2 * keys) + log(2)).clamp(min=0).sqrt()


@hookimpl
def register_studies(register: Callable[[type[Study]], None]) -> None:
    register(Divergence)
