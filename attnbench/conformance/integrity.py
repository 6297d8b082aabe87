"""Tell whether a model is whole again: weights, flags, hooks, configuration, registries."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from attnbench import sites
from attnbench.attention import apply
from attnbench.conformance.subject import Fault, Subject
from attnbench.method import Method, Site


def snapshot(model: nn.Module) -> dict[str, Any]:
    """Return all that a method must leave as it found it, each part under words for it."""
    from transformers import AttentionInterface, AttentionMaskInterface

    seen: dict[str, Any] = {}
    configs: dict[int, tuple[str, str]] = {}
    for kind, named in (("weight", model.named_parameters()), ("buffer", model.named_buffers())):
        for path, tensor in named:
            seen[f"{kind} {path}"] = tensor.detach().clone()
            seen[f"requires_grad of {path}"] = tensor.requires_grad
            seen[f"gradient of {path}"] = None if tensor.grad is None else tensor.grad.clone()
    for path, module in model.named_modules():
        of = f"of {path or 'the model'}"
        seen[f"class {of}"] = type(module).__qualname__
        seen[f"training mode {of}"] = module.training
        seen[f"forward {of}"] = vars(module).get("forward")
        for key, value in vars(module).items():
            if key.endswith("_hooks") and isinstance(value, dict):
                seen[f"{key.strip('_').replace('_', ' ')} {of}"] = tuple(value)
        config = getattr(module, "config", None)
        if config is not None:
            if id(config) not in configs:
                configs[id(config)] = str(getattr(config, "_attn_implementation", None)), repr(config)
            seen[f"configuration {of}"] = configs[id(config)]
        seen[f"attention {of}"] = sites.serving(module)
    for registry in (AttentionInterface, AttentionMaskInterface):
        known = registry()
        seen[f"transformers' {registry.__name__}"] = {name: known[name] for name in known}
    seen["torch's grad mode"] = torch.is_grad_enabled()
    seen["torch's default dtype"] = torch.get_default_dtype()
    seen["torch's number of threads"] = torch.get_num_threads()
    seen["torch's deterministic mode"] = torch.are_deterministic_algorithms_enabled()
    return seen


def difference(before: dict[str, Any], after: dict[str, Any]) -> str | None:
    """Name the first part that differs, with how many others, or None."""
    changed = [part for part in {**before, **after} if not _same(before.get(part), after.get(part))]
    if not changed:
        return None
    more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
    return f"{changed[0]} changed{more}"


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return a.shape == b.shape and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, Tensor) or isinstance(b, Tensor):
        return False
    return bool(a == b)


class Planted(Exception):
    """What the kit raises in a block to see what is left behind."""


class Raiser(Method):
    """Raise in the middle of a forward pass."""

    name = "raiser"

    def __init__(self, error: type[BaseException]) -> None:
        super().__init__()
        self.error, self.calls = error, 0

    def context(self, context: Tensor, site: Site) -> Tensor:
        self.calls += 1
        if self.calls == 2:
            raise self.error
        return context


def restored(subject: Subject, seed: int) -> str:
    """The model is whole after success, after an exception in the block and in a stage, after Ctrl-C."""
    model, inputs = subject.model(), subject.sample(seed)
    methods = copy.deepcopy(subject.terms)
    before = snapshot(model)

    def require_whole(when: str) -> None:
        changed = difference(before, snapshot(model))
        if changed:
            raise Fault(f"after {when}: {changed}")

    forwards = _fit(subject, model, methods)
    require_whole("fit")
    subject.run(inputs, methods, model)
    require_whole("success")
    with contextlib.suppress(Planted), apply(model, *methods):
        raise Planted
    require_whole("an exception")
    for error in (Planted, KeyboardInterrupt):
        with contextlib.suppress(error):
            subject.run(inputs, [*methods, Raiser(error)], model)
        require_whole(f"{error.__name__} in a stage")
    if forwards:
        with contextlib.suppress(KeyboardInterrupt):
            _fit(subject, model, copy.deepcopy(subject.terms), stop=forwards // 2 + 1)
        require_whole("KeyboardInterrupt in fit")
    return "weights, flags, hooks, configuration, registries"


def _fit(subject: Subject, model: Any, methods: Sequence[Method], stop: int = 0) -> int:
    """Fit, press Ctrl-C at forward pass `stop`, and return the number of forward passes."""
    forwards = 0

    def count(*_: Any) -> None:
        nonlocal forwards
        forwards += 1
        if forwards == stop:
            raise KeyboardInterrupt

    handle = model.get_input_embeddings().register_forward_pre_hook(count)
    try:
        subject.fit(model, methods)
    finally:
        handle.remove()
    return forwards
