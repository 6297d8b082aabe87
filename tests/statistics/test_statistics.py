"""Statistics against independent computations, and their coverage by enumeration and simulation."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize
from scipy import stats as scipy_stats

from attnbench.statistics import freedom, inference, resampling, unseen
from attnbench.statistics.aggregates import METRICS, aggregate, bounds, influence, over_seeds, working
from attnbench.statistics.flips import mcnemar, score_statistic, tango_each
from attnbench.statistics.inference import holm, kept, paired, samples_needed, standard_error
from attnbench.statistics.resampling import resampled


def counts_of(labels, predictions):
    """Return one row of (tp, fp, fn, tn) a sample."""
    labels, predictions = labels.astype(bool), predictions.astype(bool)
    hits = [labels & predictions, ~labels & predictions, labels & ~predictions, ~labels & ~predictions]
    return np.stack(hits, 1).astype(float)


def binary_labels(n=200, seed=0, error=0.15):
    rng = np.random.default_rng(seed)
    labels = rng.random(n) < 0.4
    return labels, labels ^ (rng.random(n) < error)


# metrics


@pytest.mark.parametrize("name", ["f1", "mcc"])
def test_counts_give_the_metrics_of_scikit_learn(name):
    from sklearn import metrics

    reference = {"f1": metrics.f1_score, "mcc": metrics.matthews_corrcoef}[name]
    labels, predictions = binary_labels()
    assert aggregate(name, counts_of(labels, predictions)) == pytest.approx(reference(labels, predictions))
    assert aggregate(name, counts_of(labels, np.zeros_like(labels))) == 0


@pytest.mark.parametrize("name", ["pearson", "spearman"])
def test_correlations_are_those_of_scipy(name):
    rng = np.random.default_rng(1)
    x = rng.integers(0, 6, 80) + 1e6
    pairs = np.stack([x, x + rng.normal(0, 2, 80).round()], 1)
    reference = {"pearson": scipy_stats.pearsonr, "spearman": scipy_stats.spearmanr}[name]
    assert aggregate(name, pairs) == pytest.approx(reference(*pairs.T).statistic, abs=1e-9)


SENTENCES = [
    ("the cat sat on the mat today", "the cat sat on a mat today"),
    ("a dog barks at night", "the dog barked all night long"),
    ("rain falls", "rain is falling on the roof"),
    ("she reads an old book in the garden", "she reads an old book in the garden"),
]


@pytest.mark.parametrize("pick", [[0, 1, 2, 3], [0, 3], [1], [2]])
def test_bleu_and_chrf_are_those_of_sacrebleu(pick):
    sacrebleu = pytest.importorskip("sacrebleu")
    hypotheses, references = zip(*(SENTENCES[i] for i in pick), strict=True)
    for name, metric in (("bleu", sacrebleu.BLEU()), ("chrf", sacrebleu.CHRF())):
        rows = [
            metric._extract_corpus_statistics([h], [[r]])[0]
            for h, r in zip(hypotheses, references, strict=True)
        ]
        expected = metric.corpus_score(hypotheses, [references]).score
        assert aggregate(name, np.array(rows, float)) == pytest.approx(expected, abs=1e-9)


def test_perplexity_weighs_samples_by_length():
    pairs = np.array([[-10.0, 5], [-30.0, 10]])
    assert aggregate("perplexity", pairs) == pytest.approx(math.exp(40 / 15))


def test_standard_error_of_a_mean_is_the_textbooks():
    scores = np.random.default_rng(0).random(50)
    assert standard_error("mean", [scores]) == pytest.approx(scores.std(ddof=1) / math.sqrt(50))


def test_influence_is_leaving_one_out():
    pairs = np.random.default_rng(2).random((12, 2))
    for name in ("pearson", "perplexity"):
        whole = inference.working(name, pairs)
        without = [inference.working(name, np.delete(pairs, i, 0)) for i in range(12)]
        # pearson is centred on the whole sample, which changes nothing
        assert influence(name, pairs) == pytest.approx(11 * (whole - np.array(without)))


# resampling


def slow_bootstrap(function, arrays, repeats=400):
    """Resample samples in a loop: (arrays, repeats)."""
    rng, n = np.random.default_rng(99), len(arrays[0])
    draws = [rng.integers(0, n, n) for _ in range(repeats)]
    return np.array([[function(array[draw]) for draw in draws] for array in arrays])


@pytest.mark.parametrize("name", ["mean", "f1", "mcc", "pearson", "spearman", "perplexity", "ratio"])
def test_resamples_spread_as_a_plain_loop_does(name):
    from sklearn import metrics

    rng = np.random.default_rng(3)
    x = rng.normal(size=(60, 1))
    labels, first = binary_labels(60)
    second = first ^ (rng.random(60) < 0.1)
    continuous = [np.hstack([x, x + rng.normal(0, s, (60, 1))]) for s in (0.5, 0.9)]
    positive = [np.abs(array) + 0.5 for array in continuous]
    arrays, function = {
        "mean": ([a[:, 1] for a in continuous], np.mean),
        "f1": ([counts_of(labels, p) for p in (first, second)],
               lambda c: metrics.f1_score(*labelled(c))),
        "mcc": ([counts_of(labels, p) for p in (first, second)],
                lambda c: metrics.matthews_corrcoef(*labelled(c))),
        "pearson": (continuous, lambda a: np.corrcoef(a.T)[0, 1]),
        "spearman": (continuous, lambda a: scipy_stats.spearmanr(*a.T).statistic),
        "perplexity": (positive, lambda a: -a[:, 0].sum() / a[:, 1].sum()),
        "ratio": (positive, lambda a: a[:, 0].sum() / a[:, 1].sum()),
    }[name]  # fmt: skip
    ours, plain = resampled(name, arrays), slow_bootstrap(function, arrays)
    assert ours.shape == (2, resampling.RESAMPLES)
    for mine, theirs in ((ours[0], plain[0]), (ours[1] - ours[0], plain[1] - plain[0])):
        assert mine.std() == pytest.approx(theirs.std(), rel=0.15)
        assert mine.mean() == pytest.approx(theirs.mean(), abs=0.2 * theirs.std())


def labelled(counts):
    tp, fp, fn, _ = counts.astype(bool).T
    return tp | fn, tp | fp


def test_ranks_of_a_resample_are_exact():
    rng = np.random.default_rng(4)
    pairs = rng.integers(0, 5, (30, 2)).astype(float)
    draws = rng.integers(0, 30, (20, 30))
    weights = np.stack([np.bincount(draw, minlength=30) for draw in draws]).astype(float)
    expected = [scipy_stats.spearmanr(*pairs[draw].T).statistic for draw in draws]
    assert resampling._Spearman([pairs], 30)(weights)[0] == pytest.approx(np.array(expected))


def test_few_distinct_rows_are_drawn_by_multinomial_counts_with_the_same_spread():
    rng = np.random.default_rng(5)
    dense = (rng.random(2000) < 0.9).astype(float)
    method = np.where(rng.random(2000) < 0.03, 1 - dense, dense)
    drawn = resampled("mean", [dense, method])
    difference = drawn[1] - drawn[0]
    assert difference.std() == pytest.approx((method - dense).std() / math.sqrt(2000), rel=0.03)


@pytest.mark.parametrize("name", ["mean", "pearson", "perplexity"])
def test_interval_is_scipys_where_every_sample_differs(name):
    rng = np.random.default_rng(6)
    base = rng.gamma(2, 1, 150)
    dense = (
        np.stack([-base * 3, base], 1)
        if name == "perplexity"
        else np.stack([base, base + rng.normal(0, 1, 150)], 1)
    )
    method = dense + rng.exponential(0.3, dense.shape) * [1, 0]
    if name == "mean":
        dense, method = dense[:, 0], method[:, 0]

    def difference(i):
        i = i.astype(int)
        return inference.working(name, method[i]) - inference.working(name, dense[i])

    theirs = scipy_stats.bootstrap(
        (np.arange(150),),
        difference,
        n_resamples=4000,
        method="BCa",
        vectorized=False,
        rng=np.random.default_rng(0),
    ).confidence_interval
    ours = paired(name, dense, [[method]], 0.01)[0]
    width = theirs.high - theirs.low
    assert ours.low == pytest.approx(theirs.low, abs=0.06 * width)
    assert ours.high == pytest.approx(theirs.high, abs=0.06 * width)


def test_same_data_same_interval():
    rng = np.random.default_rng(7)
    dense, method = rng.random(100), rng.random(100)
    assert paired("mean", dense, [[method]], 0.01) == paired("mean", dense, [[method]], 0.01)


# 0/1 scores: Tango's interval and McNemar's test


def constrained_z(lost, won, n, difference):
    """Find the score statistic by maximising the likelihood numerically over the other parameter."""
    same = n - lost - won

    def minus_log_likelihood(p_lost):
        p_won, p_same = p_lost + difference, 1 - 2 * p_lost - difference
        return -sum(
            k * math.log(max(p, 1e-300)) for k, p in ((lost, p_lost), (won, p_won), (same, p_same)) if k
        )

    bounds = (max(0, -difference) + 1e-12, (1 - difference) / 2 - 1e-12)
    p = optimize.minimize_scalar(
        minus_log_likelihood, bounds=bounds, method="bounded", options={"xatol": 1e-13}
    ).x
    return (won - lost - n * difference) / math.sqrt(n * (2 * p + difference * (1 - difference)))


@pytest.mark.parametrize(("lost", "won", "n"), [(12, 2, 50), (3, 9, 872), (40, 35, 500), (1, 1, 100)])
def test_ends_of_the_interval_are_1_96_standard_errors_away(lost, won, n):
    ((low, high),) = tango_each([(lost, won)], n)
    assert constrained_z(lost, won, n, low) == pytest.approx(1.96, abs=2e-3)
    assert constrained_z(lost, won, n, high) == pytest.approx(-1.96, abs=2e-3)


def test_no_flips_leave_room_for_some():
    ((low, high),) = tango_each([(0, 0)], 872)
    assert -low == high == pytest.approx(1.96**2 / (872 + 1.96**2), rel=1e-3)


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_is_the_binomial_test(lost, won):
    expected = scipy_stats.binomtest(lost, lost + won).pvalue if lost + won else 1.0
    assert mcnemar(lost, won) == pytest.approx(expected)


def flips(n, up_to):
    pairs = [(b, c) for b, c in itertools.product(range(up_to), repeat=2) if b + c <= n]
    return np.array(pairs).T


def chances(lost, won, n, p_lost, p_won):
    ways = [math.lgamma(n + 1) - math.lgamma(b + 1) - math.lgamma(c + 1) - math.lgamma(n - b - c + 1)
            for b, c in zip(lost, won, strict=True)]  # fmt: skip
    powers = (
        lost * np.log(p_lost)
        + won * math.log(max(p_won, 1e-300))
        + (n - lost - won) * np.log1p(-p_lost - p_won)
    )
    return np.exp(np.array(ways) + powers)


@pytest.mark.parametrize(("n", "up_to"), [(100, 18), (872, 60)])
def test_coverage_at_half_to_four_percent_of_flips_is_exact_enough(n, up_to):
    lost, won = flips(n, up_to)
    ends = np.array(tango_each([*zip(lost, won, strict=True)], n))
    found = []
    for rate, harm in itertools.product((0.005, 0.01, 0.02, 0.03, 0.04), (0.5, 0.8, 1.0)):
        p_lost, p_won = rate * harm, rate * (1 - harm)
        inside = (ends[:, 0] <= p_won - p_lost + 1e-9) & (p_won - p_lost - 1e-9 <= ends[:, 1])
        found.append(chances(lost, won, n, p_lost, p_won)[inside].sum())
    assert min(found) > 0.935
    if n == 872:  # of 100 samples fewer than four flip: no interval can be as narrow as 95 % there
        assert max(found) < 0.967
        assert np.mean(found) == pytest.approx(0.95, abs=0.01)


@pytest.mark.parametrize(("n", "up_to", "at_most"), [(100, 25, 0.056), (872, 70, 0.05)])
def test_a_method_at_the_margin_is_rarely_called_within_it(n, up_to, at_most):
    lost, won = flips(n, up_to)
    z = np.array([score_statistic(b, c, n, -0.01) for b, c in zip(lost, won, strict=True)])
    for rate in (0.01, 0.015, 0.02, 0.03, 0.04):
        claimed = chances(lost, won, n, (rate + 0.01) / 2, (rate - 0.01) / 2)[z >= 1.645].sum()
        assert claimed <= at_most


# coverage of the bootstrap, by simulation


def sparse_f1(rng, n):
    differs, size = rng.random(n) < 0.02, np.where(rng.random(n) < 0.3, 1.0, rng.uniform(0.1, 0.9, n))
    sign = np.where(rng.random(n) < 0.8, -1, 1)
    return np.ones(n), [1 + np.where(differs, sign * size, 0)], -0.02 * 0.6 * 0.65


def f1_counts(rng, n):
    labels = rng.random(n) < 0.5
    first = labels ^ (rng.random(n) < 0.1)
    second = first ^ (rng.random(n) < 0.03)
    return counts_of(labels, first), [counts_of(labels, second)], -0.03 * 0.8


def ratio(rng, n):
    length = rng.integers(5, 40, n).astype(float)
    dense = -length * rng.gamma(9, 1 / 3, n)
    method = dense - length * (0.01 + 0.05 * rng.standard_normal(n))
    return np.stack([dense, length], 1), [np.stack([method, length], 1)], 0.01


@pytest.mark.parametrize("size", [2e-138, 1e-320, 1e150])
def test_degrees_of_freedom_do_not_depend_on_the_unit(size):
    found = freedom.of_differences(np.array([1.0, -2.0, 0.5]) * size)
    assert found == pytest.approx(freedom.of_differences(np.array([1.0, -2.0, 0.5])), rel=0.01)
    assert freedom.of_differences(np.array([size])) == freedom.of_differences(np.zeros(3)) == freedom.MANY


def test_unequal_differences_have_fewer_degrees_of_freedom():
    rng = np.random.default_rng(3)
    assert freedom.of_differences(rng.normal(0, 2, 100_000)) == pytest.approx(99_999, rel=0.02)
    assert freedom.of_differences(np.array([1.0, -1, 1, 1])) == freedom.MANY  # their number alone is unsure
    assert freedom.of_differences(np.array([3.0])) == freedom.of_differences(np.array([])) == freedom.MANY
    assert freedom.of_differences(np.array([5.0, 0.001])) == pytest.approx(2, rel=1e-3)
    # of many draws of ten the variance varies as much as these degrees of freedom say
    found = [freedom.of_differences(rng.normal(size=10)) for _ in range(4000)]
    assert 9 < np.median(found) < 16


def few_sentences(rng, n):
    dense = rng.random(n)
    changed = rng.random(n) < 0.05
    return dense, [dense + changed * rng.normal(-0.02, 0.3, n)], -0.001


def three_seeds(rng, n):
    dense = rng.random(n)
    shared = rng.normal(-0.01, 0.05, n)
    return dense, [dense + shared + rng.normal(0, 0.005) + rng.normal(0, 0.05, n) for _ in range(3)], -0.01


@pytest.mark.parametrize(
    ("name", "draw", "n"),
    [("mean", few_sentences, 200),
     ("mean", sparse_f1, 100), ("mean", sparse_f1, 872), ("f1", f1_counts, 872), ("perplexity", ratio, 100),
     ("mean", three_seeds, 100)],
)  # fmt: skip
def test_bootstrap_covers(name, draw, n, monkeypatch):
    for module in (resampling, inference):
        monkeypatch.setattr(module, "RESAMPLES", 800)
    rng, repeats, covered = np.random.default_rng(8), 300, 0
    for _ in range(repeats):
        dense, seeds, truth = draw(rng, n)
        found = paired(name, dense, [seeds], 0.01)[0]
        covered += found.low <= truth <= found.high
    # three standard errors of a simulated coverage; where few samples flip it may only be too high
    assert covered / repeats > 0.935 - 3 * math.sqrt(0.05 * 0.95 / repeats)
    assert covered / repeats < 0.965 + 3 * math.sqrt(0.05 * 0.95 / repeats)


# properties

scores01 = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=2, max_size=60)
fractions = st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=2, max_size=30)


@settings(deadline=None, max_examples=60)
@given(st.one_of(scores01, fractions))
def test_difference_is_antisymmetric(pairs):
    a, b = np.array(pairs, float).T
    one, other = paired("mean", a, [[b]], 0.01)[0], paired("mean", b, [[a]], 0.01)[0]
    assert one.estimate == pytest.approx(-other.estimate, abs=1e-12)
    assert (one.low, one.high) == pytest.approx((-other.high, -other.low), abs=1e-9)
    assert one.low <= one.estimate <= one.high


@settings(deadline=None, max_examples=60)
@given(scores01)
def test_turning_the_metric_round_turns_the_claim_round(pairs):
    a, b = np.array(pairs, float).T
    right, wrong = paired("mean", a, [[b]], 0.05)[0], paired("mean", 1 - a, [[1 - b]], 0.05, False)[0]
    assert right.p_margin == pytest.approx(wrong.p_margin)


@pytest.mark.parametrize("higher", [True, False])
def test_p_of_the_margin_agrees_with_the_interval(higher):
    rng = np.random.default_rng(9)
    dense = rng.random(300)
    method = dense + rng.normal(0, 0.1, 300)
    found = paired("mean", dense, [[method]], 0.01)[0]
    reach = -found.low if higher else found.high
    for margin, small in ((reach * 1.05, True), (reach * 0.95, False)):
        p = paired("mean", dense, [[method]], margin, higher)[0].p_margin
        assert (p < 0.025) is small
    assert paired("mean", dense, [[method]], 1.0, higher)[0].p_margin < 1e-12


@settings(deadline=None, max_examples=40)
@given(st.lists(st.floats(0, 1), max_size=20))
def test_holm_is_that_of_statsmodels(p):
    from statsmodels.stats.multitest import multipletests

    corrected = holm(p)
    assert corrected == pytest.approx(list(multipletests(p, method="holm")[1]) if p else [])
    assert all(after >= before for before, after in zip(p, corrected, strict=True))
    order = np.argsort(p, kind="stable")
    assert all(corrected[i] <= corrected[j] for i, j in itertools.pairwise(order))


@pytest.mark.parametrize("lost, won", [(0, 1), (3, 0), (7, 2), (11, 13), (40, 18)])
def test_flips_are_tested_as_statsmodels_tests_them(lost, won):
    from statsmodels.stats.contingency_tables import mcnemar as reference

    dense = np.r_[np.ones(300 + lost), np.zeros(won + 50)]
    method = np.r_[np.ones(300), np.zeros(lost), np.ones(won), np.zeros(50)]
    found = paired("mean", dense, [[method]], 0.01)[0]
    assert found.mcnemar == pytest.approx(reference([[300, lost], [won, 50]], exact=True).pvalue)


@pytest.mark.parametrize("n", [200, 2000])
def test_a_mean_of_many_has_the_interval_of_statsmodels(n):
    from statsmodels.stats.weightstats import DescrStatsW

    rng = np.random.default_rng(n)
    dense = rng.normal(50, 10, n)
    method = dense - rng.normal(0.4, 3, n)
    found, reference = paired("mean", dense, [[method]], 1.0)[0], DescrStatsW(method - dense)
    low, high = reference.zconfint_mean()
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.05 * (high - low))
    assert found.error == pytest.approx(reference.std_mean, rel=0.05)
    assert found.p_zero == pytest.approx(reference.ztest_mean()[1], rel=0.3, abs=1e-4)


@given(st.floats(-3, 3), st.floats(-3, 3))
def test_kept_is_1_for_dense_and_0_for_uniform(dense, uniform):
    if abs(dense - uniform) > 1e-6:
        assert kept(dense, dense, uniform) == pytest.approx(1)
        assert kept(uniform, dense, uniform) == 0


@pytest.mark.parametrize(
    "lost, won, n", [(24, 20, 2000), (6, 3, 872), (5, 6, 872), (0, 0, 100), (60, 20, 872)]
)
@pytest.mark.parametrize("alpha", [0.05, 0.05 / 75])
def test_samples_needed_are_those_at_which_the_same_rates_decide(lost, won, n, alpha):
    dense, method = np.repeat([[1, 0], [0, 1], [0, 0]], [lost, won, n - lost - won], axis=0).T
    (found,) = paired("mean", dense, [[method]], 0.01)
    assert found.discordant == (lost, won)
    needed = samples_needed(n, found, 0.01, alpha, True)

    def decided(samples):
        rates = lost * samples / n, won * samples / n
        if found.estimate > -0.01:
            return scipy_stats.norm.sf(score_statistic(*rates, samples, -0.01)) <= alpha
        return score_statistic(*rates, samples, 0.0) <= -1.96

    assert decided(1.001 * needed) and not decided(0.999 * needed)


def test_of_samples_where_nothing_differs_as_many_are_needed_as_make_the_bound():
    scores = np.random.default_rng(1).gamma(9, 1, (100, 2)) * [-1, 1]
    (found,) = paired("perplexity", scores, [[scores]], 0.01, False)
    needed = samples_needed(100, found, 0.01, 0.05, False)
    more = math.log(0.05) / math.log(found.p_margin)
    assert needed == pytest.approx(100 * more) and found.p_margin**more == pytest.approx(0.05)


def test_samples_needed_by_a_bootstrap_decide_every_second_time():
    rng = np.random.default_rng(10)

    def drawn(n):
        dense = rng.normal(5, 1, n)
        return dense, dense + rng.normal(0.0, 0.1, n)

    dense, method = drawn(200)
    (found,) = paired("mean", dense, [[method]], 0.012)
    needed = round(samples_needed(200, found, 0.012, 0.001, True))
    truth, decided = found.estimate, 0
    for _ in range(200):
        noise = rng.normal(truth, (method - dense).std(), needed)
        decided += scipy_stats.norm.sf((noise.mean() + 0.012) / (noise.std() / math.sqrt(needed))) <= 0.001
    assert decided / 200 == pytest.approx(0.5, abs=0.15)


def test_no_number_of_samples_shows_a_zero_difference_within_no_margin():
    assert samples_needed(100, inference.Paired(0.0, -0.1, 0.1, 1.0), 0.0, 0.05, True) == math.inf


# corners


@pytest.mark.parametrize("name", sorted(METRICS))
def test_a_method_that_changes_nothing_differs_by_nothing(name):
    pairs = dict.fromkeys(("pearson", "spearman", "perplexity", "ratio"), 2)
    columns = {**pairs, "mean": 0, "bleu": 10, "chrf": 18}.get(name, 4)
    rng = np.random.default_rng(11)
    scores = rng.random((20, columns) if columns else 20) + 0.1
    found = paired(name, scores, [[scores]], 0.01)[0]
    assert found.estimate == 0 and found.low < 0 < found.high and found.p_zero == 1
    assert found.p_margin > 0.05  # of 20 samples


# where few samples differ, or none


def broken(rng, n, share):
    """Draw n-gram counts of sentences of which a share lose most of their words."""
    totals = rng.integers(8, 30, n)[:, None] - np.arange(4)
    quality = rng.uniform(0.4, 1, (n, 1)) ** np.arange(1, 5)
    lost = (rng.random(n) < share)[:, None]
    dense, method = (np.round(totals * q) for q in (quality, quality * np.where(lost, 0.1, 1)))
    length = totals[:, :1]
    return tuple(np.hstack([length, length, matches, totals]).astype(float) for matches in (dense, method))


def unlikely(rng, n, share):
    length = rng.integers(5, 40, n).astype(float)
    dense = -length * rng.gamma(9, 1 / 3, n)
    return tuple(np.stack([x, length], 1) for x in (dense, dense - 1.5 * length * (rng.random(n) < share)))


def unbounded(rng, n, share):
    dense = rng.normal(50, 10, n)
    return dense, dense - rng.gamma(2, 5, n) * (rng.random(n) < share)


@pytest.mark.parametrize("name, draw", [("bleu", broken), ("perplexity", unlikely), ("mean", unbounded)])
@pytest.mark.parametrize("n, share", [(100, 0.01), (100, 0.02), (100, 0.04), (200, 0.01), (872, 0.005)])
def test_a_few_broken_samples_are_rarely_missed(name, draw, n, share, monkeypatch):
    """At the margin itself `within` is false: at most one claim in twenty may be, and 95 % hold the truth."""
    for module in (resampling, inference):
        monkeypatch.setattr(module, "RESAMPLES", 400)
    rng, repeats, called, covered = np.random.default_rng(14), 150, 0, 0
    large = draw(rng, 200_000, share)
    truth = inference.working(name, large[1]) - inference.working(name, large[0])
    for _ in range(repeats):
        dense, method = draw(rng, n, share)
        (found,) = paired(name, dense, [[method]], abs(truth), name != "perplexity")
        called += found.p_margin <= 0.05
        covered += found.low <= truth <= found.high
        assert found.low < found.high
    assert called / repeats <= 0.05 + 2.6 * math.sqrt(0.05 * 0.95 / repeats)
    assert covered / repeats >= 0.935 - 2.6 * math.sqrt(0.05 * 0.95 / repeats)


@pytest.mark.parametrize("name", sorted(METRICS))
def test_what_no_sample_shows_is_bounded_by_how_many_there_are(name):
    """The chance that n samples miss a difference of `largest` in margin / largest of them is the p value."""
    pairs = dict.fromkeys(("pearson", "spearman", "perplexity", "ratio"), 2)
    columns = {**pairs, "mean": 0, "bleu": 10, "chrf": 18}.get(name, 4)
    rng = np.random.default_rng(11)
    if name in ("bleu", "chrf"):
        scores = np.tile(broken(rng, 400, 0)[0], (1, 2))[:, :columns]
    else:
        scores = rng.random((400, columns) if columns else 400) + 0.1
    most = unseen.largest(name, [scores])
    for share in (0.001, 0.006, 0.009):
        (found,) = paired(name, scores, [[scores]], share * most)
        assert found.p_margin == pytest.approx((1 - share) ** 400)
        assert found.p_margin == pytest.approx(scipy_stats.binom.pmf(0, 400, share))
    assert -found.low == found.high == pytest.approx(most * (1 - 0.025 ** (1 / 400)))


def test_rounding_alone_is_no_difference():
    rng = np.random.default_rng(2)
    dense, _ = unlikely(rng, 100, 0)
    (equal,) = paired("perplexity", dense, [[dense]], 0.01, False)
    (rounded,) = paired("perplexity", dense, [[dense * (1 + 1e-8 * rng.random((100, 1)))]], 0.01, False)
    assert (rounded.low, rounded.high) == pytest.approx((equal.low, equal.high), rel=1e-4)
    assert rounded.p_margin > 0.05


def test_an_invented_sample_comes_down_to_those_that_differ():
    found = [unseen.invented(np.full(k, -0.1), 1.0) for k in range(1, 40)]
    assert found[0] == pytest.approx(-math.sqrt((0.1**2 + 1) / 2))
    assert all(-1 < a < b < 0 for a, b in itertools.pairwise(found)) and found[-1] == pytest.approx(-0.1)
    # one that outweighs ninety-nine counts as one
    assert unseen.invented(np.r_[0.1, np.full(99, 1e-5)], 1.0) > 0.6
    assert unseen.invented(np.array([3.0]), 1.0) == 3


@pytest.mark.parametrize("name", ["mean", "f1", "bleu"])
def test_a_comparison_does_not_depend_on_what_else_is_compared(name):
    rng = np.random.default_rng(13)
    if name == "bleu":
        dense = broken(rng, 300, 0)[0]
        groups = [[broken(np.random.default_rng(13), 300, 0.1)[1]], [dense + 1, dense], [dense]]
    elif name == "f1":
        labels, said = binary_labels(300)
        dense = counts_of(labels, said)
        drawn = [counts_of(labels, said ^ (rng.random(300) < share)) for share in (0.05, 0.1, 0.2, 0.02)]
        groups = [[drawn[0]], drawn[1:3], [drawn[3] + rng.random(drawn[3].shape) / 10]]
    else:
        dense = (rng.random(300) < 0.8).astype(float)
        drawn = [(rng.random(300) < 0.7).astype(float) for _ in range(3)]
        groups = [drawn[:2], [drawn[2]], [rng.random(300)], drawn]
    together = paired(name, dense, groups, 0.01)
    for place, seeds in enumerate(groups):
        (alone,) = paired(name, dense, [seeds], 0.01)
        ends = [(item.low, item.high, item.p_margin, item.p_zero) for item in (alone, together[place])]
        assert ends[0] == pytest.approx(ends[1], abs=1e-12)


@pytest.mark.parametrize("n", [1, 2])
def test_hardly_any_sample_decides_nothing(n):
    found = paired("mean", np.ones(n), [[np.ones(n)], [np.full(n, 0.5)]], 0.01)
    assert all(item.p_margin > 0.05 for item in found)


def test_seeds_that_disagree_widen_the_interval():
    rng = np.random.default_rng(12)
    dense = rng.random(400)
    noise = rng.normal(0, 0.05, 400)
    agreeing = [dense + noise + rng.normal(0, 0.01, 400) for _ in range(4)]
    apart = [scores + shift for scores, shift in zip(agreeing, (-0.1, -0.03, 0.03, 0.1), strict=True)]
    close, far = paired("mean", dense, [agreeing, apart], 0.01)
    assert far.high - far.low > 5 * (close.high - close.low)
    assert far.estimate == pytest.approx(close.estimate)
    assert standard_error("mean", apart) > standard_error("mean", agreeing)


def test_two_seeds_widen_once():
    """The seeds' Student's t is not widened by that of the few samples, too."""
    rng = np.random.default_rng(3)
    dense = rng.random(100)
    seeds = [dense.copy(), dense.copy()]
    seeds[0][:2] -= [0.4, 0.01]
    seeds[1][:2] -= [0.7, 0.01]
    found = paired("mean", dense, [seeds], 0.01)[0]
    assert -0.1 < found.low < found.estimate < found.high < 0.1


@pytest.mark.parametrize("kind, most", [("mean", 1.0), ("f1", 1.0), ("mcc", 2.0)])
def test_no_interval_reaches_past_what_is_possible(kind, most):
    """Two seeds far apart: Student's t with one degree of freedom knows no bounds, the metric does."""
    rng = np.random.default_rng(4)
    right = rng.random(50) < 0.9
    if kind == "mean":
        dense, good, bad = right.astype(float), right.astype(float), np.zeros(50)
    else:
        dense, good = (np.stack([right, ~right, ~right, right], 1).astype(float) for _ in range(2))
        bad = 1 - dense
    found = paired(kind, dense, [[good, bad]], 0.01)[0]
    assert -most <= found.low < found.estimate < found.high <= most


