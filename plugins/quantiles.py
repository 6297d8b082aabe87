"""Quantisers whose bins follow the data: as many values in each, or half as many in each next one.

All follow Ji et al. 2021, https://aclanthology.org/2021.findings-acl.363/. Their statistics are of a
layer's whole batch with its padding; here they are of one example's visible probabilities, all heads and
queries together, so that a result never depends on the batch. They need every query at once: not for causal
attention. Where the authors' code sets an exact 1.0 to 0, it gets the top level here.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, ClassVar

from attnbench import Method, hookimpl, kernels

if TYPE_CHECKING:
    from torch import Tensor

    from attnbench import Site

PRUNED = 1e-3  # probabilities under it count for nothing
CHAIN = 64  # up to so many levels one pass a level costs less than a search

Bins = tuple[list[float], list[float]]  # lower edges, levels


@dataclass
class Quantile(Method):
    """Quantise attention to bins of equal count, at the middle of each bin, with zeros under 0.001.

    Of an example's n probabilities from m = 0.001 up, sorted to s, bin i = 1 .. R = 2^b - 1 begins at
    t_{i-1}, with t_0 = m and t_i = s[i floor(n / R)]; y = (t_{i-1} + t_i) / 2, from t_R up that of bin R; 0
    where x < m. Shapes: probs (batch, heads, queries, keys). Source: function 8 of Ji et al. 2021, Findings
    of ACL, https://aclanthology.org/2021.findings-acl.363/. Differs: n is of one example. Where R divides n
    their code lacks the last bin, here t_R = max s; where the rest of n / R is so large that it makes more
    than R bins, t_i = s[floor(i n / R)]; with 1 bit or no value above m it fails, here all of s gets the one
    level or there is none.
    """

    name = "quantile"
    examples: ClassVar[tuple[str, ...]] = ("quantile3", "quantile1", "quantile8")
    rows = "all"

    bits: int

    def __post_init__(self) -> None:
        if not 1 <= self.bits <= 16:
            raise ValueError("a quantiser has 1 to 16 bits")

    def values(self, probs: Tensor, visible: Tensor | None) -> Tensor:
        """Return what the bins are made of, of one example (heads, queries, keys), sorted."""
        import torch

        ordered = _sorted(probs)
        return ordered[int(torch.searchsorted(ordered, ordered.new_tensor(PRUNED))) :]

    def bins(self, values: Tensor) -> Bins:
        """Divide sorted values (n) into bins, n at least 1."""
        count, bins = len(values), 2**self.bits - 1
        stride = max(count // bins, 1)
        even = count <= (bins + 1) * stride
        places = {min(i * stride if even else i * count // bins, count - 1) for i in range(1, bins + 1)}
        edges = [PRUNED, *values[sorted(places)].tolist()]
        return edges[:-1], [(low + high) / 2 for low, high in pairwise(edges)]

    def probs(self, probs: Tensor, site: Site) -> Tensor:
        import torch

        done = []
        for example, part in enumerate(probs):
            visible = None
            if site.visible is not None:
                visible = site.visible[example % len(site.visible)].expand(part.shape)
            values = self.values(part.detach(), visible)
            done.append(_quantised(part, *(self.bins(values) if len(values) else ([PRUNED], [0.0]))))
        return torch.stack(done) if probs.requires_grad else probs


@dataclass
class QuantileHalving(Quantile):
    """Quantise attention to bins of halving count, at the mean of each bin, with zeros under 0.001.

    Of an example's n probabilities from m = 0.001 up, sorted to s, bin i = 1 .. 2^b - 1 takes the next
    floor(n / 2^i), so that the lower half shares one level; y = mean of the bin, above the last bin that of
    the last; 0 where x < m. Shapes: probs (batch, heads, queries, keys). Source: function 9 of Ji et al.
    2021, Findings of ACL, https://aclanthology.org/2021.findings-acl.363/. Differs: n is of one example.
    From 6 bits on their 2^i overflows, here n / 2^i is exact: bins beyond log2 n are empty and add nothing.
    A single value is its own bin; without any their code fails.
    """

    name = "quantile:halving"
    examples = ("quantile3:halving",)

    lowest = PRUNED

    def bins(self, values: Tensor) -> Bins:
        ends = [0]
        for i in range(1, self._count() + 1):
            ends.append(ends[-1] + (len(values) >> i))
            if ends[-1] == ends[-2]:  # so are all that follow: an empty bin has the level of the one before
                break
        filled = [(low, high) for low, high in pairwise(ends) if high > low]
        filled = filled or [(0, 1)]
        levels = [values[low:high].double().mean().item() for low, high in filled]
        return [self.lowest, *(values[low].item() for low, _ in filled[1:])], levels

    def _count(self) -> int:
        return 2**self.bits - 1


@dataclass
class QuantileHalvingUnpruned(QuantileHalving):
    """Quantise attention to bins of halving count, at the mean of each bin, small values included.

    As `quantile:halving` with all n visible probabilities of an example and bins i = 1 .. 2^b; nothing is
    zeroed, an exact 0 gets the first bin's mean. Shapes: probs (batch, heads, queries, keys). Source:
    function 10 of Ji et al. 2021, Findings of ACL, https://aclanthology.org/2021.findings-acl.363/. Differs:
    as `quantile:halving`, and padding is no value: in their code it counts and may get attention.
    """

    name = "quantile:halving:unpruned"
    examples = ("quantile3:halving:unpruned",)

    lowest = 0.0

    def values(self, probs: Tensor, visible: Tensor | None) -> Tensor:
        return _sorted(probs if visible is None else probs[visible])

    def _count(self) -> int:
        return 2**self.bits


@dataclass
class Binary(Method):
    """Give every attention probability from 0.001 up the same weight, zero the rest.

    y = 1 / c where x >= 0.001, 0 elsewhere, with c the number of such values of the example, all heads and
    queries together: the weights of all queries add up to 1, not those of each. Shapes: probs (batch, heads,
    queries, keys). Source: function 11 of Ji et al. 2021, Findings of ACL,
    https://aclanthology.org/2021.findings-acl.363/. Differs: c is of one example, in their code of the whole
    batch; without any value from 0.001 up their code fails, here all are 0.
    """

    name = "binary"
    examples = ("binary",)
    rows = "all"

    def probs(self, probs: Tensor, site: Site) -> Tensor:
        import torch

        given = probs.detach()
        kept = torch.ge(given, PRUNED, out=torch.empty_like(given))
        level = 1 / kept.sum((1, 2, 3), keepdim=True, dtype=torch.float32).clamp_(min=1)
        return kept.mul_(level) if not probs.requires_grad else probs + (kept.mul_(level) - probs).detach()


def _quantised(probs: Tensor, edges: list[float], levels: list[float]) -> Tensor:
    if len(levels) <= CHAIN:
        return kernels.quantise(probs, edges, levels)
    import torch

    table = torch.tensor([0.0, *levels], device=probs.device)
    bounds = torch.tensor(edges, device=probs.device)
    place = torch.bucketize(probs.detach().float(), bounds, out_int32=True, right=True)
    found = table.index_select(0, place.flatten()).view_as(probs).to(probs.dtype)
    return probs + (found - probs).detach() if probs.requires_grad else probs.copy_(found)


def _sorted(values: Tensor) -> Tensor:
    import torch

    flat = values.detach().float().flatten()
    if flat.device.type != "cpu":
        return flat.sort().values
    import numpy as np

    return torch.from_numpy(np.sort(flat.numpy()))  # vectorised: 20 times as fast as torch's


@hookimpl
def register_methods(register):
    register(Quantile)
    register(QuantileHalving)
    register(QuantileHalvingUnpruned)
    register(Binary)
