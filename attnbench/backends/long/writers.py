"""What is told and asked: numbers of towns, variables that follow one another, the commonest of words."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass

from attnbench.backends.long import filler
from attnbench.backends.long.contexts import Draft, Question

TOWNS = (
    "Oslo", "Lima", "Cairo", "Dublin", "Vienna", "Athens", "Rome", "Paris", "London", "Madrid", "Berlin",
    "Prague", "Lisbon", "Warsaw", "Geneva", "Kyoto",
)  # fmt: skip
DEPTHS = tuple(k / 9 for k in range(10))  # of what is asked for, one sample after the other
NEEDLES = 4  # of which one, or two, are asked for
CHAINS = 4
COMMON = 0.2  # of all words are the commonest one
LETTERS = "BCDFGHJKLMNPQRSTVWXZ"


@dataclass(frozen=True)
class Kind:
    """How a task's contexts are made: what is told, and the sentences around it."""

    draft: Callable[[random.Random, int, int], Draft]
    filler: Callable[[Draft, random.Random], str]


def _values(rng: random.Random, count: int) -> list[str]:
    return list(map(str, rng.sample(range(10_000, 100_000), count)))


def _of_town(town: str, value: str, fact: int) -> Question:
    said = f"The special number for {town} is"
    return Question(
        f"\n\nQuestion: What is the special number for {town}?\n", f"Answer: {said}", f" {value}", fact
    )


def _numbers(rng: random.Random, number: int, count: int, asked: int) -> Draft:
    """Tell the numbers of `count` towns, the first `asked` of which are asked for, at depths of the grid."""
    towns, values = rng.sample(TOWNS, count), _values(rng, count)
    apart = len(DEPTHS) // asked
    depths = [DEPTHS[(number + k * apart) % len(DEPTHS)] for k in range(asked)]
    depths += [rng.random() for _ in range(count - asked)]
    told = [f"The special number for {town} is {value}." for town, value in zip(towns, values, strict=True)]
    questions = [_of_town(towns[k], values[k], k) for k in range(asked)]
    return Draft(list(zip(told, depths, strict=True)), questions)


def needle(rng: random.Random, number: int, hops: int) -> Draft:
    """Tell a town's number and ask for it."""
    return _numbers(rng, number, 1, 1)


def needles(rng: random.Random, number: int, hops: int) -> Draft:
    """Tell the numbers of four towns and ask for one of them."""
    return _numbers(rng, number, NEEDLES, 1)


def two_questions(rng: random.Random, number: int, hops: int) -> Draft:
    """Tell the numbers of four towns and ask for two of them, half the grid apart."""
    return _numbers(rng, number, NEEDLES, 2)


def tracking(rng: random.Random, number: int, hops: int) -> Draft:
    """Tell the values of four variables, each handed on `hops` times, and ask for one of the last ones.

    What is handed on last stands at the depth of the grid, the rest of its chain anywhere, in any order.
    """
    names: set[str] = set()
    while len(names) < CHAINS * (hops + 1):
        names.add("".join(rng.sample(LETTERS, 3)))
    left = sorted(names)
    rng.shuffle(left)
    facts: list[tuple[str, float]] = []
    chains = [left[k::CHAINS] for k in range(CHAINS)]
    values = _values(rng, CHAINS)
    for chain, value in zip(chains, values, strict=True):
        links = [f"Variable {chain[0]} is {value}."]
        links += [f"Variable {new} is equal to variable {old}." for old, new in itertools.pairwise(chain)]
        facts = [(link, rng.random()) for link in reversed(links)] + facts
    asked = chains[-1][-1]
    facts[0] = (facts[0][0], DEPTHS[number % len(DEPTHS)])
    question = f"\n\nQuestion: What is the value of variable {asked}?\n"
    return Draft(facts, [Question(question, f"Answer: The value of variable {asked} is", f" {values[-1]}")])


def common_words(rng: random.Random, number: int, hops: int) -> Draft:
    """Ask which word a list has most often, that is one time in five."""
    word = rng.choice(filler.THINGS)
    question = "\n\nQuestion: Which word is the most common one in this list?\n"
    return Draft([], [Question(question, "Answer: The most common word in the list is", f" {word}", None)])


def _sentence(draft: Draft, rng: random.Random) -> str:
    return filler.sentence(rng)


def _word(draft: Draft, rng: random.Random) -> str:
    common = draft.questions[0].answer.strip()
    if rng.random() < COMMON:
        return common
    return rng.choice([word for word in filler.WORDS if word != common])


KINDS = {
    "needle": Kind(needle, _sentence),
    "needles": Kind(needles, _sentence),
    "two-questions": Kind(two_questions, _sentence),
    "tracking": Kind(tracking, _sentence),
    "common-words": Kind(common_words, _word),
}
