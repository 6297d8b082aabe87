"""Records to rows: what is compared with what, what is refused, and how seeds and claims are gathered."""

import math
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sample_records import board, faithful, missing, record, right

from attnbench.boards.tables import cells, footnotes, leaderboard, summary
from attnbench.boards.tables.text import Screen
from attnbench.errors import UserError
from attnbench.methods.families import name_without_seed
from attnbench.statistics import against_dense
from attnbench.statistics.against_dense import rows, to_frame
from attnbench.statistics.flips import tango_each
from attnbench.statistics.inference import holm
from attnbench.statistics.row import Row


def by_method(found, metric=None):
    return {row.method: row for row in found if metric in (None, row.metric)}


def test_dense_and_uniform_come_first_then_methods_by_what_they_keep():
    order = [row.method for row in rows(reversed(board()), sort="score")]
    assert order[:2] == ["dense", "uniform"]
    assert order[2:7] == ["prune0", "logquant3", "prune50", "prune95", "prune80:random"]
    assert set(order[7:]) == {"heads50:l1", "window64:on=cross"}


def test_methods_stand_by_family_and_amount_each_with_the_control_it_owns():
    wrong = {"dense": 50, "uniform": 500, "prune100": 90, "prune20": 60, "prune80+logquant3": 70,
             "prune9": 80, "heads50:l1": 95, "heads50:entropy": 75, "heads50:random": 300, "heads10:l1": 200,
             "prune20:layers=10": 61, "prune20:layers=9": 62, "threshold0.1": 55,
             "threshold0.02": 99}  # fmt: skip
    items = [record(method, acc=right(1000, count)) for method, count in wrong.items()]
    told = [
        "dense", "uniform", "heads50:entropy", "heads50:random", "heads10:l1", "heads50:l1", "prune9",
        "prune20", "prune100", "prune80+logquant3", "prune20:layers=9", "prune20:layers=10", "threshold0.02",
        "threshold0.1",
    ]  # fmt: skip
    for each in (items, items[::-1]):
        found = rows(each)
        assert [row.method for row in found] == told
        # the best of a budget owns its control, in either order
        assert {row.method: row.control_of for row in found if row.control_of} == {
            "heads50:random": "heads50:entropy"
        }
    by_score = [row.method for row in rows(items, sort="score")]
    assert by_score[:4] == ["dense", "uniform", "threshold0.1", "prune20"]


def test_differences_intervals_and_what_is_kept():
    found = by_method(rows(board()))
    row = found["prune95"]
    assert (row.samples, row.score, row.difference) == (1000, 0.88, pytest.approx(-0.04))
    assert [(row.low, row.high)] == tango_each([(40, 0)], 1000)
    assert row.discordant == (40, 0) and row.mcnemar == pytest.approx(2 * 0.5**40)
    assert row.kept == pytest.approx((0.88 - 0.52) / (0.92 - 0.52))
    assert (found["dense"].kept, found["uniform"].kept) == (1, 0)
    assert found["dense"].difference is None
    assert row.seconds == 3.5


def test_marks_and_verdicts():
    marks = {name: (row.mark, row.verdict) for name, row in by_method(rows(board())).items()}
    assert marks["dense"] == ("", "")
    assert marks["uniform"] == ("▼", "")
    assert marks["prune0"] == ("≈", "within")
    assert marks["prune95"] == ("▼", "worse")
    assert marks["prune50"] == ("▼", "worse")
    assert marks["heads50:l1"] == ("", "failed")
    assert marks["window64:on=cross"] == ("", "not applicable")


def test_worse_but_within_the_margin_shows_both():
    dense, method = right(100_000, 8000), right(100_000, 8050)
    row = by_method(rows([record("dense", acc=dense), record("logquant3", acc=method)]))["logquant3"]
    assert (row.mark, row.verdict) == ("≈▼", "within")


