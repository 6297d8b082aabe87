"""Route a model's attention through our function for a while."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from attnbench.engine.places import origins
from attnbench.errors import UserError

NAME = "attnbench"
PLAIN = "attnbench_plain"  # with the masks of SDPA: none where a causal one says it all
HEADLESS = "attnbench_headless"  # an attribute of an attention module that has lost all its heads
# what is added to scores, and what is passed on but no part of them
TAKEN = ("position_bias", "position_embeddings", "encoder_hidden_states")
Serve = Callable[..., tuple[Tensor, Tensor | None]]

# every module of an attached model -> who answers
_serving: WeakKeyDictionary[nn.Module, Serve] = WeakKeyDictionary()


@torch.compiler.disable
def route(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
) -> tuple[Tensor, Tensor | None]:
    """Attend, as transformers calls it: (batch, heads, tokens, dim) in, (batch, tokens, heads, dim) out.

    Raises UserError where it is called with numbers that nothing here attends with, such as sinks.
    """
    for name, given in kwargs.items():
        if isinstance(given, Tensor) and given.is_floating_point() and name not in TAKEN:
            raise UserError(
                f"{type(module).__name__} attends with {name} too, which attnbench would leave out: this "
                "architecture is not supported."
            )
    return _serving.get(module, sdpa_attention_forward)(module, query, key, value, attention_mask, **kwargs)


AttentionInterface.register(NAME, route)
# without this one the causal and padding masks silently disappear
AttentionMaskInterface.register(NAME, origins.mask)
AttentionInterface.register(PLAIN, route)
AttentionMaskInterface.register(PLAIN, sdpa_mask)


def serving(model: nn.Module) -> Serve | None:
    """Return what answers for a model's attention at the moment."""
    return _serving.get(model)


@contextlib.contextmanager
def restored(model: nn.Module) -> Iterator[list[Any]]:
    """Hand out a model's configurations, and put back the attention that each of them names."""
    before = [(config, config._attn_implementation_internal) for config in configs(model)]
    try:
        yield [config for config, _ in before]
    finally:
        for config, value in before:
            config._attn_implementation_internal = value


@contextlib.contextmanager
def implementation(model: nn.Module, name: str) -> Iterator[None]:
    """Switch a model's attention for a while. Raises UserError for a model that cannot be switched."""
    switched = known(model)
    with restored(model):
        if not type(switched)._can_set_attn_implementation():
            raise unsupported(model)
        switched.set_attn_implementation(name)
        if switched.config._attn_implementation != name:
            raise unsupported(model)
        yield


def known(model: nn.Module) -> PreTrainedModel:
    """Return a model of transformers. Raises UserError for any other."""
    if not isinstance(model, PreTrainedModel):
        what = f"{type(model).__name__} is not a transformers model: attnbench needs a PreTrainedModel"
        raise UserError(what + _inside(model))
    return model


def _inside(model: nn.Module) -> str:
    """Say which part of a wrapper is the model: of PEFT's, of a compiled one."""
    for path in ("_orig_mod", "base_model", "base_model.model"):
        part: Any = model
        for name in path.split("."):
            part = getattr(part, name, None)
        if isinstance(part, PreTrainedModel):
            return f". Apply the methods to its .{path}, and run it as before"
    return ""


def unsupported(model: nn.Module) -> UserError:
    """Build the error for an architecture whose attention cannot be reached."""
    return UserError(
        f"{type(model).__name__} keeps its attention to itself (not on transformers' attention interface): "
        "this architecture is not supported."
    )


def configs(model: nn.Module) -> list[Any]:
    """List every configuration that a model's modules read, each once."""
    return list({id(config): config for config in _configs(model)}.values())


def _configs(model: nn.Module) -> Iterator[Any]:
    owners = (getattr(module, "config", None) for module in model.modules())
    waiting: list[Any] = [config for config in owners if hasattr(config, "sub_configs")]
    while waiting:
        config = waiting.pop()
        yield config
        waiting += [sub for key in config.sub_configs if (sub := getattr(config, key, None)) is not None]


@contextlib.contextmanager
def attached(model: nn.Module, serve: Serve) -> Iterator[None]:
    """Let `serve` answer for a model's attention for a while."""
    with implementation(model, NAME), registered(model, serve):
        yield


@contextlib.contextmanager
def registered(model: nn.Module, serve: Serve) -> Iterator[None]:
    """Note who answers for every module of a model."""
    before = {module: _serving.get(module) for module in model.modules()}
    try:
        _serving.update(dict.fromkeys(before, serve))
        yield
    finally:
        for module, previous in before.items():
            if previous is None:
                _serving.pop(module, None)
            else:
                _serving[module] = previous
