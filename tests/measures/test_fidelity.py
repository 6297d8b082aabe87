"""What a method does to answers, against the definitions written out sample by sample."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from closeness import close
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import rel_entr, softmax

from attnbench.measures import fidelity, likely
from attnbench.measures.fidelity import Form, compared, summary
from attnbench.statistics.fidelity import array_name, interval

rng = np.random.default_rng(0)


def answered(outputs, **more):
    return {"outputs": np.asarray(outputs, np.float32), **more}


def flips(of, kind="mean", dense=(), own=()):
    return compared(Form("number"), {of: {"aggregate": kind}}, answered([[0.0]], **{of: np.array(dense)}),
                    answered([[0.0]], **{of: np.array(own)}))  # fmt: skip


def test_classes_choices_and_labels_by_hand():
    dense = [[2.0, 0.0, -1.0], [0.0, 0.1, 0.2], [5.0, 1.0, 1.0]]
    own = [[1.0, 0.5, -1.0], [0.2, 0.1, 0.0], [0.0, 9.0, 1.0]]
    found = compared(Form("classes"), {}, answered(dense), answered(own))
    assert found[array_name("answers-changed")].tolist() == [0, 1, 1]
    slow = [
        rel_entr(softmax(p), softmax(q)).sum() for p, q in zip(*map(np.float32, (dense, own)), strict=True)
    ]
    close(found[array_name("kl")], slow, roundings=20)
    assert array_name("flips") not in found

    # a third choice that the first sample does not have is filled up with the largest number there is
    logs, others = [[-3.0, -1.0, 0.0], [-5.0, -4.0, -4.5]], [[-1.0, -3.0, 0.0], [-5.0, -4.5, -4.0]]
    found = compared(Form("choices", (2, 3)), {}, answered(logs), answered(others))
    assert found[array_name("answers-changed")].tolist() == [1, 1]
    slow = [
        rel_entr(softmax(p[:n]), softmax(q[:n])).sum() for p, q, n in zip(logs, others, (2, 3), strict=True)
    ]
    close(found[array_name("kl")], slow, roundings=20)

    pairs = [[-10.0, 7, -12.0, 7], [-10.0, 3, -9.0, 4]]
    found = compared(
        Form("pairs"), {}, answered(pairs), answered([[-10.0, 7, -11.0, 7], [-9.0, 3, -10.0, 4]])
    )
    assert found[array_name("answers-changed")].tolist() == [0, 1]

    said = compared(Form("labels"), {}, answered([[1.0, -2.0]]), answered([[0.5, 2.0]]))
    yes = [[1 / (1 + math.exp(-z)) for z in line] for line in ([1.0, -2.0], [0.5, 2.0])]
    slow = sum(p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q)) for p, q in zip(*yes, strict=True))
    assert said[array_name("answers-changed")].tolist() == [1]
    close(said[array_name("kl")], [slow], roundings=40)


@pytest.mark.parametrize("form, dense, own, expected", [
    ("span", [[3, 7, 0.5], [0, 2, 1.0]], [[3, 7, 0.1], [0, 3, 1.0]], [0, 1]),  # the score is no answer
    ("text", [[1, 2], [3, 4]], [[1, 2], [3, 5]], [0, 1]),
])  # fmt: skip
def test_spans_and_texts_are_the_same_or_not(form, dense, own, expected):
    found = compared(Form(form), {}, answered(dense), answered(own))
    assert found == {array_name("answers-changed"): pytest.approx(expected)}


def test_a_number_has_no_answer_and_no_odds():
    assert compared(Form("number"), {}, answered([[1.0]]), answered([[2.0]])) == {}


@pytest.mark.parametrize("kind, dense, own, expected", [
    ("mean", [1, 1, 0, 0], [1, 0, 1, 0], [0, 1, 1, 0]),
    ("mean", [1, 0.5], [1, 0], None),  # a matter of degree
    ("mean", [1, 1], [1, 0.5], None),
    ("mcc", [[1, 0, 0, 0], [0, 0, 0, 1]], [[0, 0, 1, 0], [0, 0, 0, 1]], [1, 0]),
    ("f1", [[2, 0, 1, 4]], [[1, 0, 2, 4]], None),  # several decisions a sample
    ("pearson", [[1.0, 2.0]], [[1.5, 2.0]], None),
    ("perplexity", [[-1.0, 2.0]], [[-1.5, 2.0]], None),
])  # fmt: skip
def test_a_sample_flips_where_it_is_right_or_wrong(kind, dense, own, expected):
    found = flips("score", kind, dense, own)
    assert (array_name("flips") in found) == (expected is not None)
    if expected is not None:
        assert found[array_name("flips")].tolist() == expected


def test_the_first_metric_that_is_right_or_wrong_counts():
    metrics = {"f1": {"aggregate": "mean"}, "em": {"aggregate": "mean"}}
    dense = answered([[0.0]] * 2, f1=np.array([0.5, 1.0]), em=np.array([0.0, 1.0]))
    own = answered([[0.0]] * 2, f1=np.array([1.0, 1.0]), em=np.array([1.0, 1.0]))
    assert compared(Form("number"), metrics, dense, own)[array_name("flips")].tolist() == [1, 0]


def merged(p, q, ids):
    """KL of two distributions over some events and all others as one, by its definition."""
    others = np.setdiff1d(np.arange(len(p)), ids)
    kinds = [np.append(each[ids], each[others].sum()) for each in (p, q)]
    return rel_entr(*kinds).sum()


@pytest.mark.parametrize("vocabulary", [40, 9])
def test_target_tokens_are_held_against_denses_likeliest_ones(vocabulary):
    logits, others = (torch.from_numpy(rng.normal(0, 2, (7, vocabulary))) for _ in range(2))
    requests, sizes = [object(), object(), object()], [3, 0, 4]
    samples = [[each] for each in zip(requests, sizes, strict=True)]
    dense = likely.Likely(samples)
    for request, part in ((requests[2], slice(3, 7)), (requests[0], slice(0, 3))):  # in whatever order
        first = dense.first(request)
        dense.take(np.arange(first, first + part.stop - part.start), logits[part])
    before = dense.recorded()
    own = likely.Likely(samples, before[likely.IDS])
    own.take(np.arange(7)[::-1].copy(), others.flip(0))
    now = own.recorded()

    p, q = (softmax(each.numpy(), axis=1) for each in (logits, others))
    order = np.argsort(-p, axis=1)[:, : likely.K]
    assert (np.sort(before[likely.IDS], 1) == np.sort(order, 1)).all()
    slow = np.array([merged(*lines) for lines in zip(p, q, order, strict=True)])
    whole = rel_entr(p, q).sum(1)
    assert (slow <= whole + 1e-12).all()
    if vocabulary <= likely.K:
        close(slow, whole, roundings=vocabulary)
    found = compared(
        Form("target"), {}, {**before, "outputs": np.zeros((3, 1))}, {**now, "outputs": np.zeros((3, 1))}
    )
    means = [slow[:3].mean(), 0.0, slow[3:].mean()]
    # a record has denses logarithms in single precision: of the first order they add nothing
    close(found[array_name("kl")], means, roundings=64)
    same = p.argmax(1) == q.argmax(1)
    assert found[array_name("answers-changed")].tolist() == [not same[:3].all(), False, not same[3:].all()]
    assert array_name("answers-changed") not in compared(
        Form("rolling"), {}, {**before, "outputs": np.zeros((3, 1))}, {**now, "outputs": np.zeros((3, 1))}
    )


def test_a_sample_of_two_requests_has_the_tokens_of_both():
    logits, others = (torch.from_numpy(rng.normal(0, 2, (9, 12))) for _ in range(2))
    one, two, three, four = (object() for _ in range(4))
    samples = [[(one, 2), (two, 3)], [(three, 3), (four, 1)]]
    found = []
    for drawn, ids in ((logits, None), (others, "dense")):
        each = likely.Likely(samples, ids and found[0][likely.IDS])
        assert [each.first(request) for request in (one, two, three, four)] == [0, 2, 5, 8]
        each.take(np.arange(9), drawn)
        found.append(each.recorded() | {"outputs": np.zeros((2, 1))})
    told = compared(Form("target"), {}, *found)
    p, q = (softmax(each.numpy(), axis=1) for each in (logits, others))
    whole, same = rel_entr(p, q).sum(1), p.argmax(1) == q.argmax(1)
    close(told[array_name("kl")], [whole[:5].mean(), whole[5:].mean()], roundings=64)
    assert told[array_name("answers-changed")].tolist() == [not same[:5].all(), not same[5:].all()]


def test_dense_against_itself_is_nothing():
    logits = torch.from_numpy(rng.normal(0, 3, (20, 50))).float()
    dense = likely.Likely([[(self := object(), 20)]])
    dense.take(np.arange(20), logits)
    before = dense.recorded()
    own = likely.Likely([[(self, 20)]], before[likely.IDS])
    own.take(np.arange(20), logits)
    assert likely.divergence(before[likely.LOGS], own.recorded()[likely.LOGS]).max() < 1e-6


@given(st.integers(1, 400), st.data())
def test_wilsons_interval_is_scipys(n, data):
    from scipy.stats import binomtest

    x = data.draw(st.integers(0, n))
    array = np.zeros(n)
    array[:x] = 1
    expected = binomtest(x, n).proportion_ci(method="wilson")
    close(list(interval([array])), [x / n, expected.low, expected.high], roundings=200)


def test_intervals_of_odds_and_seeds_hold_their_mean():
    kl = rng.gamma(0.5, 0.1, 200)
    found = interval([kl])
    assert found.low < found.value < found.high
    assert found.value == pytest.approx(kl.mean())
    seeds = [(rng.random(200) < share).astype(float) for share in (0.1, 0.2, 0.3)]
    several = interval(seeds)
    assert several.value == pytest.approx(np.mean(seeds))
    single = interval(seeds[:1])
    assert several.high - several.low > single.high - single.low  # what the seeds differ by is in it
    assert interval([np.zeros(50)]).low == 0.0


def test_a_record_says_mean_and_interval():
    arrays = {array_name("flips"): np.array([0.0, 1, 1, 0])}
    assert summary(arrays) == {"flips": fidelity.interval([arrays[array_name("flips")]])._asdict()}
