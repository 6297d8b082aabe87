"""Find where a model attends, and route its attention through our function."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator
from typing import Any, Literal
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from attnbench.engine.places import origins
from attnbench.errors import UserError
from attnbench.methods.protocol import Site

NAME = "attnbench"
HEADLESS = "attnbench_headless"  # an attribute of an attention module that has lost all its heads
Serve = Callable[..., tuple[Tensor, None]]

_serving: WeakKeyDictionary[nn.Module, Serve] = (
    WeakKeyDictionary()
)  # every module of an attached model -> who answers
_known: WeakKeyDictionary[nn.Module, list[Site]] = WeakKeyDictionary()


@torch.compiler.disable
def route(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **kwargs: Any
) -> tuple[Tensor, None]:
    """Attend, as transformers calls it: (batch, heads, tokens, dim) in, (batch, tokens, heads, dim) out."""
    return _serving.get(module, sdpa_attention_forward)(module, query, key, value, mask, **kwargs)


AttentionInterface.register(NAME, route)
AttentionMaskInterface.register(
    NAME, origins.mask
)  # without it the causal and padding masks silently disappear


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
    if not isinstance(model, PreTrainedModel):
        what = f"{type(model).__name__} is not a transformers model: attnbench needs a PreTrainedModel"
        raise UserError(what + _inside(model))
    with restored(model):
        if not type(model)._can_set_attn_implementation():
            raise unsupported(model)
        model.set_attn_implementation(name)
        if model.config._attn_implementation != name:
            raise unsupported(model)
        yield


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


def discover(model: nn.Module, headless: bool = False) -> list[Site]:
    """List where a model attends, in the order of one forward pass.

    Run once per model on a few tokens with unequal encoder and decoder lengths; a module that is called for
    several layers (ALBERT) has as many sites. A layer without a head left does not attend: only `headless`
    lists it too, with 0 heads. Raises UserError for an architecture that is not supported.
    """
    if model not in _known:
        from attnbench.engine.serving import tapped

        first = next(model.parameters(), None)
        if first is not None and first.is_meta:
            raise UserError(f"{type(model).__name__} has no weights yet: load it first (it is on 'meta')")
        _known[model] = tapped.probe(model) if tapped.needed(model) else _probe(model)
    return [site for site in _known[model] if site.heads or headless]


def forget(model: nn.Module) -> None:
    """Let `discover` look again: a model's heads have changed."""
    _known.pop(model, None)


def _probe(model: nn.Module) -> list[Site]:
    paths = {module: path for path, module in model.named_modules()}
    found: list[Site] = []

    def record(
        module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **kwargs: Any
    ) -> tuple[Tensor, None]:
        kind = kind_of(module, query.shape[2], key.shape[2], mask, kwargs.get("is_causal"))
        layer = sum(site.kind == kind for site in found)
        heads = 0 if hasattr(module, HEADLESS) else query.shape[1]
        found.append(Site(paths[module], kind, layer, heads=heads, head_dim=query.shape[3]))
        return query.new_zeros(query.shape[0], query.shape[2], query.shape[1], value.shape[3]), None

    with attached(model, record):
        run(model, probe_batch(model))
    if not found:
        raise unsupported(model)
    return found


def kind_of(
    module: nn.Module, queries: int, keys: int, mask: Tensor | None, is_causal: bool | None
) -> Literal["encoder", "decoder", "cross"]:
    """Tell which kind of attention one call is, of a probe's unequal lengths."""
    if queries != keys:
        return "cross"
    if mask is None:
        return (
            "decoder"
            if (getattr(module, "is_causal", False) if is_causal is None else is_causal)
            else "encoder"
        )
    ahead = torch.ones(queries, keys, dtype=torch.bool, device=mask.device).triu(1)
    return "encoder" if bool((visible_in(mask) & ahead).any()) else "decoder"


def visible_in(mask: Tensor) -> Tensor:
    """Tell which keys a mask shows: a boolean one is True there, an additive one not hugely negative."""
    return mask if mask.dtype == torch.bool else mask > torch.finfo(mask.dtype).min / 2


def probe_batch(model: nn.Module, examples: int = 1, padding: int = 0) -> dict[str, Tensor]:
    """Make inputs of 6 tokens (for a decoder beside an encoder, 4), the last example's end padded."""
    if getattr(model, "main_input_name", "input_ids") != "input_ids":
        raise UserError(
            f"{type(model).__name__} does not read token ids: this architecture is not supported."
        )
    config, device = model.config, next(model.parameters()).device
    special = {
        getattr(config, name, None)
        for name in ("pad_token_id", "bos_token_id", "eos_token_id", "mask_token_id")
    }
    vocabulary = model.get_input_embeddings().num_embeddings  # type: ignore[operator]
    plain = [token for token in range(min(vocabulary, 40)) if token not in special] or [0]
    tokens = torch.tensor(
        [plain[(7 * place) % len(plain)] for place in range(6 * examples)], device=device
    ).view(examples, 6)
    mask = torch.ones_like(tokens)
    if padding:
        mask[-1, -padding:] = 0
        pad = getattr(config, "pad_token_id", None)
        tokens[-1, -padding:] = pad if isinstance(pad, int) and 0 <= pad < vocabulary else 0
    batch = {"input_ids": tokens, "attention_mask": mask}
    if "decoder_input_ids" in inspect.signature(model.forward).parameters:
        batch["decoder_input_ids"] = tokens[:1, :4].expand(examples, -1).contiguous()
    return batch


def run(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """Return the body's first output (the model's, where it has no body), in eval mode without gradients."""
    body = getattr(model, "base_model", model)
    training = [module for module in model.modules() if module.training]
    try:
        model.eval()
        with torch.no_grad():
            return body(
                **{key: value for key, value in batch.items() if key in _accepted(body)}, return_dict=True
            )[0]
    finally:
        for module in training:
            module.training = True


def _accepted(model: nn.Module) -> set[str]:
    return {
        "input_ids",
        "attention_mask",
        "token_type_ids",
        "decoder_input_ids",
        "decoder_attention_mask",
    } & set(inspect.signature(model.forward).parameters)
