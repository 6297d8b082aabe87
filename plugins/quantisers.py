"""Quantisers: attention probabilities in few bits, on a logarithmic or a linear scale.

All follow Ji et al. 2021, https://aclanthology.org/2021.findings-acl.363/, without training and without
renormalising. Where the authors' code returns more than 1 for an exact 1.0, the top level is the limit
here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from attnbench import Method, hookimpl, kernels

if TYPE_CHECKING:
    from torch import Tensor

    from attnbench import Site

PRUNED = 1e-3  # probabilities under it count for nothing
TINY = 1e-10  # where the unpruned scale begins


@dataclass
class Quantiser(Method):
    """What the quantisers share: their number of bits."""

    bits: int

    def __post_init__(self) -> None:
        if not 1 <= self.bits <= 16:
            raise ValueError("a quantiser has 1 to 16 bits")


@dataclass
class LogQuant(Quantiser):
    """Quantise attention on a log scale, at the middle of each bin, with zeros under 0.001.

    D = log2(1000) / (2^b - 1); y = 2^(D floor((log2 x - log2 m) / D) + D / 2 + log2 m) with m = 0.001; 0
    where x < m. Shapes: probs (batch, heads, queries, keys). Source: function 7 of Ji et al. 2021, the one
    they use, Findings of ACL, https://aclanthology.org/2021.findings-acl.363/. An exact 1.0 gets the top
    level 2^(-D/2), as in their last version.
    """

    name = "logquant"
    examples = ("logquant3", "logquant2", "logquant8")

    def probs(self, probs: Tensor, site: Site) -> Tensor:
        levels = 2**self.bits - 1
        low = math.log2(PRUNED)
        step = -low / levels
        return kernels.quantise_log(probs, PRUNED, low + step / 2, step, levels)


@dataclass
class LogQuantEdge(Quantiser):
    """Quantise attention on a log scale, to the nearest edge of a bin.

    s = log2(0.001) / (2^b - 1); y = 2^(s floor(log2 x / s + 1/2)); 0 where x < 0.001^(1 - 1 / (2^b - 1)),
    the lowest level. Shapes: probs (batch, heads, queries, keys). Source: function 5 of Ji et al. 2021,
    Findings of ACL, https://aclanthology.org/2021.findings-acl.363/. Their code calls it unpruned, yet
    zeroes what is under 0.0027 at 3 bits; with 1 bit only an exact 1.0 survives. Kept so.
    """

    name = "logquant:edge"
    examples = ("logquant3:edge",)

    def probs(self, probs: Tensor, site: Site) -> Tensor:
        levels = 2**self.bits - 1
        step = -math.log2(PRUNED) / levels
        first = -step * (levels - 1)
        return kernels.quantise_log(probs, 2.0**first, first, step, levels)


@dataclass
class LogQuantUnpruned(Quantiser):
    """Quantise attention on a log scale that begins at 1e-10, at the middle of each bin.

    D = log2(1e10) / 2^b; y = 2^(D i + D / 2 + log2 1e-10) with i = floor((log2 x - log2 1e-10) / D); 0
    where i < 1. Shapes: probs (batch, heads, queries, keys). Source: function 6 of Ji et al. 2021, Findings
    of ACL, https://aclanthology.org/2021.findings-acl.363/. Differs: an exact 1.0 gets the top level
    2^(-D/2); theirs gives 2^(D/2), 4.2 at 3 bits.
    """

    name = "logquant:unpruned"
    examples = ("logquant3:unpruned",)

    def probs(self, probs: Tensor, site: Site) -> Tensor:
        low = math.log2(TINY)
        step = -low / 2**self.bits
        return kernels.quantise_log(probs, 2.0 ** (low + step), low + 1.5 * step, step, 2**self.bits - 1)


@dataclass
class LinQuant(Quantiser):
    """Quantise attention on a linear scale, to the nearest edge of a bin.

    D = 1 / (2^b - 1); y = D floor(x / D + 1/2). Shapes: probs (batch, heads, queries, keys).
    Source: function 1 of Ji et al. 2021, Findings of ACL, https://aclanthology.org/2021.findings-acl.363/.
    """

    name = "linquant"
    examples = ("linquant3", "linquant8")

    def probs(self, probs: Tensor, site: Site) -> Tensor:
        return kernels.quantise_linear(probs, 1 / (2**self.bits - 1), 0.5, 0.0, 1.0)


@dataclass
class LinQuantMid(Quantiser):
    """Quantise attention on a linear scale, at the middle of each bin.

    D = 2^-b; y = D floor(x / D) + D / 2; 0 where x < D. Shapes: probs (batch, heads, queries, keys).
    Source: function 2 of Ji et al. 2021, Findings of ACL, https://aclanthology.org/2021.findings-acl.363/.
    Differs: an exact 1.0 gets the top level 1 - D / 2; theirs gives 1 + D / 2.
    """

    name = "linquant:mid"
    examples = ("linquant3:mid",)

    def probs(self, probs: Tensor, site: Site) -> Tensor:
        step = 2.0**-self.bits
        return kernels.quantise_linear(probs, step, 0.0, step / 2, 1 - step / 2)


@dataclass
class LinQuantPruned(Quantiser):
    """Quantise attention on a linear scale from 0.001 to 1, to the nearest edge of a bin.

    D = (1 - m) / (2^b - 1); y = D floor((x - m) / D + 1/2) + m with m = 0.001; 0 where x < m + D / 2.
    Shapes: probs (batch, heads, queries, keys).
    Source: function 3 of Ji et al. 2021, Findings of ACL, https://aclanthology.org/2021.findings-acl.363/.
    """

    name = "linquant:pruned"
    examples = ("linquant3:pruned",)

    def probs(self, probs: Tensor, site: Site) -> Tensor:
        step = (1 - PRUNED) / (2**self.bits - 1)
        return kernels.quantise_linear(probs, step, 0.5 - PRUNED / step, PRUNED, 1.0)


@dataclass
class LinQuantMidPruned(Quantiser):
    """Quantise attention on a linear scale from 0.001 to 1, at the middle of each bin.

    D = (1 - m) / 2^b; y = D floor((x - m) / D) + D / 2 + m with m = 0.001; 0 where x < m + D.
    Shapes: probs (batch, heads, queries, keys).
    Source: function 4 of Ji et al. 2021, Findings of ACL, https://aclanthology.org/2021.findings-acl.363/.
    Differs: an exact 1.0 gets the top level 1 - D / 2; theirs gives 1 + D / 2.
    """

    name = "linquant:mid:pruned"
    examples = ("linquant3:mid:pruned",)

    def probs(self, probs: Tensor, site: Site) -> Tensor:
        step = (1 - PRUNED) / 2**self.bits
        return kernels.quantise_linear(probs, step, -PRUNED / step, PRUNED + step / 2, 1 - step / 2)


@hookimpl
def register_methods(register):
    for method in (
        LogQuant,
        LogQuantEdge,
        LogQuantUnpruned,
        LinQuant,
        LinQuantMid,
        LinQuantPruned,
        LinQuantMidPruned,
    ):
        register(method)