def test_undecided_says_how_many_samples_would_decide():
    found = by_method(rows([record("dense", acc=right(200, 20)), record("prune80", acc=right(200, 20, 1))]))
    row = found["prune80"]
    assert (row.mark, row.verdict) == ("?", "undecided")
    assert row.needed > 200


@pytest.mark.parametrize("kind", ["bleu", "perplexity", "mean", "f1"])
def test_a_hundred_samples_that_do_not_differ_show_no_one_percent(kind):
    """As with 0/1 scores, where no flip in 100 samples is no proof of fewer than one in a hundred."""
    rng = np.random.default_rng(0)

    def scores(n):
        if kind == "mean":
            return rng.gamma(9, 1, n)
        if kind == "f1":
            return np.eye(4)[rng.integers(0, 4, n)]
        if kind == "perplexity":
            return np.stack([-rng.gamma(9, 2, n), np.full(n, 6.0)], 1)
        totals = rng.integers(8, 30, n)[:, None] - np.arange(4)
        matches = totals * rng.uniform(0.4, 1, (n, 1)) ** np.arange(1, 5)
        return np.hstack([totals[:, :1], totals[:, :1], matches, totals])

    few, many = (
        by_method(rows([record(method, kind=kind, x=same) for method in ("dense", "prune80")]))["prune80"]
        for same in (scores(100), scores(3000))
    )
    assert (few.mark, few.verdict, few.difference) == ("?", "undecided", 0) and few.low < 0 < few.high
    assert 100 < few.needed < 3000
    assert (many.mark, many.verdict) == ("≈", "within")


def test_better_is_marked():
    found = by_method(rows([record("dense", acc=right(1000, 200)), record("prune80", acc=right(1000, 150))]))
    assert found["prune80"].better and found["prune80"].mark == "≈!"


def test_claims_are_corrected_over_the_table_without_the_controls():
    found = [row for row in rows(board()) if row.p_margin is not None]
    assert {row.method for row in found} == {"logquant3", "prune0", "prune50", "prune80:random", "prune95"}
    assert [row.p_holm for row in found] == pytest.approx(holm([row.p_margin for row in found]))
    alone = by_method(rows([item for item in board() if item.cell["method"] in ("dense", "prune0")]))
    assert alone["prune0"].p_holm < by_method(rows(board()))["prune0"].p_holm


def test_seeds_of_a_method_are_one_row():
    row = by_method(rows(board()))["prune80:random"]
    assert (row.seeds, row.score) == (3, pytest.approx(0.84))
    assert (row.seed_low, row.seed_high) == (0.82, 0.86)
    assert row.difference == pytest.approx(-0.08)
    # three seeds 2 points apart: Student's t with 2 degrees of freedom is 4.3 x 2 / sqrt(3) wide on each side
    assert row.high - row.low > 2 * 0.04
    assert row.discordant is None


def test_a_single_seed_keeps_its_name():
    found = rows([record("dense", acc=right(50, 5)), record("prune80:random:seed=7", acc=right(50, 9))])
    assert [row.method for row in found] == ["dense", "prune80:random:seed=7"]


@pytest.mark.parametrize(
    ("spec", "name"),
    [("prune80:random:seed=2", "prune80:random"), ("mask90", "mask90"),
     ("heads50:random:seed=1+logquant3", "heads50:random+logquant3"),
     ("mask90:random:seed=3:size=32", "mask90:random:size=32")],
)  # fmt: skip
def test_name_without_seed(spec, name):
    assert name_without_seed(spec) == name


