"""What of one text's tokens an answer rests on, by what attention alone says, and by values set to zero."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from attnbench import Method

LONGEST = 128  # tokens of a text: each is zeroed in a copy of it, in every layer


@dataclass
class Maps(Method):
    """Keep the probabilities of each layer, as they are used: (heads, queries, keys) of one text."""

    rows = "all"

    found: dict[int, Any] = field(default_factory=dict)

    def probs(self, probs: Any, site: Any) -> Any:
        self.found[site.layer] = probs
        return probs


@dataclass
class Zeroed(Method):
    """Take the value of token k from copy k of one text: its weight is 0, the others are as they were."""

    def probs(self, probs: Any, site: Any) -> Any:
        probs = probs.clone()
        for row, token in enumerate(site.examples):
            if token < probs.shape[-1]:  # of a causal text a tile ends where its queries see nothing more
                probs[row, :, :, token] = 0
        return probs


@contextlib.contextmanager
def outputs(model: Any) -> Iterator[dict[int, Any]]:
    """Keep the output of each layer: (batch, tokens, hidden)."""
    from attnbench import discover, layer_of

    found: dict[int, Any] = {}

    def keep(layer: int) -> Any:
        def see(module: Any, args: Any, output: Any) -> None:
            found[layer] = output[0] if isinstance(output, tuple) else output

        return see

    layers = {site.layer: layer_of(model, site.path) for site in discover(model)}
    calls = [model.get_submodule(path).register_forward_hook(keep(layer)) for layer, path in layers.items()]
    try:
        yield found
    finally:
        for call in calls:
            call.remove()


def by_attention(model: Any, inputs: dict[str, Any], causal: bool) -> tuple[Any, Any, Any]:
    """Return what is read of the last layer, and tokens' rollout and gradient x attention: (tokens,) each.

    `inputs` are of one text. What is read: positions whose state has a gradient of the top logit, alike, 1 in
    all. Rollout (Abnar and Zuidema 2020, https://arxiv.org/abs/2005.00928): the
    product over layers of rows (mean of heads + I), scaled to sum to 1. Gradient x attention (Chefer et al.
    2021, https://arxiv.org/abs/2103.15679): R = I, then R + mean of heads max(0, p dlogit/dp) R, layer by
    layer. Of both the rows that are read.
    """
    import torch

    from attnbench import apply, top_logit

    maps = Maps()
    with apply(model, maps), outputs(model) as states:
        logit = top_logit(model(**inputs), inputs, causal)
        layers = sorted(maps.found)
        last = states[layers[-1]]
        slopes = torch.autograd.grad(
            logit, [last, *(maps.found[layer] for layer in layers)], allow_unused=True
        )
    read = (slopes[0][0] != 0).any(-1).double()
    read = read / read.sum()
    one = torch.eye(len(read), dtype=torch.float64, device=read.device)
    flow, chain = one, one
    for layer, slope in zip(layers, slopes[1:], strict=True):
        probs = maps.found[layer].detach()[0].double()
        mixed = probs.mean(0) + one
        flow = (mixed / mixed.sum(-1, keepdim=True)) @ flow
        # what no answer is read from has no gradient
        weights = torch.zeros_like(probs) if slope is None else (probs * slope[0]).clamp(min=0)
        chain = chain + weights.mean(0) @ chain
    return read, read @ flow, read @ chain


def by_zeroed_values(model: Any, inputs: dict[str, Any], read: Any) -> Any:
    """Return each token's part by value zeroing, rolled out over layers: (tokens,), which sum to 1.

    C[q, k] = 1 - cos(output of q, output of q with the value of k set to zero in this layer's heads), each
    row scaled to sum to 1; of the product over layers the rows that are read. Source: Mohebbi et al. 2023,
    https://arxiv.org/abs/2301.12971. Differs: a token that nothing moves keeps itself.
    """
    import torch
    from torch.nn.functional import cosine_similarity

    from attnbench import apply

    count = len(read)
    copies = {key: value.expand(count, *value.shape[1:]) for key, value in inputs.items()}
    flow = torch.eye(count, dtype=torch.float64, device=read.device)
    with torch.no_grad(), outputs(model) as states:
        model(**inputs)
        plain = {layer: state[0].double() for layer, state in states.items()}
        for layer in sorted(plain):
            with apply(model, Zeroed(layers=(str(layer),))):
                model(**copies)
            moved = 1 - cosine_similarity(states[layer].double(), plain[layer][None], dim=-1).mT
            moved = moved.clamp(min=0)  # (queries, keys)
            total = moved.sum(-1, keepdim=True)
            alone = torch.eye(count, dtype=moved.dtype, device=moved.device)
            flow = torch.where(total > 0, moved / total.clamp(min=1e-300), alone) @ flow
    return read @ flow
