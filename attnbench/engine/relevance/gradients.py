"""CP-LRP and AttnLRP as rules for gradients: relevance is value times gradient, at every place of the model.

A linear map needs no rule: R_i = x_i sum_j w_ji R_j / z_j is x_i times the gradient where R_j is z_j times
its own. A bias, or a shift, takes the relevance that it stands for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers.activations import ACT2CLS

from attnbench.engine.relevance.propagation import LINEAR, MOVING, Propagation, Rule, followed

PART_OF_METHODS = True

Kind = Literal["cp", "attn"]
ELEMENTWISE = ("celu", "elu", "gelu", "hardswish", "leaky_relu", "mish", "relu", "selu", "silu", "tanh")
PRODUCTS = ("__matmul__", "baddbmm", "bmm", "einsum", "matmul", "mul", "multiply")


def propagation(model: nn.Module, kind: Kind) -> Propagation:
    """Return what makes a model's gradients those of a rule, while it is open.

        f(x), element by element, f(0) = 0     R_x = R_f                                identity
        a b, a @ b, both of the input          half of R to a, half to b                uniform
        f(a) b, f(a) a gate, in "cp"           a constant: all to b                     as LXT does
        x / sigma in a norm                    sigma is a constant, the mean is not     identity
        softmax over keys, in "attn"           its gradient: R_x = x (R_p - p sum R_p)  Taylor
        queries @ keys, in "cp"                a constant, and the attention with it    stopped

    Sources: Achtibat et al. 2024 (AttnLRP, https://arxiv.org/abs/2402.05602) and Ali et al. 2022 (CP-LRP,
    https://arxiv.org/abs/2202.07304), whose paper has no gates: there as in LXT, the code of the former,
    https://github.com/rachtibat/LRP-eXplains-Transformers. Differs: no epsilon.
    """
    rules: dict[str, Rule] = {
        **dict.fromkeys(ELEMENTWISE, _elementwise),
        **dict.fromkeys(PRODUCTS, _stopped if kind == "cp" else _product),
        **dict.fromkeys(("pow", "square", "var"), _second_moment),
        "clamp": _unclamped,
        "layer_norm": _layer_norm,
        "rms_norm": _rms_norm,
    }
    if kind == "attn":
        rules["softmax"] = _taylor
    return Propagation(model, rules, whole_activation(identity), MOVING | LINEAR, products=True)


class Identity(torch.autograd.Function):
    """Give y, and to x the gradient by which x times it is y times its own: R_x = R_y."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor) -> Tensor:
        ctx.save_for_backward(torch.where(x == 0, 0, y / torch.where(x == 0, 1, x)))
        return y.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0] * ctx.saved_tensors[0], None


GATES: Any = Identity._backward_cls


def identity(x: Tensor, y: Tensor) -> Tensor:
    return Identity.apply(x, y)


def whole_activation(
    make: Callable[[Tensor, Tensor], Tensor],
) -> Callable[[nn.Module], Callable[[Tensor, Tensor], Tensor] | None]:
    """Take transformers' activations, of several steps each, as one function f with f(0) = 0."""
    classes: tuple[Any, ...] = tuple(
        each[0] if isinstance(each, tuple) else each for each in ACT2CLS.values()
    )
    known: dict[nn.Module, bool] = {}

    def whole(module: nn.Module) -> Callable[[Tensor, Tensor], Tensor] | None:
        if not isinstance(module, classes):
            return None
        if module not in known:
            known[module] = False  # it is asked for a value at 0, through the same hooks
            first = next(module.parameters(), torch.zeros(()))
            known[module] = bool(module(torch.zeros(1, dtype=first.dtype, device=first.device)) == 0)
        return make if known[module] else None

    return whole


def _elementwise(at: Propagation, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if not args or len(followed([args, kwargs])) != 1 or not followed(args[:1]):
        return NotImplemented
    return identity(args[0], func(args[0].detach(), *args[1:], **kwargs))


def halved(x: Tensor) -> Tensor:
    """Return x, whose gradient is halved: exactly x, for halves are exact."""
    return x * 0.5 + (x * 0.5).detach()


def _product(at: Propagation, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if len(followed(args)) < 2 or followed(kwargs):
        return NotImplemented
    if len(followed(args)) > 2:
        raise at.refusal(f"a product of three ({func.__name__})")
    return func(*_halves(args), **kwargs)


def _stopped(at: Propagation, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Stop queries and keys, and of a gate what comes straight from an activation, the other does not."""
    if func.__name__ == "bmm" and at.path in at.attending and len(followed(args)) == 2:
        return func(*(x.detach() for x in args), **kwargs)
    gates = [isinstance(x.grad_fn, GATES) for x in followed(args)]
    if sum(gates) != 1 or len(gates) != 2 or len(args) != 2:
        return _product(at, func, args, kwargs)
    return func(*(x.detach() if isinstance(x.grad_fn, GATES) else x for x in args), **kwargs)


def _halves(value: Any) -> Any:
    if isinstance(value, tuple | list):
        return type(value)(_halves(item) for item in value)
    return halved(value) if followed(value) else value


def _second_moment(at: Propagation, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """In a norm what x is divided by is a constant."""
    norm = at.inside and "Norm" in type(at.inside[-1]).__name__
    exponent = args[1] if len(args) > 1 and func.__name__ == "pow" else 2
    return func(*args, **kwargs).detach() if norm and exponent == 2 else NotImplemented


def _unclamped(at: Propagation, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Pass by a bound that nothing reaches, as T5's in float16."""
    same = torch.equal(func(*args, **kwargs), args[0])
    return args[0] if same else NotImplemented


def _layer_norm(at: Propagation, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return _normed(*args, **kwargs, centred=True)


def _rms_norm(at: Propagation, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return _normed(*args, **kwargs, centred=False)


def _normed(
    input: Tensor,
    normalized_shape: Any,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float | None = None,
    *,
    centred: bool,
) -> Tensor:
    axes = tuple(range(-len(normalized_shape), 0))
    wide = input.to(torch.promote_types(input.dtype, torch.float32))
    wide = wide - wide.mean(axes, keepdim=True) if centred else wide
    floor = torch.finfo(input.dtype).eps if eps is None else eps
    result = wide * (wide.detach().square().mean(axes, keepdim=True) + floor).rsqrt()
    result = result if weight is None else result * weight
    return (result if bias is None else result + bias).to(input.dtype)


def _taylor(at: Propagation, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return func(*args, **kwargs) if at.path in at.attending else NotImplemented
