"""How a budget is shared among the heads of a layer, or among layers.

`scores` (key-value heads, tokens) are of a prompt of n tokens, `protected` (tokens,) says which r of them
stay in any case, k is how many a head keeps on average.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from attnbench_plugins.caches.evict import best

if TYPE_CHECKING:
    from torch import Tensor

SAFE = 5  # one fifth of a head's budget is its own: alpha = 0.2 of AdaKV
BETA = 20  # of PyramidKV: the smallest budget is one twentieth


def adakv(scores: Tensor, protected: Tensor, k: int) -> Tensor:
    """Share a layer's budget by where its best scores are, as AdaKV's code does.

    Of the H (k - r) best scores that are not protected, a_g are head g's: it keeps its round(0.8 a_g +
    floor(0.2 (k - r))) best, beside what is protected. Source: https://arxiv.org/abs/2407.11550.
    """
    import torch

    heads, free = len(scores), k - int(protected.sum())
    open_ = scores.masked_fill(protected, float("-inf")).flatten()
    order = open_.argsort(dim=-1, descending=True, stable=True)[: heads * free]
    owned = torch.bincount(order // scores.shape[1], minlength=heads)
    counts = (owned.double() * (SAFE - 1) / SAFE + free // SAFE).round()
    return best(scores, protected, counts[:, None])


def safeguard(scores: Tensor, protected: Tensor, k: int) -> Tensor:
    """Share a layer's budget by where its best scores are, as kvpress's AdaKV does.

    Each head keeps its floor(0.2 k) best; the rest of the H k goes to the best of all heads together.
    Protected tokens score highest. Source: https://github.com/NVIDIA/kvpress (AdaKVPress).
    """
    import torch

    top = scores.masked_fill(protected, float("inf"))
    order = top.argsort(dim=-1, descending=True, stable=True)
    top = top.masked_fill(order.argsort(-1) < k // SAFE, float("inf"))
    every = top.flatten().argsort(dim=-1, descending=True, stable=True)
    return torch.zeros_like(top, dtype=torch.bool).flatten().index_fill_(
        0, every[: len(scores) * k], True
    ).view(top.shape)  # fmt: skip


def pyramidkv(n: int, r: int, k: int, rank: int, layers: int) -> int:
    """Return how many tokens a layer's heads keep beside the r protected ones: less in higher layers.

    B = k - r, min = floor(B / 20), max = 2 B - min; where max >= n - r: max = n - r, min = 2 B - max. The
    layer of this rank, from 0, keeps floor(max - rank (max - min) / (layers - 1)); what the floors lose goes,
    one token each, to the lowest layers whose exact value was no integer. B where there is one layer, B = 0
    or n < 2 B. Source: the code of https://arxiv.org/abs/2406.02069. Differs: its step is an integer, so that
    the mean is not k.
    """
    budget = k - r
    if flat(n, r, k, layers):
        return budget
    low = budget // BETA
    high = 2 * budget - low
    if high >= n - r:
        high, low = n - r, 2 * budget - (n - r)
    exact = [(high * (layers - 1) - place * (high - low)) for place in range(layers)]
    whole = [value // (layers - 1) for value in exact]
    lost = layers * budget - sum(whole)
    broken = [place for place, value in enumerate(exact) if value % (layers - 1)]
    return whole[rank] + (rank in broken[:lost])


def flat(n: int, r: int, k: int, layers: int) -> bool:
    """Tell whether `pyramidkv` is the even budget."""
    return layers == 1 or k == r or n < 2 * (k - r)
