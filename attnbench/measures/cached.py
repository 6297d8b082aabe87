"""What a cache that holds only what methods keep costs beside a dense one: on prompts, in turns."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from attnbench.engine.serving.attention import apply
from attnbench.engine.serving.prompts import SHORTEST
from attnbench.errors import NotApplicable
from attnbench.measures.peak import peak_of
from attnbench.measures.turns import compared, in_turns
from attnbench.methods.protocol import Method

PROMPTS = 4  # on which the tokens have to be the simulated ones
TOKENS = 16  # after each
CLOSE = 1e-3  # of the largest logit: a choice of tokens that rounding moves shows above it
COARSE = 5e-2  # of less precise numbers


def cached(
    model: nn.Module, dense: nn.Module, methods: Sequence[Method], prompts: Sequence[Tensor]
) -> dict[str, dict[str, Any]]:
    """Return `latency`, `first`, `held` and `memory` of methods for caches, each a ratio over dense.

    latency  a token after the prompt: median of rounds, low and high its 95 % interval; seconds: dense's
    first    the prompt and the first token after it, likewise
    held     bytes of the cache after one token, its room to grow included
    memory   the most bytes that the prompt and the tokens after it hold, weights aside

    All are of the longest of the prompts, each (1, tokens), read alone. Raises NotApplicable where methods
    are only simulated, as where a prompt's tokens are not the simulated ones.
    """
    from attnbench.engine.realised.removal import realize

    if not prompts:
        raise NotApplicable(f"no sample has the {SHORTEST} tokens that a cache is cut of")
    longest = max(prompts, key=lambda ids: ids.shape[1])
    with torch.no_grad():
        with apply(model, *methods):
            expected = [_written(model, ids) for ids in prompts]
        with realize(model, *methods):
            for ids, (tokens, logits) in zip(prompts, expected, strict=True):
                _require_same(ids, tokens, logits, *_written(model, ids))
            found = {
                "latency": _ratio(in_turns(_step(model, longest), _step(dense, longest)), longest),
                "first": _ratio(in_turns(_start(model, longest), _start(dense, longest)), longest),
            }
            held, whole = (_held(each, longest) for each in (model, dense))
            on_gpu = longest.is_cuda
            most, base = (
                peak_of(lambda each=each: _written(each, longest), on_gpu)  # type: ignore[misc]
                for each in (model, dense)
            )
    return found | {
        "held": {"dense": whole, "ratio": held / whole},
        "memory": {"dense": base, "ratio": most / base},
    }


def prompts_of(samples: Iterator[dict[str, Tensor]], positions: int | None) -> list[Tensor]:
    """Return the first samples that are prompts, each cut to leave a model positions for tokens after it."""
    found: list[Tensor] = []
    for sample in samples:
        ids = sample["input_ids"]
        ids = ids if positions is None else ids[:, : max(0, positions - TOKENS)]
        if ids.shape[1] >= SHORTEST and len(found) < PROMPTS:
            found.append(ids)
    return found


def _read(model: nn.Module, ids: Tensor) -> Any:
    return model(ids, use_cache=True)


def _written(model: nn.Module, ids: Tensor) -> tuple[list[int], Tensor]:
    """Return the likeliest tokens after a prompt, and their logits (tokens, vocabulary)."""
    output = _read(model, ids)
    cache, tokens, logits = output.past_key_values, [], []
    for _ in range(TOKENS):
        logits.append(output.logits[0, -1])
        tokens.append(int(logits[-1].argmax()))
        output = model(ids.new_tensor([[tokens[-1]]]), past_key_values=cache)
    return tokens, torch.stack(logits)


def _require_same(ids: Tensor, tokens: list[int], logits: Tensor, own: list[int], found: Tensor) -> None:
    alike = [one == other for one, other in zip(tokens, own, strict=True)]
    end = len(alike) if all(alike) else alike.index(False) + 1  # after another token all is another text
    gap = float((logits[:end] - found[:end]).abs().max() / logits.abs().max().clamp(min=1))
    if not all(alike) or not gap <= (CLOSE if logits.dtype.itemsize >= 4 else COARSE):
        raise NotApplicable(
            f"after a prompt of {ids.shape[1]} tokens it differs by {gap:.2g} from its simulation"
        )


def _step(model: nn.Module, ids: Tensor) -> Callable[[], float]:
    """Return a call that times one token after a prompt, always the same one."""
    output = _read(model, ids)
    cache, token = output.past_key_values, output.logits[:, -1:].argmax(-1)

    def step() -> float:
        spent = _timed(lambda: model(token, past_key_values=cache), ids.is_cuda)
        cache.crop(-1)
        return spent

    return step


def _start(model: nn.Module, ids: Tensor) -> Callable[[], float]:
    """Return a call that times a prompt and the first token after it."""
    return lambda: _timed(lambda: _read(model, ids), ids.is_cuda)


def _held(model: nn.Module, ids: Tensor) -> int:
    output = _read(model, ids)
    cache = output.past_key_values
    model(output.logits[:, -1:].argmax(-1), past_key_values=cache)
    tensors = [x for layer in cache.layers for x in (layer.keys, layer.values, getattr(layer, "shown", None))]
    return sum(x.untyped_storage().nbytes() for x in tensors if x is not None)


def _timed(call: Callable[[], Any], on_gpu: bool) -> float:
    if on_gpu:
        torch.cuda.synchronize()
    started = time.perf_counter()
    call()
    if on_gpu:
        torch.cuda.synchronize()
    return time.perf_counter() - started


def _ratio(spent: tuple[list[float], list[float]], ids: Tensor) -> dict[str, Any]:
    return compared(*spent) | {"samples": 1, "tokens": ids.shape[1]}