def test_a_cell_of_other_samples_fails_alone():
    cells = {name: record(name, acc=right(100, 9)) for name in ("dense", "prune50", "mask90", "logquant3")}
    cells["prune50"] = record("prune50", acc=right(90, 9))
    cells["mask90"].scores["doc_id"] = cells["mask90"].scores["doc_id"][::-1]
    cells["logquant3"].provenance = {"fingerprints": {"task": "a"}}
    cells["prune80"] = record("prune80", acc=right(100, 12))
    found = by_method(rows(cells.values()))
    assert found["prune80"].difference == pytest.approx(-0.03) and found["prune80"].p_holm is not None
    for name, words in (
        ("prune50", "has 90 samples, dense 100: run it again with the same --limit"),
        ("mask90", "was not measured on the same samples in the same order as dense"),
        ("logquant3", "is of another version of the task than dense"),
    ):
        row = found[name]
        assert row.status == "failed" and row.difference is None and words in row.error
        assert words in leaderboard.render(cells.values(), "text").replace("\n", " ")
        assert any(f"tiny sst2 {name}: {words}" in line for line in against_dense.mismatches(cells.values()))


def test_contradicting_twins_are_refused_and_equal_ones_are_one():
    dense = record("dense", acc=right(100, 9))
    assert len(rows([dense, record("dense", acc=right(100, 9))])) == 1
    with pytest.raises(UserError, match="two records for tiny sst2 dense"):
        rows([dense, record("dense", acc=right(100, 10))])


def test_without_dense_nothing_is_compared():
    found = rows([record("prune80", acc=right(100, 9)), missing("dense", "failed", "out of memory")])
    assert [(row.method, row.difference, row.verdict) for row in found] == [
        ("prune80", None, ""), ("dense", None, "failed"),
    ]  # fmt: skip


def test_nothing_is_kept_where_uniform_is_as_good():
    same = [record("dense", acc=right(100, 50)), record("uniform", acc=right(100, 50, 1))]
    assert [row.kept for row in rows([*same, record("prune80", acc=right(100, 60))])] == [None, None, None]


@pytest.mark.parametrize(
    ("value", "said"), [(math.nan, "is nan"), (0.5, "0.5 in the record but 0.91 by its samples")]
)
def test_a_number_that_cannot_be_is_a_failed_row(value, said):
    wrong = record("prune80", acc=right(100, 9))
    wrong.metrics["acc"]["value"] = value
    row = by_method(rows([record("dense", acc=right(100, 9)), wrong]))["prune80"]
    assert row.status == "failed" and said in row.error and row.score is None


def test_scores_that_are_missing_leave_the_number_alone():
    bare = record("prune80", acc=right(100, 9))
    bare.scores = {}
    row = by_method(rows([record("dense", acc=right(100, 9)), bare]))["prune80"]
    assert (row.score, row.difference, row.mark) == (0.91, None, "")


def test_every_metric_has_a_row_and_the_first_is_primary():
    em, f1 = right(200, 40), np.where(right(200, 40) == 1, 1, 0.4)
    found = rows(
        [record("dense", em=em, f1=f1), record("prune80", em=right(200, 44), f1=np.clip(f1 - 0.01, 0, 1))]
    )
    assert [(row.method, row.metric, row.primary) for row in found] == [
        ("dense", "em", True), ("dense", "f1", False), ("prune80", "em", True), ("prune80", "f1", False),
    ]  # fmt: skip
    assert found[3].discordant is None and found[3].difference == pytest.approx(-0.01)


def log_likelihoods(factor, n=400):
    rng = np.random.default_rng(0)
    return np.stack([-rng.gamma(9, 2, n) * factor, np.full(n, 6.0)], 1)


def test_perplexity_is_compared_on_its_logarithm_and_lower_is_better():
    factors = {"dense": 1, "uniform": 1.5, "prune80": 1.05, "logquant3": 1.0005}
    items = [record(m, kind="perplexity", perplexity=log_likelihoods(f)) for m, f in factors.items()]
    found = by_method(rows(items))
    dense, uniform, method = (math.log(found[name].score) for name in ("dense", "uniform", "prune80"))
    assert found["prune80"].difference == pytest.approx(method - dense)
    assert found["prune80"].kept == pytest.approx((method - uniform) / (dense - uniform))
    assert (found["prune80"].mark, found["logquant3"].mark) == ("▼", "≈▼")
    assert found["logquant3"].verdict == "within"
    assert [row.method for row in rows(items)] == ["dense", "uniform", "logquant3", "prune80"]


