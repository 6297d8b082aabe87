"""Tell whether a model is whole again: weights, flags, hooks, configuration, registries."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from attnbench import sites
from attnbench.attention import apply
from attnbench.conformance.subject import Fault, Subject
from attnbench.method import Method, Site, needs_fit


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

    def __init__(self, error: type[BaseException] | None) -> None:
        super().__init__()
        self.error, self.calls = error, 0

    def context(self, context: Tensor, site: Site) -> Tensor:
        self.calls += 1
        if self.error is not None and self.calls == 2:
            raise self.error
        return context


def restored(subject: Subject, seed: int) -> str:
    """The model is whole after success, after an exception in the block and in a stage, after Ctrl-C."""
    inputs = subject.sample(seed)
    endings = {
        "success": None,
        "an exception": Planted,
        "an exception in a stage": Planted,
        "Ctrl-C": KeyboardInterrupt,
    }
    for ending, error in endings.items():
        model, methods = subject.model(), copy.deepcopy(subject.terms)
        before = snapshot(model)
        subject.fit(model, methods)
        with_fault = [*methods, Raiser(error)] if error and ending != "an exception" else methods
        try:
            subject.run(inputs, with_fault, model)
            if error:
                with apply(model, *methods):
                    raise error
        except (Planted, KeyboardInterrupt):
            pass
        _require_whole(model, before, f"after {ending}")
    if any(map(needs_fit, subject.terms)):
        _interrupt_fit(subject)
    return "weights, flags, hooks, configuration, registries"


def _require_whole(model: Any, before: dict[str, Any], when: str) -> None:
    changed = difference(before, snapshot(model))
    if changed:
        raise Fault(f"{when}: {changed}")


def _interrupt_fit(subject: Subject) -> None:
    forwards = 0

    def count(*_: Any) -> None:
        nonlocal forwards
        forwards += 1
        if forwards == stop:
            raise KeyboardInterrupt

    stop = -1
    for _ in range(2):
        model = subject.model()
        before = snapshot(model)
        handle = model.get_input_embeddings().register_forward_pre_hook(count)
        try:
            subject.fit(model, copy.deepcopy(subject.terms))
        except KeyboardInterrupt:
            pass
        finally:
            handle.remove()
        _require_whole(model, before, "after Ctrl-C in fit" if stop > 0 else "after fit")
        stop, forwards = max(1, forwards // 2 + 1), 0
