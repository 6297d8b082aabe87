"""SQuAD's metrics against cases worked out by hand, and against a slow reference."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attnbench.backends import squad


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The Denver Broncos", "denver broncos"),
        ("an   apple, a day!", "apple day"),
        ("U.S.A.", "usa"),
        ("theatre another", "theatre another"),  # articles go as whole words only
        ("24–10", "24–10"),  # only ASCII punctuation is punctuation
        ("$1.5 million", "15 million"),
        ("a the an", ""),
        ("Levi's Stadium\n", "levis stadium"),
        ("the-end", "theend"),  # punctuation goes before the articles do
    ],
)
def test_normalisation(text, expected):
    assert squad.normalize(text) == expected


@pytest.mark.parametrize(
    ("answer", "golds", "exact", "f1"),
    [
        ("the Broncos", ["Denver Broncos", "Broncos"], 1, 1),
        ("Denver", ["Denver Broncos", "the Denver Broncos"], 0, 2 / 3),
        ("Santa Clara, California", ["Santa Clara"], 0, 0.8),
        ("b b c", ["b c c"], 0, 2 / 3),  # repeats count as often as both sides have them
        ("gold", ["silver", "bronze"], 0, 0),
        ("", ["silver"], 0, 0),
        ("The", ["silver", "a"], 1, 0),  # nothing left on either side: the same text, no token shared
    ],
)
def test_the_best_over_the_gold_answers(answer, golds, exact, f1):
    assert squad.best(squad.exact, answer, golds) == exact
    assert squad.best(squad.f1, answer, golds) == pytest.approx(f1)


WORDS = st.lists(st.sampled_from(["the", "a", "cat", "Cat", "dog.", "1,000", "x"]), max_size=6).map(" ".join)


@given(WORDS, WORDS)
def test_f1_pairs_off_equal_tokens(answer, gold):
    def tokens(text):
        kept = "".join(letter for letter in text.lower() if letter not in string.punctuation)
        return [word for word in kept.split() if word not in ("a", "an", "the")]

    left, shared = tokens(gold), 0
    for token in tokens(answer):
        if token in left:
            left.remove(token)
            shared += 1
    total = len(tokens(answer)) + len(tokens(gold))
    assert squad.f1(answer, gold) == pytest.approx(2 * shared / total if shared else 0)
    assert squad.f1(answer, gold) == pytest.approx(squad.f1(gold, answer))
    assert squad.exact(answer, gold) == float(tokens(answer) == tokens(gold))