@pytest.mark.parametrize(
    ("kind", "columns", "margin"), [("bleu", 10, 1.0), ("mcc", 4, 0.01), ("mean", 0, 0.03)]
)
def test_margin_is_a_point_or_a_percent(kind, columns, margin):
    scores = np.full((40, columns), 2.0) if columns else np.full(40, 3.0)
    if kind == "mcc":
        scores = np.eye(4)[np.arange(40) % 3]
    found = by_method(rows([record("dense", kind=kind, x=scores), record("prune80", kind=kind, x=scores)]))
    assert found["prune80"].margin == pytest.approx(margin)


def test_models_and_tasks_stay_in_the_order_of_the_records():
    items = [record(method, model=model, task=task, acc=right(50, 5))
             for model in ("b", "a") for task in ("z", "y") for method in ("dense", "prune80")]  # fmt: skip
    assert list(dict.fromkeys((row.model, row.task) for row in rows(items))) == [
        ("b", "z"), ("b", "y"), ("a", "z"), ("a", "y"),
    ]  # fmt: skip


def test_no_effect_is_flagged_but_not_on_dense():
    found = by_method(rows(board()))
    assert (found["prune0"].effect, found["dense"].effect, found["prune50"].effect) == (
        "no effect",
        None,
        None,
    )


@pytest.mark.parametrize(
    "idle, effect, told",
    [(0, None, ""), (2, "2 of 5 seeds without effect", "2 of 5 seeds without effect on sst2"),
     (5, "no effect", "changed nothing on sst2")],
)  # fmt: skip
def test_only_a_method_all_of_whose_seeds_changed_nothing_is_without_effect(idle, effect, told):
    items = [record("dense", acc=right(1000, 80))]
    for seed in range(5):
        items.append(record(f"gates:seed={seed}", acc=right(1000, 80 if seed < idle else 95)))
        items[-1].receipt = {"effect": "no effect" if seed < idle else "applied"}
    found = rows(items)
    assert by_method(found)["gates"].effect == effect
    line = summary.of_methods(found, str)[0]
    assert told in line and ("changed nothing" in line) == (idle == 5)
    text = leaderboard.render(items)
    assert f"| gates ({effect}) " in text if idle == 2 else "| gates (5 seeds" in text


@pytest.mark.parametrize("cut, effect", [(0.49, "mostly dense"), (0.5, None), (1.0, None)])
def test_what_scores_most_tokens_densely_is_marked(cut, effect):
    items = [record("dense", acc=right(1000, 80)), record("evict50:tova", acc=right(1000, 95))]
    items[1].receipt = {"effect": "applied", "cut": cut}
    found = rows(items)
    assert by_method(found)["evict50:tova"].effect == effect
    assert ("mostly dense on sst2" in summary.of_methods(found, str)[0]) == bool(effect)


def test_latency_over_seeds_is_their_median_and_range():
    items = [record("dense", acc=right(100, 8)), record("cut", acc=right(100, 9))]
    items[1].measured = {"latency": {"ratio": 0.8, "low": 0.7, "high": 1.0}}
    for seed, ratio in enumerate((0.9, 0.5, 0.95)):
        items.append(record(f"drawn:seed={seed}", acc=right(100, 9)))
        items[-1].measured = {"latency": {"ratio": ratio, "low": 0.1, "high": 2.0}}
    found = by_method(rows(items))
    alone, drawn = found["cut"], found["drawn"]
    assert (alone.latency_low, alone.latency, alone.latency_high) == (0.7, 0.8, 1.0)
    assert (drawn.latency_low, drawn.latency, drawn.latency_high) == (0.5, 0.9, 0.95)
    text = leaderboard.render(items)
    assert "0.80 [0.70, 1.00]" in text and "0.90 (0.50–0.95)" in text
    assert "[its 95 % interval], with several seeds the median of theirs (lowest–highest)" in text
    assert "of several seeds" not in leaderboard.render(items[:2])


