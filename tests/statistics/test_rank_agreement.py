"""The rank correlation of two measures over texts: against scipy in a loop, and what it covers."""

from __future__ import annotations

import math
from unittest import mock

import numpy as np
import pytest
from scipy.stats import spearmanr

from attnbench.statistics import rank_agreement
from attnbench.statistics.rank_agreement import rank_agreement as agreement


def drawn(seed, texts=30, things=12, noise=1.0):
    rng = np.random.default_rng(seed)
    true = rng.normal(size=things), rng.normal(size=things)
    both = [(true[0] + k * true[1]) + noise * rng.normal(size=(texts, things)) for k in (0.2, -0.2)]
    return *both, spearmanr(true[0] + 0.2 * true[1], true[0] - 0.2 * true[1]).statistic


def test_the_correlation_is_scipys_and_the_interval_that_of_slow_resamples():
    a, b, _ = drawn(1)

    def scaled(means):
        return means**3 / np.abs(means).sum(1, keepdims=True)

    found = agreement(a, b, of_second=scaled)
    rng = np.random.default_rng(7)  # other resamples, as many as a loop has time for
    slow = []
    for _ in range(500):
        texts = rng.integers(0, 30, 30)
        slow.append(spearmanr(a[texts].mean(0), scaled(b[texts].mean(0)[None])[0]).statistic)
    point = spearmanr(a.mean(0), scaled(b.mean(0)[None])[0]).statistic
    assert found.spearman == pytest.approx(point) and found.texts == 30
    centre, spread = 2 * point - np.mean(slow), np.std(slow)
    few = 5 * spread / 500**0.5  # five standard errors of the loop's own
    assert found.low == pytest.approx(max(-1, centre - 1.96 * spread), abs=2 * few)
    assert found.high == pytest.approx(min(1, centre + 1.96 * spread), abs=2 * few)


def test_the_interval_covers_what_many_texts_would_say():
    with mock.patch.object(rank_agreement, "RESAMPLES", 400):
        found = [(agreement(a, b), true) for a, b, true in (drawn(seed, 50, 40) for seed in range(60))]
    hits = [each.low <= true <= each.high for each, true in found]
    assert np.mean(hits) > 0.8  # 60 draws of 0.9 fall below with a chance of 1 %


@pytest.mark.parametrize("texts", [0, 1])
def test_few_texts_have_no_interval(texts):
    found = agreement(np.arange(3.0)[None][:texts], np.arange(3.0)[None][:texts])
    assert math.isnan(found.low) and math.isnan(found.high) and found.texts == texts


def test_what_is_the_same_for_all_is_undefined_and_other_shapes_are_refused():
    assert math.isnan(agreement(np.ones((5, 4)), np.random.default_rng(1).normal(size=(5, 4))).spearman)
    with pytest.raises(ValueError, match="not of the same texts"):
        agreement(np.ones((5, 4)), np.ones((4, 4)))
