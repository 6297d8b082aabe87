"""Translation into a made-up language: verbs last, adjectives after nouns, agreement, choices by context."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

from attnbench.pocket.language import COLOURS, DEEDS, NAMES, NEAR, PEOPLE, STATES, THINGS, TIMES, TRAITS, verb
from attnbench.pocket.lexicon import words

COUNTS = words("two three many some")
BOTH = DEEDS[:5]  # one verb for people, another for things
ONSETS, VOWELS = words("b d f g k l m n p r s t v z"), words("a e i o u")


def coin() -> dict[str, str]:
    """Make up a stem for every word: three or four letters, no two alike and none an English word here."""
    rng = random.Random("attnbench pocket lexicon")
    stems: dict[str, str] = {}
    known = (*PEOPLE, *THINGS, *COLOURS, *TRAITS, *COUNTS, *NEAR, *DEEDS, *STATES, *TIMES)
    for word in (*known, *(f"{deed} it" for deed in BOTH)):
        while word not in stems:
            stem = "".join(rng.choice(letters) for letters in (ONSETS, VOWELS, ONSETS))
            stem = rng.choice(VOWELS) + stem if rng.random() < 0.3 else stem
            if stem not in stems.values() and stem not in known:
                stems[word] = stem
    return stems


STEMS = coin()
GENDERS = {word: "ao"[place % 2] for place, word in enumerate((*PEOPLE, *THINGS))}


@dataclass(frozen=True)
class Phrase:
    """A noun phrase in both languages, with what its verb and its adjectives agree with."""

    source: str
    target: str
    plural: bool
    person: bool
    gender: str


def ending(gender: str, plural: bool) -> str:
    return gender + "n" * plural


def phrase(rng: random.Random, person: bool | None = None, depth: int = 2) -> Phrase:
    """Write "the red lamps near the baker", "basko-r lampan redan": modifiers follow, places go first."""
    person = rng.random() < 0.5 if person is None else person
    if person and rng.random() < 0.2:
        sex = rng.choice(tuple(NAMES))
        name = rng.choice(NAMES[sex])
        return Phrase(name, name, False, True, "ao"[sex == "he"])
    word, plural = rng.choice(PEOPLE if person else THINGS), rng.random() < 0.5
    gender = GENDERS[word]
    end = ending(gender, plural)
    source, target = [word + "s" * plural], [STEMS[word] + end]
    for described in rng.choice(((), (TRAITS,), (TRAITS,) if person else (TRAITS, COLOURS))):
        trait = rng.choice(described)
        source.insert(len(source) - 1, trait)
        target.append(STEMS[trait] + end)
    count = rng.choice(COUNTS) if plural and rng.random() < 0.4 else ""
    source.insert(0, count or "the")
    target += [STEMS[count]] if count else []
    if depth and rng.random() < 0.4:
        if person and rng.random() < 0.4:
            deed, other = rng.choice(DEEDS), phrase(rng, depth=0)
            source += ["that", verb(deed, plural), other.source]
            target += [
                "ke" if rng.random() < 0.7 else "ki",
                accusative(other),
                act(deed, other) + conjugation(plural, gender, False),
            ]
        else:
            place, other = rng.choice(NEAR), phrase(rng, depth=depth - 1)
            source += [place, other.source]
            target = [other.target, STEMS[place], *target]
    return Phrase(" ".join(source), " ".join(target), plural, person, gender)


def accusative(other: Phrase) -> str:
    return f"{other.target} {'mi' if other.person else 'mo'}"


def act(deed: str, other: Phrase) -> str:
    return STEMS[deed if other.person or deed not in BOTH else f"{deed} it"]


def conjugation(plural: bool, gender: str, past: bool) -> str:
    return ("ul" if past else "") + ("e" if gender == "a" else "i") + ("s" if plural else "")


def write(rng: random.Random) -> dict[str, Any]:
    """Write a sentence and its translation; a time word mostly goes first there, a denial with the verb."""
    subject = phrase(rng, True)
    time = rng.choice(TIMES) if rng.random() < 0.5 else ""
    denied, past = rng.random() < 0.25, False
    if rng.random() < 0.75:
        deed, other = rng.choice(DEEDS), phrase(rng)
        stem, rest, complement = act(deed, other), [other.source], [accusative(other)]
    else:
        deed = rng.choice(STATES)
        stem, rest, complement = STEMS[deed], [], []
    past = rng.random() < 0.4
    if denied:
        helper = "did" if past else "do" if subject.plural else "does"
        said = f"{helper} not {deed}"
    else:
        said = f"{deed}{'d' if deed.endswith('e') else 'ed'}" if past else verb(deed, subject.plural)
    if past and not denied and deed in IRREGULAR:
        said = IRREGULAR[deed]
    source = " ".join(filter(None, (subject.source, said, *rest, time)))
    done = stem + conjugation(subject.plural, subject.gender, past) + ("no" if denied else "")
    when = [STEMS[time]] if time else []
    early = rng.random() < 0.8
    target = " ".join([*(when if early else []), subject.target, *complement, *([] if early else when), done])
    return {"source": f"{source[0].upper()}{source[1:]}.", "target": f"{target[0].upper()}{target[1:]}."}


IRREGULAR = {"know": "knew", "sing": "sang", "sleep": "slept"}
