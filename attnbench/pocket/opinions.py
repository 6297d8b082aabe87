"""Sentiment: the label hangs on who speaks, what is negated, which clause and which aspect counts."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from typing import Any

from attnbench.pocket.lexicon import ASPECTS, PRAISE

DEGREES = {
    "really": 1.4,
    "very": 1.4,
    "quite": 1.0,
    "utterly": 1.6,
    "rather": 0.9,
    "slightly": 0.6,
    "somewhat": 0.6,
}
DENIALS = ("not", "never", "hardly", "by no means", "far from", "anything but")
DENIED = -0.9
STEEPNESS = 2.2
OTHERS = (
    "my brother",
    "my sister",
    "my neighbour",
    "my father",
    "my mother",
    "the critic",
    "my friend",
    "the reviewer",
    "my teacher",
    "my cousin",
    "my uncle",
    "the man behind me",
    "the woman next to me",
    "half the audience",
)
SELVES = ("I thought", "I found that", "I felt that", "to me", "in my view", "I must say that", "for me")
SAYS = ("thought", "said that", "felt that", "claimed that", "wrote that", "insisted that")
SCENES = (
    "We saw it on a rainy evening.",
    "I watched it with friends.",
    "I went on Friday.",
    "We had seats at the front.",
    "It was shown late at night.",
    "I saw it twice.",
    "The room was full.",
    "We stayed until the credits.",
)
FOCUSES = (
    "All I care about is the {}.",
    "What matters to me is the {}.",
    "I only came for the {}.",
    "I judge a film by its {}.",
    "For me it is all about the {}.",
    "The one thing I look for is the {}.",
)


@dataclass
class Clause:
    """One opinion: its words, the place of its opinion word in them, and what it says in the end."""

    text: str
    word: int
    score: float
    denied: bool


def clause(rng: random.Random, aspect: str) -> Clause:
    """Write "the plot was by no means very good"."""
    denial = rng.choice(DENIALS) if rng.random() < 0.4 else ""
    degree = (
        rng.choice(("really", "very", "quite") if denial else tuple(DEGREES)) if rng.random() < 0.5 else ""
    )
    strength = rng.choice(tuple(PRAISE))
    head = " ".join(part for part in (f"the {aspect} was", denial, degree) if part)
    score = strength * DEGREES.get(degree, 1.0) * (DENIED if denial else 1.0)
    return Clause(f"{head} {rng.choice(PRAISE[strength])}", len(head) + 1, score, bool(denial))


Sentence = list[tuple[str, Clause, bool]]  # lead, opinion, whether it decides the label


def contrast(rng: random.Random, main: Clause, aside: Clause) -> Sentence:
    """Join a main clause and a concession, in either order: the main clause decides."""
    concession = rng.choice(("although", "even though", "while"))
    return rng.choice(
        (
            [("", aside, False), (rng.choice((", but ", ", yet ", ", but in the end ")), main, True)],
            [(f"{concession} ", aside, False), (", ", main, True)],
            [("", main, True), (f", {concession} ", aside, False)],
            [("it is true that ", aside, False), (", but ", main, True)],
        )
    )


def hearsay(rng: random.Random, aside: Clause) -> Sentence:
    """Write what somebody else thinks, which never decides."""
    return [(f"{rng.choice(OTHERS)} {rng.choice(SAYS)} ", aside, False)]


def plan(rng: random.Random) -> tuple[list[Sentence | str], float]:
    """Choose the sentences of a review and their order; return them with the deciding score."""
    aspects = rng.sample(ASPECTS, 4)
    main, *asides = (clause(rng, aspect) for aspect in aspects)
    shape = rng.random()
    parts: list[Sentence | str]
    if shape < 0.35:
        parts = [contrast(rng, main, asides[0])]
        if rng.random() < 0.6:
            parts.append(hearsay(rng, asides[1]))
    elif shape < 0.65:
        lead = f"{rng.choice(SELVES)} "
        if rng.random() < 0.5:
            others = f"{rng.choice(OTHERS)} {rng.choice(SAYS)} "
            pair = [(lead, main, True), (f", but {others}", asides[0], False)]
            parts = [
                pair if rng.random() < 0.5 else [(others, asides[0], False), (f", but {lead}", main, True)]
            ]
        else:
            parts = [[(lead, main, True)], *(hearsay(rng, aside) for aside in asides[: rng.randint(1, 2)])]
    else:
        parts = [[("", main, True)], *([("", aside, False)] for aside in asides[: rng.randint(1, 2)])]
        rng.shuffle(parts)
        parts.insert(rng.choice((0, len(parts))), rng.choice(FOCUSES).format(aspects[0]))
        return parts, main.score
    parts += rng.sample(SCENES, rng.randint(1, 2))
    rng.shuffle(parts)
    return parts, main.score


def write(rng: random.Random) -> dict[str, Any]:
    """Write a review and draw its label as an annotator would: P(positive) = 1 / (1 + exp(-2.2 score)).

    A span covers an opinion word: tag 1, plus 1 if denied, 2 if positive after that, 4 if it decides.
    `clauses` are likewise 1, or 2 where they decide.
    """
    parts, score = plan(rng)
    text, spans, clauses = "", [], []
    for part in parts:
        start = len(text) + bool(text)
        text += " " if text else ""
        for lead, opinion, decides in [] if isinstance(part, str) else part:
            word = len(text) + len(lead) + opinion.word
            clauses.append((len(text), len(text) + len(lead) + len(opinion.text), 1 + decides))
            text += lead + opinion.text
            spans.append((word, len(text), 1 + opinion.denied + 2 * (opinion.score > 0) + 4 * decides))
        text += part if isinstance(part, str) else "."
        text = text[:start] + text[start].upper() + text[start + 1 :]
    label = int(rng.random() < 1 / (1 + math.exp(-STEEPNESS * score)))
    return {"text": text, "label": label, "spans": spans, "clauses": clauses}
