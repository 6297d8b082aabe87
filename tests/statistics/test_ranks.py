"""Ranks by resampling: against the normal quantile, by hand, and their coverage by simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sample_records import right

from attnbench.statistics.ranks import ranks


@pytest.mark.parametrize("flips", range(1, 12))
def test_two_methods_are_apart_where_the_normal_test_says(flips):
    """Of two methods the quantile is 1.96; `flips` samples one way, with one invented each way."""
    z = flips / math.sqrt(flips + 2)
    found = ranks("mean", [[right(300, 20)], [right(300, 20 + flips)]])
    assert found == ([(1, 1), (2, 2)] if z > 1.96 else [(1, 2), (1, 2)])


def test_equal_methods_are_tied_and_a_far_one_is_not():
    found = ranks("mean", [[right(300, 20)], [right(300, 20)], [right(300, 150)], [right(300, 20, 40)]])
    assert found == [(1, 3), (1, 3), (4, 4), (1, 3)]


def test_lower_is_better_turns_the_ranks_round():
    rng = np.random.default_rng(0)
    texts = np.stack([-rng.uniform(20, 30, 200), np.full(200, 9.0)], 1)
    worse = texts * [1.2, 1]
    assert ranks("perplexity", [[texts], [worse]], higher_is_better=False) == [(1, 1), (2, 2)]


def test_draws_that_differ_leave_ranks_open():
    spread = [right(400, 10), right(400, 130)]
    assert ranks("mean", [[right(400, 100)], [right(400, 60)]]) == [(2, 2), (1, 1)]
    assert ranks("mean", [[right(400, 100)], spread]) == [(1, 2), (1, 2)]


def test_what_is_not_defined_is_refused():
    with pytest.raises(ValueError, match="not defined"):
        ranks("pearson", [[np.ones((9, 2))], [np.ones((9, 2))]])


@pytest.mark.numeric
@pytest.mark.parametrize("samples", [100, 400])
def test_all_ranks_hold_together_in_95_of_100(samples):
    """Six methods that flip some answers, two of them equally good: every rank set holds its own."""
    rng = np.random.default_rng(samples)
    wrong = np.array([0.1, 0.12, 0.12, 0.2, 0.3, 0.31])  # of independent answers
    true = [(int((wrong < each).sum()) + 1, int((wrong <= each).sum())) for each in wrong]
    held, trials = 0, 200
    for _ in range(trials):
        shared = rng.random(samples) < 0.5  # where all answer alike
        common = rng.random(samples) < 0.9
        own = [np.where(shared, common, rng.random(samples) > each).astype(float) for each in wrong]
        found = ranks("mean", [[scores] for scores in own])
        # a method's ranks may be any that ties give it: those have to be among the ones left open
        held += all(
            low <= best and worst <= high for (low, high), (best, worst) in zip(found, true, strict=True)
        )
    assert held / trials > 0.95 - 3 * math.sqrt(0.05 * 0.95 / trials)
