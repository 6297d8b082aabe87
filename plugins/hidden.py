"""Hidden states in few values: what enters every layer is thresholded or quantised.

All follow Ji et al. 2021, https://aclanthology.org/2021.findings-acl.363/: element by element, without
training. The gradient of the quantisers is the identity's (straight-through).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from attnbench import Method, hookimpl

if TYPE_CHECKING:
    from torch import Tensor

    from attnbench import Site

INTEGER_BITS = 5  # of the fixed-point format, which saturates where the integer part would pass 2^5
LOWEST, HIGHEST = -15.0, 25.0  # the linear scale
SMALL, LARGE = -5, 4  # exponents of the logarithmic scale


@dataclass
class HiddenThreshold(Method):
    """Zero every hidden value of small magnitude at the input of each layer.

    y = x where |x| > tau, else 0. Shapes: hidden (batch, tokens, hidden). Source: Ji et al. 2021, Findings
    of ACL, https://aclanthology.org/2021.findings-acl.363/. Differs: their code does it to each layer's
    output, so that the embeddings stay whole and the last layer's output does not; here it is the input, as
    for `hidden-quant`.
    """

    name = "hidden-threshold"
    examples = ("hidden-threshold0.1",)
    zero = 0.0

    tau: float

    def __post_init__(self) -> None:
        if not 0 <= self.tau < float("inf"):
            raise ValueError("the threshold is at least 0")

    def hidden(self, hidden: Tensor, site: Site) -> Tensor:
        import torch

        size = hidden.detach().abs()
        kept = torch.gt(size, self.tau, out=size)
        return hidden * kept if hidden.requires_grad else hidden.mul_(kept)


@dataclass
class HiddenQuant(Method):
    """Quantise what enters each layer to fixed point: a sign, 5 integer bits, b - 6 of fraction.

    f = 2^(6 - b); y = sign(x) min(f floor(|x| / f + 1/2), 33). Shapes: hidden (batch, tokens, hidden). At
    least 7 bits. Source: Ji et al. 2021, the hidden-state quantiser they use, Findings of ACL,
    https://aclanthology.org/2021.findings-acl.363/. Differs: their code cuts the integer part at 32 and
    keeps the fraction, so that from 33 up the result falls back to 32 at each integer; here it stays at 33,
    the most that theirs returns.
    """

    name = "hidden-quant"
    examples = ("hidden-quant8",)

    bits: int

    def __post_init__(self) -> None:
        if not INTEGER_BITS + 2 <= self.bits <= 16:
            raise ValueError(f"fixed point has {INTEGER_BITS + 2} to 16 bits")

    def rounded(self, values: Tensor) -> Tensor:
        """Round float32 values; they may be edited in place."""
        import torch

        scale, most = 2.0 ** (self.bits - INTEGER_BITS - 1), 2.0**INTEGER_BITS + 1
        half = torch.full_like(values, 0.5).copysign_(values)
        return values.mul_(scale).add_(half).trunc_().div_(scale).clamp_(-most, most)

    def hidden(self, hidden: Tensor, site: Site) -> Tensor:
        if hidden.requires_grad:
            rounded = self.rounded(hidden.detach().float().clone()).to(hidden.dtype)
            return hidden + (rounded - hidden).detach()
        return self.rounded(hidden.float()).to(hidden.dtype)


@dataclass
class HiddenQuantLinear(HiddenQuant):
    """Quantise what enters each layer on a linear scale of 2^b steps from -15 to 25.

    D = 40 / 2^b; y = D floor((x + 15) / D + 1/2) - 15. Shapes: hidden (batch, tokens, hidden). Source: Ji
    et al. 2021, a hidden-state quantiser of their code, Findings of ACL,
    https://aclanthology.org/2021.findings-acl.363/. As there, values beyond -15 and 25 are not clamped but
    go on in steps of D: more than 2^b levels where a model has them.
    """

    name = "hidden-quant:linear"
    examples = ("hidden-quant8:linear",)

    def __post_init__(self) -> None:
        if not 1 <= self.bits <= 16:
            raise ValueError("a quantiser has 1 to 16 bits")

    def rounded(self, values: Tensor) -> Tensor:
        step = (HIGHEST - LOWEST) / 2**self.bits
        return values.sub_(LOWEST).div_(step).add_(0.5).floor_().mul_(step).add_(LOWEST)


@dataclass
class HiddenQuantLog(HiddenQuant):
    """Quantise what enters each layer on a log scale from 2^-5 to 2^4, with a sign.

    D = 9 / (2^(b - 1) - 1); e = D floor(log2|x| / D + 1/2); y = sign(x) 2^e, 0 where e <= -5, 16 sign(x)
    where e > 4. Shapes: hidden (batch, tokens, hidden). At least 2 bits. Source: Ji et al. 2021, a
    hidden-state quantiser of their code, Findings of ACL, https://aclanthology.org/2021.findings-acl.363/.
    """

    name = "hidden-quant:log"
    examples = ("hidden-quant8:log",)

    def __post_init__(self) -> None:
        if not 2 <= self.bits <= 16:
            raise ValueError("a logarithmic scale with a sign has 2 to 16 bits")

    def rounded(self, values: Tensor) -> Tensor:
        import torch

        steps = 2 ** (self.bits - 1) - 1
        step = (LARGE - SMALL) / steps
        zero = SMALL * steps // (LARGE - SMALL)  # the last exponent, in steps, that gives 0
        size = values.abs().clamp_(min=2.0 ** (SMALL - step))  # no logarithm of 0
        size.log2_().div_(step).add_(0.5).floor_().mul_(step).exp2_().clamp_(max=2.0**LARGE)
        torch.threshold_(size, 2.0 ** (step * (zero + 0.5)), 0.0)
        return size.mul_(values.sign())


@hookimpl
def register_methods(register):
    register(HiddenThreshold)
    register(HiddenQuant)
    register(HiddenQuantLinear)
    register(HiddenQuantLog)
