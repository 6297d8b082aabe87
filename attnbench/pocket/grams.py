"""Baselines of the pocket tasks that are written: neighbouring words, bags of words, word for word."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

from attnbench.pocket import baselines

Words = tuple[str, ...]
MIXTURE = (0.6, 0.3, 0.09, 0.01)  # of three, two and one word, and of any word alike
SINGULAR = ("he", "himself")


class Trigrams:
    """A language model of three neighbouring words: p(w | u, v) = Σ λ_n p_n, relative frequencies mixed."""

    def __init__(self, texts: Sequence[str]) -> None:
        self.counts: Counter[Words] = Counter()
        for text in texts:
            found = spelled(text)
            for end in range(2, len(found)):
                for size in range(4):
                    self.counts[found[end - size + 1 : end + 1] if size else ()] += 1
        self.befores: Counter[Words] = Counter()
        for gram, count in self.counts.items():
            if gram:
                self.befores[gram[:-1]] += count
        self.size = 1 + sum(len(gram) == 1 for gram in self.counts)

    def log_likelihood(self, text: str) -> float:
        """Return the sum of the words' log-probabilities, the end's not among them."""
        found, total = spelled(text)[:-1], 0.0
        for end in range(2, len(found)):
            chance = MIXTURE[3] / self.size
            for share, size in zip(MIXTURE, (3, 2, 1), strict=False):
                gram = found[end - size + 1 : end + 1]
                chance += share * self.counts[gram] / max(1, self.befores[gram[:-1]])
            total += math.log(chance)
        return total


def spelled(text: str) -> Words:
    return ("<", "<", *baselines.words(text), ">")


def prefixes(pairs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Turn pairs into what comes before the word that differs, labelled 1 where a singular or he is right."""
    found = []
    for pair in pairs:
        good, bad = (pair[f"sentence_{side}"].split() for side in ("good", "bad"))
        at = next(n for n, (right, wrong) in enumerate(zip(good, bad, strict=True)) if right != wrong)
        word = good[at].strip(".,")
        label = word in SINGULAR if pair["kind"] == "pronoun" else word.endswith("s")
        found.append({"text": f"{pair['kind']} {' '.join(good[:at])}", "label": int(label)})
    return found


def word_for_word(train: Sequence[dict[str, Any]], sources: Sequence[str]) -> list[str]:
    """Translate each word by the one it shares most sentences with: 2 n(s, t) / (n(s) + n(t))."""
    here: Counter[str] = Counter()
    there: Counter[str] = Counter()
    both: Counter[tuple[str, str]] = Counter()
    for document in train:
        known, other = (set(document[side].lower().strip(".").split()) for side in ("source", "target"))
        here.update(known)
        there.update(other)
        both.update((a, b) for a in known for b in other)
    best: dict[str, tuple[float, str]] = {}
    for (a, b), count in sorted(both.items()):
        best[a] = max(best.get(a, (0.0, "")), (2 * count / (here[a] + there[b]), b))
    found = []
    for source in sources:
        words = (
            best.get(word, (0.0, word))[1] for word in source.lower().strip(".").split() if word != "the"
        )
        text = " ".join(words)
        found.append(f"{text[:1].upper()}{text[1:]}.")
    return found
