"""Rows of attention probabilities of every character."""

from __future__ import annotations

import torch

ROWS = ("random", "peaked", "one-hot", "constant", "zeros", "ties", "edges")


def rows_of(kind: str, queries: int, keys: int, seed: int) -> torch.Tensor:
    """Make probabilities (queries, keys) of one character."""
    draw = torch.Generator().manual_seed(seed)
    scores = torch.randn(queries, keys, generator=draw)
    if kind == "one-hot":
        return torch.nn.functional.one_hot(scores.argmax(-1), keys).float()
    if kind == "constant":
        return torch.full((queries, keys), 1 / keys)
    if kind == "ties":
        return (torch.softmax(3 * scores, -1) * 20).round() / 20
    if kind == "edges":
        return 10.0 ** -(torch.randint(0, 22, (queries, keys), generator=draw) / 7)
    return torch.softmax(scores * {"random": 1, "peaked": 6, "zeros": 60}[kind], -1)