def test_every_cost_column_has_a_word_in_the_legend():
    wrong = {"dense": 8, "prune80": 9, "uniform": 60}
    items = [record(method, acc=right(100, count)) for method, count in wrong.items()]
    items[1].measured = {
        "sparsity": 0.8, "bits": 3.0, "heads": 0.5, "divergence": 0.1, "entropy": 2.0,
        "latency": {"ratio": 0.8}, "memory": {"ratio": 0.9}, "held": {"ratio": 0.5}, "cache": 0.5, "kv": 0.5,
        "flops": {"simulated": 0.9, "realised": 0.8},
    }  # fmt: skip
    faithful(items[1], flips=right(100, 3) != 1, answers_changed=right(100, 4) != 1, kl=np.full(100, 0.01))
    told = " ".join(footnotes.footnotes(rows(items), items, str))
    for word in cells.COSTS:
        assert re.search(rf"\b{re.escape(word)}\b", told), word
    assert "total variation" in told
    wide, narrow = (leaderboard.render(items, "text", screen=Screen(width)) for width in (400, 80))
    for word in cells.COSTS:
        assert re.search(rf"\b{re.escape(word)}\b", wide.partition("\n\n")[2].partition("\n")[0]), word
        assert re.search(rf"\b{re.escape(word)}\b", " ".join(narrow.split())), word
    assert "No room" not in wide and "No room at 80 columns for" in narrow


def test_frame_has_a_line_a_row():
    found = rows(board())
    frame = to_frame(found)
    assert len(frame) == len(found)
    assert frame.set_index("method").loc["prune95", "mark"] == "▼"
    assert list(to_frame([]).columns) == list(frame.columns)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(0, 100), min_size=1, max_size=5))
def test_rows_do_not_depend_on_the_order_of_the_records(mistakes):
    items = [record("dense", acc=right(100, 10)), record("uniform", acc=right(100, 60))]
    items += [record(f"prune{10 + i}", acc=right(100, wrong)) for i, wrong in enumerate(mistakes)]
    numbers = [
        {row.method: (row.low, row.p_holm, row.kept) for row in rows(order)} for order in (items, items[::-1])
    ]
    assert numbers[0] == numbers[1]


def test_the_margin_is_an_option():
    strict, loose = (by_method(rows(board(), margin=margin))["prune50"] for margin in (0.005, 0.05))
    assert (strict.within, loose.within) == (False, True)
    assert against_dense.MARGIN == 0.01


@pytest.mark.parametrize(
    "ends, text",
    [
        ((0.0101, 0.0, 0.02), "+1.0 [0.0, +2.0] %"),
        ((3.0, 2.0, 4.0), "+1,909 [+638.9, +5,360] %"),
        ((690.0, 12.0, 720.0), "+4.6e+301 [+1.6e+07, +1.0e+306] %"),
    ],
)
def test_a_perplexity_that_explodes_is_told_to_its_size(ends, text):
    middle, low, high = ends
    row = Row("m", "t", "x", scale="log", difference=middle, low=low, high=high)
    assert row.interval == text and row.half_width > 0


@pytest.mark.parametrize("change, words", [
    (lambda item: item.measured["fidelity"]["flips"].update(value=0.001), "flips is 0.001 in the record but"),
    (lambda item: item.scores.pop("fidelity flips"), "flips is 0.03 in the record but not defined by its"),
])  # fmt: skip
def test_what_a_record_says_of_answers_is_held_against_its_samples(change, words):
    item = faithful(record("prune80", acc=right(100, 9)), flips=right(100, 3) != 1)
    items = [record("dense", acc=right(100, 8)), item]
    assert [row.status for row in rows(items)] == ["measured"] * 2
    change(item)
    (row,) = [row for row in rows(items) if row.method == "prune80"]
    assert row.status == "failed" and words in row.error
