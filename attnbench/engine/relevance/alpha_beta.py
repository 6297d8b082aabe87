"""Voita's rule: what autograd hands back is relevance itself, of one text in as many rows as are explained.

Each output o of a function gets impacts z_io of its inputs i: derivative times input, a bias in equal parts.

    R_i = sum_o R_o (1/2 z_io+ / sum_i z_io+  +  1/2 z_io- / sum_i z_io-)

and the R_i of one token (of one head, in attention) are rescaled to sum to what the R_o did.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from attnbench.engine.relevance.gradients import ELEMENTWISE, whole_activation
from attnbench.engine.relevance.propagation import MOVING, Propagation, Rule, followed

PIECE = 1 << 22  # impacts at once


def propagation(model: nn.Module) -> Propagation:
    """Return what makes a model's gradients its relevances, while it is open and fed equal rows of one text.

    An activation, a factor and a constant that is added pass on all they get; of a product of two, each half.
    """
    rules: dict[str, Rule] = {
        **dict.fromkeys(ELEMENTWISE, _elementwise),
        **dict.fromkeys(("div", "mul"), _product),
        "add": _add,
        "layer_norm": _layer_norm,
        "linear": _linear,
    }
    activation = whole_activation(Passed.apply)

    def whole(module: nn.Module) -> Callable[[Tensor, Tensor], Any] | None:
        return root_mean_square(module) or activation(module)

    return Propagation(model, rules, whole, MOVING)


def shares(impacts: Tensor, axis: int) -> Tensor:
    """Return each input's part in an output: impacts of one sign sum to a half, over the inputs' axis."""
    up, down = impacts.clamp(min=0), impacts.clamp(max=0)
    return (_over(up, up.sum(axis, keepdim=True)) + _over(down, down.sum(axis, keepdim=True))) / 2


def rescaled(relevance: Tensor, given: Tensor) -> Tensor:
    """Return relevance whose sum over a token's units is that of what was given."""
    return relevance * _over(given.sum(-1, keepdim=True), relevance.sum(-1, keepdim=True))


def _over(part: Tensor, whole: Tensor) -> Tensor:
    return torch.where(whole == 0, 0, part / torch.where(whole == 0, 1, whole))


class Passed(torch.autograd.Function):
    """Give y, and all its relevance to x."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor) -> Tensor:
        return y.clone()

    @staticmethod
    def backward(ctx: Any, *relevance: Tensor) -> tuple[Tensor, None]:
        return relevance[0], None


class Mapped(torch.autograd.Function):
    """Give y of x, token by token; `impacts(tokens)` are (tokens, inputs, outputs), of the first row."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, impacts: Callable[[Tensor], Tensor]) -> Tensor:
        ctx.save_for_backward(x[0])
        ctx.impacts = impacts
        return y.clone()

    @staticmethod
    def backward(ctx: Any, *relevance: Tensor) -> tuple[Tensor, None, None]:
        (x,), (given,) = ctx.saved_tensors, relevance
        found = [
            torch.einsum("rto,tio->rti", given[:, part], shares(ctx.impacts(x[part]), 1))
            for part in _parts(len(x), x.shape[-1] * given.shape[-1])
        ]
        return rescaled(torch.cat(found, 1), given), None, None


class Added(torch.autograd.Function):
    """Give a + b."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
        ctx.save_for_backward(a, b)
        return a + b

    @staticmethod
    def backward(ctx: Any, *relevance: Tensor) -> tuple[Tensor, Tensor]:
        parts = relevance[0] * shares(torch.stack(ctx.saved_tensors), 0)
        a, b = rescaled(torch.cat([*parts], -1), relevance[0]).chunk(2, -1)
        return a, b


class Multiplied(torch.autograd.Function):
    """Give a b: the impacts of both are a b, so that each gets half."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
        return a * b

    @staticmethod
    def backward(ctx: Any, *relevance: Tensor) -> tuple[Tensor, Tensor]:
        return relevance[0] / 2, relevance[0] / 2


