"""Claims: how they read, when they hold, fail or stay undecided, and what pocket models can say of them."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from sample_records import faithful, missing, record, right

from attnbench.boards import board, claims, decisions, suite
from attnbench.boards.formats import exports
from attnbench.boards.page import document
from attnbench.boards.tables import leaderboard
from attnbench.errors import UserError

METHODS = ("prune50", "prune80", "prune95", "prune80:random")


def test_grammar():
    found = claims.parse("prune50.0 > prune80 > uniform on sst2")
    assert found.pairs == (("prune50", "prune80"), ("prune80", "uniform"))
    assert found.task == "sst2" and found.within is None
    found = claims.parse("prune80 within 1.5 of dense")
    assert found.pairs == (("prune80", "dense"),) and found.within == 1.5 and found.task is None


@pytest.mark.parametrize(
    "text", ["", "prune80", "prune80 >", "> prune80", "prune80 < dense", "prune80 within of dense",
             "prune80 within -1 of dense", "prune80 within 1 of", "prune80 > dense >", "prune80 > dense on",
             "prone80 > dense", "a b c d e f g", "prune80 flips", "prune80 flips < x", "prune80 flop < 3",
             "prune80 flips = 3", "flips < 3", "prune80 flips < -1"],
)  # fmt: skip
def test_malformed_claims_say_what_one_looks_like(text):
    with pytest.raises(UserError, match=r"^claim '") as caught:
        claims.parse(text)
    assert "\n" not in str(caught.value)


def test_a_claim_is_about_methods_of_the_suite(tmp_path):
    path = tmp_path / "x.toml"
    path.write_text(
        'models=["m"]\ntasks=["t"]\nmethods=["prune80"]\nclaims=["prune81 > uniform"]', encoding="utf-8"
    )
    with pytest.raises(UserError, match="prune81 is none of the suite's methods"):
        suite.load(path)


def test_a_claim_names_seeds_that_were_chosen_by_what_groups_them(tmp_path):
    path = tmp_path / "x.toml"
    methods = '["finetune5:seed=1", "finetune5:seed=2", "mask40"]'
    path.write_text(
        f'models=["m"]\ntasks=["t"]\nmethods={methods}\nclaims=["finetune5 > mask40"]', encoding="utf-8"
    )
    assert suite.load(path).claims


@pytest.mark.parametrize(
    "claim, words",
    [
        ("prune80 > uniform on translaton", "translaton is none of the suite's tasks, sst2, translation. Did "
         "you mean translation?"),
        ("prune80 > uniform on squad", "squad is none of the suite's tasks, sst2, translation."),
        ("prun80 > uniform", "prun80"),
        ("prune81 > uniform", "prune81 is none of the suite's methods. Did you mean prune80"),
        ("prune50 > uniform on sst2", "no part of the suite has prune50 and uniform on sst2"),
        ("prune50 > window4", "no part of the suite has prune50 and window4"),
    ],
)  # fmt: skip
def test_a_claim_that_nothing_could_decide_is_refused(tmp_path, claim, words):
    path = tmp_path / "x.toml"
    parts = (("sst2", "window4"), ("translation", "prune50"))
    text = f'methods = ["prune80"]\nclaims = ["prune80 > uniform on translation", "{claim}"]\n'
    for task, method in parts:
        text += f'[[part]]\nmodels = ["m"]\ntasks = ["{task}"]\nmethods = ["{method}"]\n'
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError) as caught:
        suite.load(path)
    assert words in str(caught.value) and f"claim '{claim}'" in str(caught.value)


def asked(*texts, models=("tiny",)):
    part = suite.Part(tuple(models), ("sst2",))
    return suite.Suite(suite.Path("x.toml"), "A paper", METHODS, (part,), texts, repeats=2)


def items(model="tiny"):
    wrong = {"dense": 50, "uniform": 400, "prune50": 50, "prune80": 58, "prune95": 120}
    out = [record(method, model=model, acc=right(1000, count)) for method, count in wrong.items()]
    out += [
        record(m, model=model, acc=right(1000, w))
        for m, w in (("prune80:random", 300), ("prune80:random:seed=1", 320))
    ]
    return out


def decide(*texts, records=None, models=("tiny",)):
    found = board.build(items() if records is None else records, asked(*texts, models=models))
    return [(each.verdict, each.same_shape) for each in decisions.evaluate(found)]


@pytest.mark.parametrize(
    "text, verdict",
    [
        ("prune80 > prune95", "holds"),
        ("prune95 > prune80", "fails"),
        ("prune50 > dense", "undecided"),
        ("prune80 > prune80:random", "holds"),
        ("prune80:random > prune80", "fails"),
        ("dense > prune80 > prune95", "holds"),
        ("dense > prune95 > prune80", "fails"),
        ("prune80 within 3 of dense", "holds"),
        ("prune95 within 3 of dense", "fails"),
        ("prune80 within 0.9 of dense", "undecided"),
        ("dense within 0 of prune95", "holds"),
    ],
)
def test_verdicts(text, verdict):
    assert decide(text)[0][0] == verdict


def test_a_perplexity_is_within_percent_and_lower_is_better():
    rng = np.random.default_rng(0)
    base = np.stack([-rng.gamma(9, 2, 500), np.full(500, 6.0)], 1)
    factors = {"dense": 1, "uniform": 1.5, "prune50": 1.001, "prune80": 1.02, "prune95": 1.1}
    found = [record(m, kind="perplexity", ppl=base * [f, 1]) for m, f in factors.items()]
    assert [verdict for verdict, _ in decide(
        "prune50 > prune80", "prune80 > prune50", "prune80 within 10 of dense", "prune80 within 1 of dense",
        records=found,
    )] == ["holds", "fails", "holds", "fails"]  # fmt: skip


@pytest.mark.parametrize("others", [0, 8])
def test_within_a_margin_of_dense_is_what_the_table_says(others):
    """Eight lost and eight won of 1000 show it of one method, p = 0.014, of nine like it they do not."""
    score = right(1000, 50)
    score[42:50], score[50:58] = 1, 0
    names = ["prune80", *(f"prune{9 - k}.5" for k in range(others))]
    found = [record("dense", acc=right(1000, 50)), *(record(name, acc=score) for name in names)]
    texts = ("prune80 within 1 of dense", "prune80 within 3 of dense", "dense within 1 of prune80")
    wanted = dataclasses.replace(asked(*texts), methods=tuple(names))
    built = board.build(found, wanted)
    (row,) = (row for row in built.sections[0].rows if row.method == "prune80")
    assert 0.05 / 9 < row.p_margin < 0.05 and row.within == (not others)
    expected = "undecided" if others else "holds"
    assert [each.verdict for each in decisions.evaluate(built)] == [expected, "holds", "holds"]


@pytest.mark.parametrize(
    "text, verdict, shape",
    [
        ("prune80 flips < 3", "holds", True),  # 10 of 1,000: Wilson's interval is 0.54 to 1.83 %
        ("prune80 flips > 3", "fails", False),
        ("prune80 flips < 0.5", "fails", False),
        ("prune80 flips < 1.5 on sst2", "undecided", True),
        ("prune80 flips < 0.9", "undecided", False),
        ("prune80 kl < 0.2", "holds", True),
        ("prune80 kl > 0.05", "holds", True),
        ("prune80 answers-changed < 3", "not applicable", None),
        ("prune80:random flips < 99", "holds", True),  # over its seeds
        ("dense flips < 3", "not applicable", None),
    ],
)
def test_a_claim_may_be_of_what_a_method_does_to_answers(text, verdict, shape):
    found = items()
    rng = np.random.default_rng(0)
    for item in found:
        if item.cell["method"].startswith("prune80"):
            turned = right(1000, 10) != 1
            faithful(item, flips=turned, kl=rng.gamma(2, 0.05, 1000))
    assert decide(text, records=found) == [(verdict, shape)]
    header, rows = decisions.table(decisions.evaluate(board.build(found, asked(text))))
    assert header[-1] == "difference or share [95 %]"
    if text == "prune80 flips < 3":
        assert rows == [[text, "tiny", "sst2", "holds", "1.0% [0.5, 1.8]"]]


def test_what_was_not_measured_is_said():
    records = [item for item in items() if item.cell["method"] != "prune95"]
    assert decide("prune80 > prune95", records=records) == [("not measured", None)]
    records.append(missing("prune95", "failed", "x"))
    assert decide("prune80 > prune95", records=records) == [("not measured", None)]
    records[-1] = missing("prune95", "not applicable", "x")
    assert decide("prune80 > prune95", records=records) == [("not applicable", None)]
    assert decide("prune80 > prune95 on squad") == []
    fewer, broken = (
        [item if item.cell["method"] != "prune95" else other for item in items()]
        for other in (record("prune95", acc=right(900, 100)), record("prune95", acc=right(1000, 120)))
    )
    next(item for item in broken if item.cell["method"] == "prune95").metrics["acc"]["value"] = float("nan")
    for records in (fewer, broken):
        assert decide("prune80 > prune95", "dense > prune80", records=records) == [
            ("not measured", None), ("holds", True),
        ]  # fmt: skip


def test_pocket_models_only_show_a_shape():
    texts = ("prune80 > prune95", "prune50 > dense", "prune95 within 3 of dense")
    found = board.build([*items(), *items("pocket-bert")], asked(*texts, models=("tiny", "pocket-bert")))
    header, rows = decisions.table(decisions.evaluate(found))
    assert header == ["claim", "model", "task", "verdict", "difference [95 %]", "same shape"]
    table = {(row[0], row[1]): (row[3], row[5]) for row in rows}
    assert table[texts[0], "tiny"] == ("holds", "") and table[texts[0], "pocket-bert"] == ("", "yes")
    assert table[texts[1], "pocket-bert"] == ("", "no?") and table[texts[2], "pocket-bert"] == ("", "no")
    told = (
        "where its 95 % interval, paired where two methods are compared, lies on one side; this is not "
        "corrected for the number of claims"
    )
    assert list(decisions.notes(decisions.evaluate(found))) == [
        "3 checks: 1 held, 1 failed, 1 undecided.",
        "On pocket models 1 of 3 have the same shape and 1 have not; 1 stay open, 0 of which lean to it. "
        "None of it is evidence.",
        f"A claim holds or fails {told}.",
        f"Same shape is yes or no {told}; elsewhere it is yes? or no?, by the estimate alone.",
        "A claim of being within a margin of dense holds as ≈ does in the table, at its own margin.",
    ]
    only = board.build(items("pocket-bert"), asked(*texts, models=("pocket-bert",)))
    assert "verdict" not in decisions.table(decisions.evaluate(only))[0]


@pytest.mark.parametrize(
    "text, shape",
    [
        ("prune80 > prune95", "yes"),
        ("prune95 > prune80", "no"),
        ("prune80 within 0.9 of dense", "yes?"),  # -0.8, and the interval has the margin inside
        ("prune80 within 0.7 of dense", "no?"),
        ("dense > prune80 > prune95", "yes"),
        ("dense > prune50 > prune95", "no?"),
    ],
)
def test_a_shape_is_told_plainly_only_where_the_interval_is_on_one_side(text, shape):
    found = board.build(items("pocket-bert"), asked(text, models=("pocket-bert",)))
    (outcome,) = decisions.evaluate(found)
    assert outcome.shape == shape and decisions.table([outcome])[1][0][-1] == shape


def test_what_is_mostly_dense_decides_no_claim():
    records = items()
    assert decide("prune80 > prune95", records=records) == [("holds", True)]
    next(each for each in records if each.cell["method"] == "prune95").receipt = {"cut": 0.4}
    assert decide("prune80 > prune95", records=records) == [("undecided", None)]


def test_claims_stand_on_the_board():
    found = board.build(items(), asked("prune80 > prune95", "prune80 within 3 of dense"))
    text = leaderboard.write(found)
    assert "## Claims" in text and "2 checks: 2 held, 0 failed, 0 undecided." in text
    line = next(line for line in text.splitlines() if line.startswith("| prune80 within 3 of dense"))
    assert "holds" in line and "−0.8" in line
    assert "<h2>Claims</h2>" in document.to_html(found) and "prune80 &gt; prune95" in document.to_html(found)
    assert "Claims" in leaderboard.write(found, "text") and exports.to_csv(found)
