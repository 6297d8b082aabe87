"""What is kept of a prompt by the definitions, slowly, and a plain model that goes on from a cut cache."""

from __future__ import annotations

import contextlib
import math
from typing import Any

import numpy as np
import torch
from transformers import DynamicCache


def dense(model: Any, ids: torch.Tensor) -> dict[str, list[np.ndarray]]:
    """Run a plain model on one prompt: attention, keys, values, unrotated queries, output weights."""
    queries: list[np.ndarray] = []
    handles = []
    for layer in getattr(model.base_model, "layers", ()):
        attention = layer.self_attn

        def see(module, args, kwargs, output, attention=attention):
            states = kwargs["hidden_states"]
            made = attention.q_proj(states).view(*states.shape[:2], -1, attention.head_dim)
            queries.append(made[0].transpose(0, 1).numpy())

        handles.append(attention.register_forward_hook(see, with_kwargs=True))
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    with torch.no_grad():
        found = model(ids, use_cache=True, output_attentions=True)
    model.set_attn_implementation(before)
    for handle in handles:
        handle.remove()
    layers = found.past_key_values.layers
    return {
        "attention": [each[0].numpy() for each in found.attentions],
        "keys": [layer.keys[0].numpy() for layer in layers],
        "values": [layer.values[0].numpy() for layer in layers],
        "queries": queries,
        # (heads * head_dim, hidden)
        "outputs": [layer.self_attn.o_proj.weight.detach().T.numpy() for layer in base.layers]
        if hasattr(base := model.base_model, "layers")
        else [layer.attn.c_proj.weight.detach().numpy() for layer in base.h],
    }


def continued(model: Any, ids: torch.Tensor, n: int, kept: list[np.ndarray]) -> torch.Tensor:
    """Prefill n tokens, drop what is not kept (heads, tokens) from the real cache, read the rest one by one.

    Where the heads of a layer keep different numbers, which no tensor can hold, those are masked instead.
    """
    cache = DynamicCache()
    with torch.no_grad(), contextlib.ExitStack() as stack:
        model(ids[:, :n], past_key_values=cache)
        for layer, stays in zip(cache.layers, kept, strict=True):
            if len({int(each.sum()) for each in stays}) == 1:
                for name in ("keys", "values"):
                    whole = getattr(layer, name)[0]
                    parts = [head[torch.from_numpy(each)] for head, each in zip(whole, stays, strict=True)]
                    setattr(layer, name, torch.stack(parts)[None])
        modules = [m for m in model.modules() if hasattr(m, "layer_idx") and hasattr(m, "scaling")]
        for module in modules:
            stays = kept[module.layer_idx]
            if len({int(each.sum()) for each in stays}) > 1:
                handle = module.register_forward_pre_hook(_masking(stays, n), with_kwargs=True)
                stack.callback(handle.remove)
        logits = []
        for place in range(n, ids.shape[1]):
            at = torch.tensor([[place]])
            logits.append(model(ids[:, place : place + 1], past_key_values=cache, position_ids=at).logits)
    return torch.cat(logits, 1)


def _masking(stays: np.ndarray, n: int) -> Any:
    def change(module, args, kwargs):
        groups = module.config.num_attention_heads // len(stays)
        given = torch.from_numpy(stays).repeat_interleave(groups, 0)[None, :, None]
        tokens = kwargs["past_key_values"].layers[module.layer_idx].get_seq_length() + 1
        return args, {**kwargs, "attention_mask": torch.nn.functional.pad(given, (0, tokens - n), value=True)}

    return change


def largest(values: np.ndarray, count: int, among: list[int] | None = None) -> set[int]:
    """Places of the `count` largest values, the lower place first where two are equal."""
    places = range(len(values)) if among is None else among
    return set(sorted(places, key=lambda j: (-values[j], j))[: max(count, 0)])


def table(rows: list[set[int]], n: int) -> np.ndarray:
    return np.array([[j in row for j in range(n)] for row in rows])


def grouped(per_head: np.ndarray, heads: int) -> np.ndarray:
    """Mean over the query heads of each key-value head (heads, ...)."""
    return per_head.reshape(heads, -1, *per_head.shape[1:]).mean(1)