@pytest.mark.parametrize("name", ["mcc", "perplexity"])
def test_two_methods_that_draw_by_any_metric(name):
    """Of copies of one draw the interval is that of two methods that do not draw, and the sign turns."""
    rng = np.random.default_rng(5)
    if name == "mcc":
        said = [rng.random(300) < share for share in (0.5, 0.6)]
        gold = rng.random(300) < 0.5
        a, b = (
            np.stack([gold & x, ~gold & x, gold & ~x, ~gold & ~x], 1).astype(float)
            for x in (gold ^ (said[0] & (rng.random(300) < 0.2)), gold ^ (said[1] & (rng.random(300) < 0.6)))
        )
    else:
        lengths = rng.integers(5, 20, 300).astype(float)
        a, b = (np.stack([-lengths * rng.normal(mean, 0.1, 300), lengths], 1) for mean in (2.0, 2.2))
    (one,) = inference.paired(name, b, [[a]], 0.0)
    found, turned = inference.between(name, [a, a], [b, b]), inference.between(name, [b, b], [a, a])
    assert found.estimate == pytest.approx(one.estimate) == pytest.approx(-turned.estimate)
    assert (found.low, found.high) == pytest.approx((one.low, one.high), rel=0.05)
    assert (found.low, found.high) == pytest.approx((-turned.high, -turned.low), rel=0.1)
    assert found.low < found.estimate < found.high and found.low * found.high > 0


