"""The one training loop: gates or weights, under the methods that are applied, the model left as it was."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from attnbench.errors import NotApplicable

PART_OF_METHODS = True  # what is learned here is learned by a method: its identity covers this file
WARM_UP = 0.1  # share of the steps in which the learning rate rises
LONGEST_STEP = 1.0  # norm that gradients are clipped to
SCALE = 2.0**15  # of a loss in float16 at first, in which gradients under 6e-8 would be 0


def train(
    model: nn.Module,
    batches: Sequence[Mapping[str, Tensor]],
    parameters: Sequence[dict[str, Any]],
    extra_loss: Callable[[], Tensor] | None = None,
    *,
    steps: int,
    seed: int = 0,
) -> list[float]:
    """Minimise the model's loss, plus `extra_loss()`, by Adam; return the loss without it, step by step.

    `parameters` are groups as in torch.optim: [{"params": [...], "lr": 0.01}]; nothing else has gradients.
    Batches come in a new order every round, dropout is on; both follow `seed`. The learning rate rises for
    a tenth of the steps and falls to 0 in a straight line, gradients are clipped to norm 1. In bfloat16 and
    float16 the steps add up in float32 copies, of which the parameters are the nearest values. Raises
    NotApplicable for batches without labels, ArithmeticError where the loss is not finite.
    """
    trained = [parameter for group in parameters for parameter in group["params"]]
    groups = [{**group, "params": [_exact(each) for each in group["params"]]} for group in parameters]
    exact = [parameter for group in groups for parameter in group["params"]]
    scale = SCALE if torch.float16 in {p.dtype for p in (*model.parameters(), *trained)} else 1.0
    losses: list[float] = []
    with _training(model, trained), torch.random.fork_rng(_devices(model)), torch.enable_grad():
        torch.manual_seed(seed)
        optimizer = torch.optim.Adam(groups)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, steps))
        order: list[int] = []
        for step in range(steps):
            order = order or torch.randperm(len(batches)).tolist()
            loss = getattr(model(**batches[order.pop()]), "loss", None)
            if loss is None:
                raise NotApplicable("training needs labels, and this task's calibration data has none")
            losses.append(float(loss.detach()))
            whole = loss if extra_loss is None else loss + extra_loss()
            if not torch.isfinite(whole):
                raise ArithmeticError(
                    f"training diverges: the loss is {float(whole.detach())} at step {step + 1} of {steps}"
                )
            found, scale = _gradients(whole, trained, scale)
            for parameter, gradient in zip(exact, found, strict=True):
                parameter.grad = None if gradient is None else gradient.to(parameter.dtype)
            torch.nn.utils.clip_grad_norm_(exact, LONGEST_STEP)
            optimizer.step()
            schedule.step()
            with torch.no_grad():
                for parameter, own in zip(trained, exact, strict=True):
                    if parameter is not own:
                        parameter.copy_(own)
    if not all(bool(parameter.isfinite().all()) for parameter in trained):
        raise ArithmeticError(f"training diverges: a parameter is not finite after {steps} steps")
    return losses


def _exact(parameter: Tensor) -> Tensor:
    """Return what steps are added to: a half-precision parameter's own last digit is larger than most."""
    narrow = torch.finfo(parameter.dtype).bits < 32
    return parameter.detach().float() if narrow else parameter


def _gradients(
    loss: Tensor, trained: Sequence[Tensor], scale: float
) -> tuple[Sequence[Tensor | None], float]:
    """Return d loss / d parameter by way of a multiple of the loss, and that multiple.

    It is halved until all is finite: of small gradients float16 keeps nothing, of large ones no more.
    """
    while scale > 1:
        found = torch.autograd.grad(loss.float() * scale, trained, allow_unused=True, retain_graph=True)
        if all(gradient is None or bool(gradient.isfinite().all()) for gradient in found):
            return [None if gradient is None else gradient.float() / scale for gradient in found], scale
        scale /= 2
    return torch.autograd.grad(loss, trained, allow_unused=True), scale


def _rate(step: int, steps: int) -> float:
    rising = WARM_UP * steps
    return (step + 1) / rising if step + 1 < rising else (steps - step) / max(1.0, steps - rising + 1)


def _devices(model: nn.Module) -> list[torch.device]:
    return sorted({p.device for p in model.parameters() if p.device.type == "cuda"}, key=str)


@contextlib.contextmanager
def _training(model: nn.Module, trained: Sequence[Tensor]) -> Iterator[None]:
    """Let only `trained` have gradients and turn dropout on; put flags and gradients back."""
    modes = {module: module.training for module in model.modules()}
    everything = list({id(p): p for p in (*model.parameters(), *trained)}.values())
    flags = [(parameter, parameter.requires_grad, parameter.grad) for parameter in everything]
    try:
        model.train()
        for parameter in everything:
            parameter.requires_grad_(False)
        for parameter in trained:
            parameter.requires_grad_(True)
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode
        for parameter, flag, gradient in flags:
            parameter.requires_grad_(flag)
            parameter.grad = gradient


@contextlib.contextmanager
def own_weights(model: nn.Module) -> Iterator[dict[str, nn.Parameter]]:
    """Give a model copies of its weights to train, under their names, and its own back at the end."""
    parameters = dict(model.named_parameters())
    before = {name: parameter.data for name, parameter in parameters.items()}
    try:
        for parameter in parameters.values():
            parameter.data = parameter.data.clone()
        yield parameters
    finally:
        for name, parameter in parameters.items():
            parameter.data = before[name]


@contextlib.contextmanager
def with_weights(model: nn.Module, weights: Mapping[str, Tensor]) -> Iterator[None]:
    """Put weights in place by name until the block ends. Raises ValueError where there is no such weight."""
    parameters = dict(model.named_parameters())
    for name, weight in weights.items():
        if name not in parameters or parameters[name].shape != weight.shape:
            raise ValueError(f"trained on another model: {type(model).__name__} has no {name} of that shape")
    before = {name: parameters[name].data for name in weights}
    try:
        for name, weight in weights.items():
            parameters[name].data = weight.to(parameters[name])
        yield
    finally:
        for name, data in before.items():
            parameters[name].data = data