def snapkv(attention, heads, n, k, window=64, kernel=5, pool="avg"):
    """Return scores (heads, n) and the protected places."""
    w = min(window, max(1, k // 2))
    half, scores = kernel // 2, np.zeros((heads, n))
    mean = attention[:, n - w :, : n - w].mean(1)
    pooled = np.zeros_like(mean)
    for j in range(n - w):
        near = mean[:, max(0, j - half) : j + half + 1]
        pooled[:, j] = near.sum(1) / kernel if pool == "avg" else near.max(1)
    scores[:, : n - w] = grouped(pooled, heads)
    return scores, set(range(n - w, n))


def h2o(attention, heads, n, k):
    """Return scores (heads, n) and the protected places."""
    return grouped(attention.sum(1), heads), set(range(n - k // 2, n))


def critical(attention, values, output, heads, n, k, window=64):
    """Return what stays (heads, n): half by SnapKV's score, half by it and the value's norm in the output."""
    scores, safe = snapkv(attention, heads, n, k, window)
    groups, dim = len(attention) // heads, values.shape[-1]
    rows = []
    for g, row in enumerate(scores):
        stays = safe | largest(row, k // 2 - len(safe), [j for j in range(n) if j not in safe])
        norms = np.zeros(n)
        for h in range(g * groups, (g + 1) * groups):
            norms += np.abs(values[g] @ output[h * dim : (h + 1) * dim]).sum(-1) / groups
        rest = [j for j in range(n) if j not in stays]
        rows.append(stays | largest((row + 1e-4) * norms, k - len(stays), rest))
    return table(rows, n)


def expected(queries, keys, values, base, n, k):
    """Return scores (heads, n) and the protected places; `base` is what rotary frequencies come from."""
    heads, _, dim = keys.shape
    first = min(4, k)
    if n == first:
        return np.zeros((heads, n)), set(range(first))
    mean = queries[:, first:].mean(1)
    spread = np.stack([np.cov(each[first:], rowvar=False, bias=True) for each in queries])
    if base:
        rotation = np.zeros((dim, dim))
        for position in range(n, n + 512):
            for pair in range(dim // 2):
                angle = position * base ** (-2 * pair / dim)
                a, b = pair, pair + dim // 2
                rotation[a, a] += math.cos(angle) / 512
                rotation[b, b] += math.cos(angle) / 512
                rotation[a, b] -= math.sin(angle) / 512
                rotation[b, a] += math.sin(angle) / 512
        mean = mean @ rotation.T
        spread = rotation @ spread @ rotation.T
    groups = len(queries) // heads
    shares = np.zeros((len(queries), n - first))
    for h in range(len(queries)):
        x = keys[h // groups, first:]
        score = x @ mean[h] / math.sqrt(dim) + np.array([row @ spread[h] @ row for row in x]) / (2 * dim)
        shares[h] = np.exp(score - score.max()) / np.exp(score - score.max()).sum()
    scores = np.zeros((heads, n))
    scores[:, first:] = grouped(shares, heads) * np.linalg.norm(values[:, first:], axis=-1)
    return scores, set(range(first))


def shared(scores: np.ndarray, safe: set[int], k: int, budget: str, rank: int, layers: int) -> np.ndarray:
    """Share a budget of k tokens a head, of which those in `safe` stay anyway."""
    heads, n = scores.shape
    r, open_ = len(safe), [j for j in range(n) if j not in safe]
    free = k - r
    if budget == "even":
        return table([safe | largest(row, free, open_) for row in scores], n)
    if budget == "adakv":
        every = sorted((-scores[g, j], g, j) for g in range(heads) for j in open_)[: heads * free]
        counts = [sum(g == each[1] for each in every) for g in range(heads)]
        sizes = [round(0.8 * a + free // 5) for a in counts]
        return table([safe | largest(row, size, open_) for row, size in zip(scores, sizes, strict=True)], n)
    if budget == "safeguard":
        top = np.array([[np.inf if j in safe else row[j] for j in range(n)] for row in scores])
        own = {(g, j) for g in range(heads) for j in largest(top[g], k // 5)}
        rest = sorted(
            ((g, j) for g in range(heads) for j in range(n) if (g, j) not in own),
            key=lambda at: (-top[at], at),
        )
        every = own | set(rest[: heads * k - len(own)])
        return table([{j for g, j in every if g == head} for head in range(heads)], n)
    size = free
    if layers > 1 and free and n >= 2 * free:
        low = free // 20
        high = 2 * free - low
        if high >= n - r:
            high = n - r
            low = 2 * free - high
        exact = [high - place * (high - low) / (layers - 1) for place in range(layers)]
        sizes = [math.floor(value) for value in exact]
        short = layers * free - sum(sizes)
        for place in [place for place in range(layers) if exact[place] != sizes[place]][:short]:
            sizes[place] += 1
        size = sizes[rank]
    return table([safe | largest(row, size, open_) for row in scores], n)
