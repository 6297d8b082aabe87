"""Language: documents whose later words follow from earlier ones, and pairs that differ in one word."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from zlib import crc32

from attnbench.pocket.lexicon import words

PEOPLE = words("baker judge teacher doctor farmer pilot singer painter nurse guard sailor poet")
THINGS = words("lamp chair boat clock basket mirror drum ladder kettle bottle ring carpet")
COLOURS = words("black blue brown green grey pink red white yellow")
FOODS = words("apples beans cherries eggs grapes lemons nuts olives onions pears peas plums")
TOWNS = words("Athens Bergen Cairo Dublin Essen Geneva Kyoto Lima Oslo Paris Rome Vienna")
NAMES = {
    "she": words("Anna Clara Emma Flora Hanna Ida Julia Lena Nora Rosa"),
    "he": words("Adam Bruno Carl David Erik Frank Jonas Leo Oscar Paul"),
}
SELVES = {"she": "herself", "he": "himself"}
NEAR = words("near behind beside above below")
DEEDS = words("admire follow visit thank know help blame praise greet trust")  # take an object
STATES = words("sing sleep laugh wait smile dance")
TRAITS = words("old new small tall clean quiet strange lovely")
TIMES = words("today now often here again")
LATER = ("Later", "Then", "One day", "In the end")
OTHER = 0.68  # of the nouns after a noun are of the other number
WORDS = (36, 84)
# how many others may be named between a noun and its verb
HEAVY = {"document": (0, 1, 1, 1, 2, 2, 2, 2, 3, 3, 4), "pair": (2, 3, 4, 5)}

Pair = tuple[str, str]  # a word as it has to be, and the one it must not be
Part = str | Pair


@dataclass(frozen=True)
class Noun:
    """A noun phrase: words and far verbs, whether it is plural, how many nouns come after the first."""

    parts: tuple[Part, ...]
    plural: bool
    heavy: int = 0


def verb(stem: str, plural: bool) -> str:
    """Inflect: visit, visits."""
    return stem if plural else f"{stem}s"


def be(plural: bool, past: bool = False) -> str:
    return ("were" if plural else "was") if past else ("are" if plural else "is")


def forms(stem: str, plural: bool) -> Pair:
    return verb(stem, plural), verb(stem, not plural)


def noun(rng: random.Random, person: bool | None = None, plural: bool | None = None) -> Noun:
    """Write "the lamps", sometimes with an adjective."""
    person = rng.random() < 0.5 if person is None else person
    plural = rng.random() < 0.5 if plural is None else plural
    trait = f"{rng.choice(TRAITS)} " if rng.random() < 0.15 else ""
    return Noun((f"the {trait}{rng.choice(PEOPLE if person else THINGS)}{'s' * plural}",), plural)


def phrase(rng: random.Random, person: bool, plural: bool, heavy: int) -> Noun:
    """Write a noun and up to `heavy` more: after a preposition, or in a relative clause, which comes last."""
    parts: list[Part] = [*noun(rng, person, plural).parts]
    left = heavy

    def another() -> Noun:
        return noun(rng, None, plural ^ (rng.random() < OTHER))

    while left:
        form = rng.random()
        if form < 0.5 or (form >= 0.75 and not person):
            parts += [rng.choice(NEAR), *another().parts]
            left -= 1
            if left and rng.random() < 0.15:
                parts += ["and", *another().parts]
                left -= 1
        elif form < 0.75:  # the one who acts is the other noun
            inner = phrase(rng, True, another().plural, rng.randint(0, left - 1))
            said = forms(rng.choice(DEEDS), inner.plural)
            parts += ["that", *inner.parts, said if inner.heavy else said[0]]
            return Noun(tuple(parts), plural, heavy - left + 1 + inner.heavy)
        else:
            parts += ["that", verb(rng.choice(DEEDS), plural), *another().parts]
            return Noun(tuple(parts), plural, heavy - left + 1)
    return Noun(tuple(parts), plural, heavy)


def claim(rng: random.Random, heavy: int) -> tuple[Part, ...]:
    """Write a sentence about a noun far from its verb, `heavy` others at most between them."""
    person = rng.random() < 0.6
    subject = phrase(rng, person, rng.random() < 0.5, heavy)
    right = subject.plural
    front: tuple[Part, ...] = ()
    more: tuple[Part, ...] = ()
    if heavy and rng.random() < 0.12:
        right, more = True, ("and", *noun(rng, person).parts)
    if rng.random() < 0.3:
        front = (rng.choice(NEAR), *noun(rng).parts, ",")
    form = rng.random()
    rest: Part = rng.choice(TRAITS)
    if form < 0.35 or not person:
        past = rng.random() < 0.5
        said = be(right, past), be(not right, past)
        rest = rest if person or rng.random() < 0.5 else rng.choice(COLOURS)
    elif form < 0.6:
        said, rest = forms(rng.choice(STATES), right), rng.choice(TIMES)
    elif form < 0.85:
        said, rest = forms(rng.choice(DEEDS), right), noun(rng).parts[0]
    else:
        said = ("have", "has") if right else ("has", "have")
        rest = f"{rng.choice(('many', 'some', 'no'))} {rng.choice(THINGS)}s"
    return (*front, *subject.parts, *more, said, rest)


def thought(rng: random.Random, heavy: int) -> tuple[Part, ...]:
    """Write what somebody says or does, of herself or himself, another person mostly named in between."""
    sex, other = rng.sample(("she", "he"), 2)
    name = rng.choice(NAMES[sex])
    parts: tuple[Part, ...] = ()
    if heavy:
        aside = rng.choice(NAMES[other if rng.random() < OTHER else sex])
        does = verb(rng.choice(DEEDS), False)
        parts = rng.choice(((", who", does, aside, ","), (", whom", aside, does, ",")))
    if rng.random() < 0.5:
        return name, *parts, "says that", (sex, other), verb(rng.choice(DEEDS), False), noun(rng).parts[0]
    return name, *parts, verb(rng.choice(DEEDS), False), (SELVES[sex], SELVES[other]), rng.choice(TIMES)


def sentence(rng: random.Random, residues: Sequence[int], heavy: Sequence[int]) -> tuple[Part, ...]:
    """Write a claim or a thought of a split, which is what the checksum of its words before the verb says."""
    while True:
        parts = (claim if rng.random() < 0.8 else thought)(rng, rng.choice(heavy))
        last = max(place for place, part in enumerate(parts) if isinstance(part, tuple))
        if crc32(join(parts[:last]).encode()) % 4 in residues:
            return parts


def join(parts: Sequence[Part], wrong: int | None = None) -> str:
    """Write parts as a sentence, the verb at place `wrong` as it must not be."""
    words = (part if isinstance(part, str) else part[place == wrong] for place, part in enumerate(parts))
    text = " ".join(words).replace(" ,", ",")
    return f"{text[0].upper()}{text[1:]}."


def pair(rng: random.Random, residues: Sequence[int] = (3,)) -> dict[str, Any]:
    """Write two sentences that differ in a verb's number or a pronoun's gender: the first one is right."""
    parts = sentence(rng, residues, HEAVY["pair"])
    place = rng.choice([place for place, part in enumerate(parts) if isinstance(part, tuple)])
    return {
        "sentence_good": join(parts),
        "sentence_bad": join(parts, place),
        "kind": "pronoun" if parts[place][0] in (*SELVES, *SELVES.values()) else "verb",
    }


def person(rng: random.Random, name: str, sex: str, job: str) -> list[tuple[str, Callable[[], str]]]:
    """Tell facts of a person: what is said first, and a writer of what repeats it later."""
    town, thing, colour, food = (rng.choice(each) for each in (TOWNS, THINGS, COLOURS, FOODS))
    she = sex.capitalize()
    return [
        (
            f"{name} is a {job} from {town}.",
            lambda: rng.choice((f"{name} came from {town}.", f"The {job} from {town} was {name}.")),
        ),
        (
            rng.choice((f"{name} has a {colour} {thing}.", f"{she} has a {colour} {thing}.")),
            lambda: rng.choice(
                (f"The {thing} of {name} was {colour}.", f"The {colour} {thing} was from {name}.")
            ),
        ),
        (
            rng.choice((f"{name} likes {food}.", f"{she} likes {food}.")),
            lambda: rng.choice((f"{name} ate the {food}.", f"The {food} were for {name}.")),
        ),
    ]


def document(rng: random.Random, residues: Sequence[int] = (3,)) -> dict[str, Any]:
    """Write claims and thoughts, facts of two people and some of the same facts again: 40 to 100 words."""
    told: list[str] = []
    again: list[Callable[[], str]] = []
    for job in rng.sample(PEOPLE, 2):
        sex = rng.choice(tuple(NAMES))
        first, *others = person(rng, rng.choice(NAMES[sex]), sex, job)
        chosen = [first, *rng.sample(others, rng.randint(0, 2))]
        told.append(" ".join(text for text, _ in chosen))
        again += [repeat for _, repeat in chosen]
    repeats = [write() for write in rng.sample(again, min(len(again), rng.randint(1, 3)))]
    if rng.random() < 0.5:
        repeats[0] = f"{rng.choice(LATER)}, {repeats[0].replace('The ', 'the ', 1)}"
    parts = [*told, *repeats]
    goal = rng.randint(*WORDS)
    while len(" ".join(parts).split()) < goal:
        parts.insert(rng.randint(0, len(parts)), join(sentence(rng, residues, HEAVY["document"])))
    return {"text": " ".join(parts)}