def test_no_interval_reaches_beyond_what_a_metric_can_be():
    """One output that runs on moves BLEU by a dozen points; dense at 92 still has 8 above it."""
    rng = np.random.default_rng(0)
    length = rng.integers(12, 22, 100)
    matches = np.stack([rng.binomial(length - order, 0.96 - 0.03 * order) for order in range(4)], 1)
    totals = np.stack([length - order for order in range(4)], 1)
    dense = np.concatenate([np.stack([length, length], 1), matches, totals], 1).astype(float)
    runs_on = dense.copy()
    runs_on[3, 0], runs_on[3, 6:10] = 126, 126 - np.arange(4)
    runs_on[4:12, 2:6] *= 0.9
    value = working("bleu", dense)
    found, turned = (
        inference.paired("bleu", base, [[other]], 1.0)[0]
        for base, other in ((dense, runs_on), (runs_on, dense))
    )
    assert found.estimate < -5 and -value < found.low < found.estimate < found.high < 100 - value + 4
    assert (found.low, found.high) == pytest.approx((-turned.high, -turned.low))
    for name, ends in (("mean", (0, 1)), ("f1", (0, 1)), ("pearson", (-1, 1)), ("chrf", (0, 100))):
        assert bounds(name, [np.array([0.0, 1.0])]) == ends
    assert bounds("perplexity", [])[1] == bounds("mean", [np.array([0.0, 7.0])])[1] == np.inf


def test_a_perplexity_beyond_all_floats_is_infinite():
    scores = np.tile([-1e5, 100.0], (4, 1))
    assert aggregate("perplexity", scores) == over_seeds("perplexity", [scores]) == np.inf
    assert aggregate("perplexity", scores / [1e5, 100]) == pytest.approx(np.e)
