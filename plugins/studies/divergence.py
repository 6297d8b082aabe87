"""How far a method moves attention: Ji et al.'s distance of its values, and distances over keys."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import log
from typing import Any

from attnbench import Study, by_head, hookimpl
from attnbench_plugins.studies._histograms import Sums, counted, rows_with_keys, wide

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
            self._keep("counts", counted(probs, site).to(torch.int16), site)
            return

        given, dense = wide(probs), wide(self.dense._kept("probs", probs, site))
        keys, real = rows_with_keys(probs, site)
        counts = counted(probs, site).to(torch.int16)
        values = _distance_of_counts(counts, self.dense._kept("counts", counts, site), keys)
        mass = given.sum(-1)
        held = mass > 0
        whole = given / mass.clamp(min=torch.finfo(mass.dtype).tiny)[..., None]
        distance = _distance(whole, dense)
        bounded = held & ~((whole > 0) & (dense == 0)).any(-1)
        kl = torch.where(bounded, _relative(whole, dense), 0)
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

        whole = torch.zeros_like(like)
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


def _x_log_x(x: Any) -> Any:
    import torch

    return torch.special.xlogy(x, x)


def _distance(p: Any, q: Any) -> Any:
    """Return the Jensen-Shannon distance of rows that each sum to 1."""
    parts = (_x_log_x(p) + _x_log_x(q) - _x_log_x(p + q)).sum(-1)
    return (parts / 2 + log(2)).clamp(min=0).sqrt()


def _distance_of_counts(a: Any, b: Any, count: Any) -> Any:
    """Return the same of rows of whole numbers that each sum to `count`: x ln x is looked up."""
    import torch

    table = _x_log_x(torch.arange(2 * int(count.max()) + 1, dtype=torch.float64, device=a.device))
    first, second = a.long(), b.long()
    parts = (table[first] + table[second] - table[first + second]).sum(-1)
    return (parts / (2 * count) + log(2)).clamp(min=0).sqrt()


def _relative(p: Any, q: Any) -> Any:
    """Return KL(p | q) of rows, where q > 0 wherever p is."""
    import torch

    return torch.special.xlogy(p, p / q.clamp(min=torch.finfo(q.dtype).tiny)).sum(-1)


@hookimpl
def register_studies(register: Callable[[type[Study]], None]) -> None:
    register(Divergence)
