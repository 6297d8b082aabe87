"""Words and the tokens that they are split into: which belong together, and attention between words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

Span = tuple[int, int]


def aligned(text: str, words: Sequence[Span | None], offsets: Sequence[Span]) -> list[tuple[int, ...]]:
    """List the tokens of every word, by the characters both stand at; none for a word that has none alone.

    A token belongs to a word where they share a character that is no space. A token of several words ("don"
    of "do" and "n't") leaves each of them without tokens: what attends to it attends to no one of them. So
    does a word whose characters are unknown (None).
    """
    found: list[tuple[int, ...]] = [()] * len(words)
    owners: list[list[int]] = []
    for start, stop in offsets:
        inked = [at for at in range(start, stop) if not text[at].isspace()]
        first, last = (inked[0], inked[-1] + 1) if inked else (0, 0)
        owners.append([k for k, span in enumerate(words) if span and span[0] < last and first < span[1]])
    for word in range(len(words)):
        tokens = tuple(token for token, mine in enumerate(owners) if word in mine)
        if all(len(owners[token]) == 1 for token in tokens):
            found[word] = tokens
    return found


def sums_and_means(words: Sequence[tuple[int, ...]], tokens: int) -> tuple[Tensor, Tensor]:
    """Make what turns attention between tokens into attention between words, (words, tokens) each.

    The first has 1 at a word's tokens (for keys: attention to a split word is the sum), the second 1 / their
    number (for queries: attention from it is the mean). A word without tokens has zeros.
    """
    import torch

    sums = torch.zeros(len(words), tokens)
    for word, mine in enumerate(words):
        sums[word, list(mine)] = 1
    return sums, sums / sums.sum(1, keepdim=True).clamp(min=1)


def between_words(weights: Tensor, of: Tensor, to: Tensor) -> Tensor:
    """Sum weights (heads, queries, keys) to words and average them from words: (heads, words, words).

    w[a, b] = mean over the tokens q of a of the sum over the tokens k of b of p[q, k]. `of` is (words,
    queries), `to` (words, keys). Source: Clark et al. 2019, section 3, https://arxiv.org/abs/1906.04341.
    """
    return of.to(weights) @ weights @ to.to(weights).mT
