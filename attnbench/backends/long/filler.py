"""Plain English sentences without a number, a name or a town, from a seeded generator."""

from __future__ import annotations

import random


def _words(text: str) -> list[str]:
    return text.split()


TRAITS = _words("old young quiet tall kind busy tired happy careful strange clever patient")
PEOPLE = _words(
    "baker farmer teacher doctor sailor painter nurse judge gardener clerk miller tailor porter guard singer "
    "poet"
)
DEEDS = _words("carried cleaned painted found lost sold bought repaired moved hid opened counted")
COLOURS = _words("red blue green brown white black yellow grey")
THINGS = _words(
    "lamp chair clock basket mirror drum ladder kettle bottle carpet table window coat boat bell book"
)
PLACES = (
    "in the garden", "near the river", "behind the house", "on the hill", "by the old bridge",
    "at the market", "in the kitchen", "under the roof", "beside the road", "at the station",
)  # fmt: skip
TIMES = (
    "in the morning", "before noon", "after lunch", "late at night", "on Monday", "in the spring",
    "last week", "every day", "for an hour", "again",
)  # fmt: skip
WORDS = (*TRAITS, *PEOPLE, *DEEDS, *COLOURS, *THINGS)


def sentence(rng: random.Random) -> str:
    """Write "The old baker carried the red lamp near the river before noon.": one of 29 million."""
    who = f"{rng.choice(TRAITS)} {rng.choice(PEOPLE)}"
    what = f"{rng.choice(COLOURS)} {rng.choice(THINGS)}"
    return f"The {who} {rng.choice(DEEDS)} the {what} {rng.choice(PLACES)} {rng.choice(TIMES)}."
