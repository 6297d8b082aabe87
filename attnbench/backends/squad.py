"""SQuAD v1.1's official metrics: exact match and token F1 after normalisation, best over the gold answers."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(a|an|the)\b")


def normalize(text: str) -> str:
    """Lower the case, drop ASCII punctuation, then the articles, and join what is left with single spaces."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def exact(answer: str, gold: str) -> float:
    """Return 1.0 where both are the same text after normalisation."""
    return float(normalize(answer) == normalize(gold))


def f1(answer: str, gold: str) -> float:
    """Return 2·precision·recall / (precision + recall) over the shared tokens, counted with repeats."""
    said, meant = normalize(answer).split(), normalize(gold).split()
    shared = sum((Counter(said) & Counter(meant)).values())
    if not shared:
        return 0.0
    precision, recall = shared / len(said), shared / len(meant)
    return 2 * precision * recall / (precision + recall)


def best(metric: Callable[[str, str], float], answer: str, golds: Sequence[str]) -> float:
    """Return the maximum of a metric over the gold answers."""
    return max(metric(answer, gold) for gold in golds)
