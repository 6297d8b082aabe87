"""Sentiment: a review lists many short opinions; what its writer says himself, summed, is the label."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from typing import Any

from attnbench.pocket.lexicon import ASPECTS, PRAISE

DEGREES = {"really": 1.4, "very": 1.4, "utterly": 1.6, "rather": 0.8, "slightly": 0.6, "somewhat": 0.6}
DENIALS = ("not", "never", "hardly", "far from", "anything but")
SHARE = 0.5  # of opinions that are denied: a word alone says nothing
STEEPNESS = 2.2
STRENGTH = 1.8  # of an opinion, on average
OTHERS = (
    *("my brother", "my sister", "my neighbour", "my father", "my mother", "my friend", "my teacher"),
    *("my cousin", "my uncle", "the critic", "the reviewer", "the man behind me", "the woman next to me"),
    "half the audience",
)
SELVES = ("I found", "I thought", "I called", "I must call", "for me", "to me", "in my view", "as I see it")
SAYS = ("found", "thought", "called")
LINKING = ("for me", "to me", "in my view", "as I see it", "")
CONCESSIONS = ("although", "even though", "while")
SIZES = (2, 3, 3, 4)


@dataclass
class Clause:
    """One opinion: its words, the place of its opinion word in them, and what it says in the end."""

    subject: str
    predicate: str
    word: int  # in the predicate
    score: float
    denied: bool


def clause(rng: random.Random, aspect: str) -> Clause:
    """Write "the plot" and "by no means very good"."""
    denial = rng.choice(DENIALS) if rng.random() < SHARE else ""
    degree = rng.choice(("really", "very") if denial else tuple(DEGREES)) if rng.random() < 0.25 else ""
    strength = rng.choice(tuple(PRAISE))
    head = "".join(f"{part} " for part in (denial, degree) if part)
    score = strength * DEGREES.get(degree, 1.0) * (-1.0 if denial else 1.0)
    return Clause(f"the {aspect}", head + rng.choice(PRAISE[strength]), len(head), score, bool(denial))


Sentence = list[tuple[str, Clause, bool, bool]]  # lead, opinion, with a verb, whether it decides the label


def listed(lead: str, opinions: list[Clause], decides: bool) -> Sentence:
    """Join opinions in one sentence: "I found the plot dull, the music not bad and the title great"."""
    joints = [f"{lead} " if lead else "", *(", " for _ in opinions[2:]), " and "]
    return [
        (joint, opinion, place == 0 and lead in LINKING, decides)
        for place, (joint, opinion) in enumerate(zip(joints, opinions, strict=False))
    ]


def plan(rng: random.Random, *counts: tuple[int, int]) -> tuple[list[Sentence], float]:
    """Choose the sentences of a review and their order; return them with the sum of what decides."""
    own, others, conceded = (
        [clause(rng, aspect) for aspect in rng.sample(ASPECTS, rng.randint(*count))] for count in counts
    )
    score = sum(opinion.score for opinion in own)
    sentences = []
    while own:
        size = rng.choice(SIZES)
        lead = rng.choice(SELVES) if rng.random() < 0.4 else ""
        sentence, own = listed(lead, own[:size], True), own[size:]
        if conceded and lead == "":
            aside, word = conceded.pop(), rng.choice(CONCESSIONS)
            if rng.random() < 0.5:
                (_, first, verb, decides), *rest = sentence
                sentence = [(f"{word} ", aside, True, False), (", ", first, verb, decides), *rest]
            else:
                sentence.append((f", {word} ", aside, True, False))
        sentences.append(sentence)
    for opinion in others:
        sentences.append(listed(f"{rng.choice(OTHERS)} {rng.choice(SAYS)}", [opinion], False))
    rng.shuffle(sentences)
    return sentences, score


def write(
    rng: random.Random,
    own: tuple[int, int] = (14, 20),
    others: tuple[int, int] = (1, 4),
    conceded: tuple[int, int] = (0, 2),
) -> dict[str, Any]:
    """Write a review and draw its label as an annotator would: P(positive) = 1 / (1 + exp(-2.2 score)).

    It has `own` opinions (fewest, most) of its writer, `others` of other people and `conceded` ones; only
    the first decide: their scores are summed.
    A span covers an opinion word: tag 1, plus 1 if denied, 2 if positive after that, 4 if it decides.
    `clauses` are likewise 1, or 2 where they decide; `worths` tell what a word adds to the sum; `total` is
    the sum, about 1 long.
    """
    sentences, score = plan(rng, own, others, conceded)
    text, spans, clauses, worths = "", [], [], []
    for sentence in sentences:
        text += " " if text else ""
        start = len(text)
        for lead, opinion, verb, decides in sentence:
            text += lead
            begin = len(text)
            text += opinion.subject + (" was " if verb else " ")
            word = len(text) + opinion.word
            text += opinion.predicate
            clauses.append((begin, len(text), 1 + decides))
            worths.append((word, len(text), opinion.score * decides / STRENGTH))
            spans.append((word, len(text), 1 + opinion.denied + 2 * (opinion.score > 0) + 4 * decides))
        text = text[:start] + text[start].upper() + text[start + 1 :] + "."
    label = int(rng.random() < 1 / (1 + math.exp(-STEEPNESS * score)))
    total = score / (STRENGTH * sum(span[2] > 4 for span in spans) ** 0.5)
    marks = {"spans": spans, "clauses": clauses, "worths": worths}
    return {"text": text, "label": label, **marks, "total": total}
