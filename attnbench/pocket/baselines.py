"""Bag-of-words baselines of the pocket tasks: what can be had without order and without attention."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from typing import Any

import torch

TRAINING = 5000


def words(text: str) -> list[str]:
    """Split "Ida's lamp." into ida, ', s, lamp and the full stop."""
    return re.findall(r"\w+|[^\w\s]", text.lower())


def sentiment(train: list[dict[str, Any]], test: list[dict[str, Any]]) -> float:
    """Return the accuracy of a logistic regression on word counts, l2-regularised."""
    known = {word: n for n, word in enumerate(sorted({w for d in train for w in words(d["text"])}))}

    def counts(documents: list[dict[str, Any]]) -> torch.Tensor:
        rows = torch.zeros(len(documents), len(known))
        for row, document in enumerate(documents):
            for word in words(document["text"]):
                if word in known:
                    rows[row, known[word]] += 1
        return rows

    features, labels = counts(train), torch.tensor([float(d["label"]) for d in train])
    weight, bias = torch.zeros(len(known), requires_grad=True), torch.zeros((), requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        logits = features @ weight + bias
        loss = (
            torch.nn.functional.binary_cross_entropy_with_logits(logits, labels)
            + 1e-3 * weight.square().sum()
        )
        loss.backward()
        return loss

    optimizer.step(closure)
    found = (counts(test) @ weight + bias > 0).long().tolist()
    return sum(label == d["label"] for label, d in zip(found, test, strict=True)) / len(test)


def qa(train: list[dict[str, Any]], test: list[dict[str, Any]]) -> float:
    """Return the exact match of the sentence that shares most words with the question.

    The answer is the sentence's first run of words that answer, in training, a question that differs in its
    capitalised words (the people) only.
    """

    def kind(question: str) -> str:
        first, *rest = question.split()
        return " ".join([first, *(word for word in rest if not word[0].isupper())])

    vocabulary: dict[str, Counter[str]] = defaultdict(Counter)
    for document in train:
        vocabulary[kind(document["question"])].update(words(document["answers"]["text"][0]))

    def guess(document: dict[str, Any]) -> str:
        asked, known = set(words(document["question"])), vocabulary[kind(document["question"])]
        ranked = sorted(document["context"].split(". "), key=lambda s: -len(asked & set(words(s))))
        for sentence in ranked:
            run: list[str] = []
            for word in re.findall(r"\w+|[^\w\s]", sentence):
                if word.lower() in known and word.lower() not in asked:
                    run.append(word)
                elif run:
                    break
            if run:
                return " ".join(run)
        return ""

    return sum(guess(d) == d["answers"]["text"][0] for d in test) / len(test)
