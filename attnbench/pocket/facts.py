"""Extractive QA: paragraphs tell the same few things of many people; a question asks for one fact."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

from attnbench.pocket.lexicon import COLOURS, FOODS, JOBS, MONTHS, NAMES, STUFFS, THINGS, TOWNS


@dataclass(frozen=True)
class Relation:
    """What can be said of a person: clauses and their form after the first, one turned round, questions."""

    name: str
    clauses: tuple[tuple[str, str], ...]  # ("{name} lives in {value}", "{name} in {value}")
    turned: str
    questions: tuple[str, ...]


RELATIONS = (
    Relation(
        "town",
        (
            ("{name} lives in {value}", "{name} in {value}"),
            ("{name} has a home in {value}", "{name} in {value}"),
            ("{name} moved to {value}", "{name} to {value}"),
        ),
        "{value} is the home of {name}",
        (
            "Where does {name} live?",
            "In which town does {name} live?",
            "What is the home of {name}?",
        ),
    ),
    Relation(
        "job",
        (
            ("{name} works as a {value}", "{name} as a {value}"),
            ("{name} became a {value}", "{name} a {value}"),
            ("{name} is known as a {value}", "{name} as a {value}"),
        ),
        "the {value} is {name}",
        (
            "What is the job of {name}?",
            "What does {name} work as?",
            "Which trade does {name} follow?",
        ),
    ),
    Relation(
        "thing",
        (
            ("{name} bought the {value}", "{name} the {value}"),
            ("{name} paid for the {value}", "{name} for the {value}"),
            ("{name} took the {value}", "{name} the {value}"),
        ),
        "the {value} was sold to {name}",
        (
            "What did {name} buy?",
            "What did {name} pay for?",
            "What was sold to {name}?",
        ),
    ),
    Relation(
        "month",
        (
            ("{name} was born in {value}", "{name} in {value}"),
            ("{name} has a birthday in {value}", "{name} in {value}"),
            ("{name} turned forty in {value}", "{name} in {value}"),
        ),
        "{value} is when {name} was born",
        (
            "When was {name} born?",
            "In which month was {name} born?",
            "When is the birthday of {name}?",
        ),
    ),
    Relation(
        "food",
        (
            ("{name} ate {value}", "{name} {value}"),
            ("{name} asked for {value}", "{name} for {value}"),
            ("{name} had a plate of {value}", "{name} of {value}"),
        ),
        "{value} went to {name}",
        (
            "What did {name} eat?",
            "Which food went to {name}?",
            "Which food did {name} ask for?",
        ),
    ),
    Relation(
        "pupil",
        (
            ("{name} teaches {value}", "{name} {value}"),
            ("{name} gives lessons to {value}", "{name} to {value}"),
            ("{name} has a pupil called {value}", "{name} one called {value}"),
        ),
        "{value} takes lessons from {name}",
        (
            "Whom does {name} teach?",
            "Who takes lessons from {name}?",
            "Who is the pupil of {name}?",
        ),
    ),
)


def values(rng: random.Random, relation: Relation, names: list[str], count: int) -> list[str]:
    """Draw `count` different answers of one to three words."""
    if relation.name == "pupil":
        shift = rng.randrange(1, len(names))
        return [names[(place + shift) % len(names)] for place in range(count)]
    if relation.name == "thing":
        return [
            " ".join(filter(None, (rng.choice(("", *COLOURS)), rng.choice(("", "", *STUFFS)), thing)))
            for thing in rng.sample(THINGS, count)
        ]
    if relation.name == "month":
        return [rng.choice(("", "early ", "late ")) + month for month in rng.sample(MONTHS, count)]
    return rng.sample({"town": TOWNS, "job": JOBS, "food": FOODS}[relation.name], count)


@dataclass
class Fact:
    """One clause of a paragraph: where its value and name begin in it, where it begins in the paragraph."""

    relation: Relation
    name: str
    value: str
    text: str = ""
    at: int = 0
    owner: int = 0
    start: int = 0


def sentences(rng: random.Random, facts: list[Fact], turned: float) -> list[list[Fact]]:
    """Word the facts of one relation in sentences of one to three clauses, the verb said once."""
    found = []
    while facts:
        size = rng.choice((1, 2, 2, 3, 3))
        group, facts = facts[:size], facts[size:]
        relation = group[0].relation
        forms = rng.choice(relation.clauses)
        if len(group) == 1 and rng.random() < turned:
            forms = (relation.turned, "")
        for place, fact in enumerate(group):
            form = forms[place > 0]
            fact.text = form.format(name=fact.name, value=fact.value)
            before, after = form.split("{value}")
            fact.at = len(before.format(name=fact.name))
            fact.owner = (
                0 if form.startswith("{name}") else len(before + fact.value + after.split("{name}")[0])
            )
        found.append(group)
    return found


def write(
    rng: random.Random, people: tuple[int, int] = (5, 8), relations: int = 4, turned: float = 0.4
) -> dict[str, Any]:
    """Write a paragraph and a question about one of its facts.

    Each of `relations` relations is told of `people` (fewest, most) people.
    The one span, with tag 1, covers the clause that answers; `owners` gives every value's start and end and
    where its person is named.
    """
    names = rng.sample(NAMES, people[1] + 1)
    groups = []
    for relation in rng.sample(RELATIONS, relations):
        rng.shuffle(names)
        count = rng.randint(*people)
        pairs = zip(names, values(rng, relation, names, count), strict=False)
        groups += sentences(rng, [Fact(relation, name, answer) for name, answer in pairs], turned)
    rng.shuffle(groups)
    text = ""
    for group in groups:
        text += " " if text else ""
        opening = len(text)
        for place, fact in enumerate(group):
            text += "" if place == 0 else " and " if place == len(group) - 1 else ", "
            fact.start = len(text)
            text += fact.text
        text = text[:opening] + text[opening].upper() + text[opening + 1 :] + "."
    fact = rng.choice(rng.choice(groups))
    start = fact.start + fact.at
    answer = text[start : start + len(fact.value)]
    return {
        "question": rng.choice(fact.relation.questions).format(name=fact.name),
        "context": text,
        "answers": {"text": [answer], "answer_start": [start]},
        "spans": [(fact.start, fact.start + len(fact.text), 1)],
        "owners": [
            (f.start + f.at, f.start + f.at + len(f.value), f.start + f.owner)
            for group in groups
            for f in group
        ],
    }
