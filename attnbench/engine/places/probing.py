"""Run a model on a few tokens, and tell from one call of its attention which kind it is."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator
from typing import Any, Literal

import torch
from torch import Tensor, nn

from attnbench.engine.places.blocks import visible_in
from attnbench.errors import UserError


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
    vocabulary = int(getattr(word_embeddings(model), "num_embeddings", getattr(config, "vocab_size", 40)))
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


def word_embeddings(model: nn.Module) -> nn.Module | None:
    """Return a model's table of tokens, None where it has none or keeps it to itself."""
    with contextlib.suppress(NotImplementedError, AttributeError):
        return model.get_input_embeddings()  # type: ignore[operator]
    return None


def run(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """Return the body's first output (the model's, where it has no body), in eval mode without gradients."""
    body = getattr(model, "base_model", model)
    body = body if "input_ids" in _accepted(body) else model  # BART's decoder alone has a wrapper there
    with evaluating(model):
        return body(
            **{key: value for key, value in batch.items() if key in _accepted(body)}, return_dict=True
        )[0]


def answer(model: nn.Module, batch: dict[str, Tensor]) -> Any:
    """Return a model's whole output, in eval mode without gradients."""
    with evaluating(model):
        return model(**batch)


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Keep a model in eval mode, without gradients, until the block ends."""
    training = [module for module in model.modules() if module.training]
    try:
        model.eval()
        with torch.no_grad():
            yield
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