class Attended(torch.autograd.Function):
    """Give the context of one attention, from q, k and v (rows, heads, tokens, head_dim).

        z of v_s  u_s v_s     of k_s  (u_s v_s - p_s sum_t u_t v_t) scale q k_s     of q  the sum of these

    for each query and output unit, of q and k unit by unit: p is the softmax, which is differentiated, u what
    methods made of it, whose factor u / p is a constant.
    """

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, used: Tensor, probs: Tensor, context: Tensor, scale: float
    ) -> Tensor:
        ctx.save_for_backward(q[0] * scale, k[0], v[0], used, probs)
        return context.clone()

    @staticmethod
    def backward(ctx: Any, *relevance: Tensor) -> tuple[Tensor | None, ...]:
        (q, k, v, used, probs), (given,) = ctx.saved_tensors, relevance
        to_q, to_k, to_v = (given.new_zeros(len(given), *x.shape) for x in (q, k, v))
        for part in _parts(q.shape[1], k.numel() * v.shape[-1]):
            out, of_v = (
                given[:, :, part],
                used[:, part, :, None] * v[:, None],
            )  # (heads, queries, keys, outputs)
            turn = of_v - probs[:, part, :, None] * of_v.sum(2, keepdim=True)
            of_k = turn[..., None] * (q[:, part, None] * k[:, None])[..., None, :]  # and inputs
            of_q = of_k.sum(2)  # (heads, queries, outputs, inputs)
            up, down = (
                of_v.clamp(*sign).sum(2) + of_k.clamp(*sign).sum((2, 4)) + of_q.clamp(*sign).sum(3)
                for sign in ((0, None), (None, 0))
            )  # (heads, queries, outputs)
            at_up, at_down = (_over(out, whole) / 2 for whole in (up, down))
            for to, z, equation in (
                (to_v, of_v, "rhqo,hqso->rhso"),
                (to_k, of_k, "rhqo,hqsoi->rhsi"),
            ):
                to += torch.einsum(equation, at_up, z.clamp(min=0))
                to += torch.einsum(equation, at_down, z.clamp(max=0))
            to_q[:, :, part] = torch.einsum("rhqo,hqoi->rhqi", at_up, of_q.clamp(min=0))
            to_q[:, :, part] += torch.einsum("rhqo,hqoi->rhqi", at_down, of_q.clamp(max=0))
        found = sum(x.sum((2, 3), keepdim=True) for x in (to_q, to_k, to_v))
        scale = _over(given.sum((2, 3), keepdim=True), torch.as_tensor(found))
        return to_q * scale, to_k * scale, to_v * scale, None, None, None, None


def _parts(tokens: int, each: int) -> Iterator[slice]:
    step = max(1, PIECE // max(1, each))
    return (slice(at, at + step) for at in range(0, tokens, step))


def _plain(value: Any) -> Any:
    return value.detach() if isinstance(value, Tensor) else value


def _elementwise(at: Propagation, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if len(followed([args, kwargs])) != 1 or not followed(args[:1]):
        return NotImplemented
    return Passed.apply(args[0], func(*map(_plain, args), **kwargs))


def _product(at: Propagation, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    given, result = followed(args), func(*map(_plain, args), **kwargs)
    if any(x.shape != result.shape for x in given):
        return NotImplemented
    if func.__name__ == "div":
        return Passed.apply(args[0], result) if len(given) == 1 and followed(args[0]) else NotImplemented
    return Passed.apply(given[0], result) if len(given) == 1 else Multiplied.apply(*given)


def _add(at: Propagation, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    given = followed(args)
    result = func(*map(_plain, args), **kwargs)
    if kwargs or any(x.shape != result.shape for x in given):
        return NotImplemented
    return Passed.apply(given[0], result) if len(given) == 1 else Added.apply(*given)


def _linear(at: Propagation, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return _mapped(*args, **kwargs)


def _mapped(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Any:
    if input.dim() != 3 or weight.requires_grad:
        return NotImplemented
    each = 0 if bias is None else bias / weight.shape[1]
    result = functional.linear(input.detach(), weight, bias)
    return Mapped.apply(input, result, lambda x: x[..., None] * weight.mT + each)


def _layer_norm(at: Propagation, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return _normed(func(*map(_plain, args), **kwargs), *args, **kwargs)


def _normed(
    result: Tensor,
    input: Tensor,
    normalized_shape: Any,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    centred: bool = True,
) -> Any:
    if input.dim() != 3 or len(normalized_shape) != 1:
        return NotImplemented
    size = input.shape[-1]

    def impacts(x: Tensor) -> Tensor:
        moved = x - x.mean(-1, keepdim=True) if centred else x
        spread = (moved.square().mean(-1, keepdim=True) + eps).sqrt()
        level = moved / spread
        slope = torch.eye(size, dtype=x.dtype, device=x.device) - centred / size
        slope = (slope - level[..., None] * level[..., None, :] / size) / spread[..., None]
        slope = slope if weight is None else slope * weight
        return x[..., None] * slope + (0 if bias is None else bias / size)

    return Mapped.apply(input, result, impacts)


def root_mean_square(module: Any) -> Callable[[Tensor, Tensor], Any] | None:
    """Take T5's norm, of several steps, as one function; None for a module that computes something else."""
    if not {"weight", "variance_epsilon"} <= {*vars(module), *module._parameters} or module._modules:
        return None

    def make(x: Tensor, y: Tensor) -> Any:
        plain, eps = x.detach(), module.variance_epsilon
        again = module.weight * plain * (plain.square().mean(-1, keepdim=True) + eps).rsqrt()
        if not torch.allclose(again, y, rtol=1e-4, atol=1e-5):
            return NotImplemented
        return _normed(y, x, module.weight.shape, module.weight, None, eps, centred=False)

    return make
