"""How far a sweep can go: the choice, the choices of the folds, and what they score elsewhere."""

from __future__ import annotations

import numpy as np
import pytest
from sample_records import missing, record, right

from attnbench.boards import board, choice, suite
from attnbench.boards.page import document
from attnbench.boards.tables import leaderboard
from attnbench.errors import UserError
from attnbench.matrix import estimate
from attnbench.records import record as records
from attnbench.statistics import inference
from attnbench.statistics.aggregates import aggregate

TEXT = """
models = ["tiny"]
tasks = ["sst2"]
methods = ["prune50", "prune80", "prune95", "prune80:random"]
sweeps = ["prune"]
repeats = 1
"""


def found(tmp_path, items, text=TEXT):
    path = tmp_path / "small.toml"
    path.write_text(text, encoding="utf-8")
    return board.build(items, suite.load(path))


def sweep(*wrong):
    items = [record("dense", acc=right(1000, 80)), record("uniform", acc=right(1000, 480))]
    names = ("prune50", "prune80", "prune95")
    return items + [record(name, acc=right(1000, count)) for name, count in zip(names, wrong, strict=True)]


def test_the_largest_amount_within_the_margin_is_chosen(tmp_path):
    (each,) = choice.choose(found(tmp_path, sweep(80, 85, 300)))
    assert each.row.method == "prune80" and each.folds == ("prune80",) * 5
    assert each.held_out.difference == pytest.approx(-0.005)
    (each,) = choice.choose(found(tmp_path, sweep(120, 150, 300)))
    assert each.row is None and set(each.folds) == {"dense"} and each.held_out.difference == 0


def test_what_only_one_fold_speaks_for_does_not_hold_on_the_others(tmp_path):
    items = sweep(80, 80, 300)
    scores = right(1000, 80)
    scores[80:1000:5] = np.where(np.arange(184) < 42, 0, 1)  # mistakes in the first fold alone
    items[3] = record("prune80", acc=scores)
    (each,) = choice.choose(found(tmp_path, items))
    assert each.row.method == "prune50"  # 4.2 points lost
    assert each.folds == ("prune80", *["prune50"] * 4)
    assert each.held_out.difference == pytest.approx(-0.21 / 5)


@pytest.mark.parametrize("kind", ["acc", "f1"])
def test_every_sample_is_scored_by_the_choice_made_without_it(tmp_path, kind):
    items = sweep(80, 86, 300)
    scores = right(1000, 80)
    scores[80:1000:5] = np.where(np.arange(184) < 42, 0, 1)
    items[3] = record("prune80", acc=scores)
    stitched = items[2].scores["acc"].copy()
    stitched[::5] = scores[::5]  # the first fold alone chooses prune80
    if kind == "f1":
        for item in items:
            counts = np.stack([item.scores["acc"], 0 * stitched, 1 - item.scores["acc"], 0 * stitched], 1)
            item.scores["acc"] = counts
            item.metrics["acc"] |= {"aggregate": "f1", "value": aggregate("f1", counts)}
        stitched = np.stack([stitched, 0 * stitched, 1 - stitched, 0 * stitched], 1)
    (each,) = choice.choose(found(tmp_path, items))
    assert set(each.folds) == {"prune80", "prune50"}
    name = "f1" if kind == "f1" else "mean"
    (expected,) = inference.paired(name, items[0].scores["acc"], [[stitched]], 0.0)
    row = each.held_out
    assert (row.difference, row.low, row.high) == (expected.estimate, expected.low, expected.high)
    assert row.low < row.difference < row.high


def test_held_out_flips_leave_as_much_room_as_anywhere(tmp_path):
    """One flip of 100 samples: four folds of five show none, and their mean's spread is not the truth's."""
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(60):
        dense = right(100, 8)
        flipped = [np.where(rng.random(100) < 0.02, 0, dense) for _ in range(2)]
        items = [record("dense", acc=dense), record("prune50", acc=flipped[0]), record("prune80", acc=dense)]
        (each,) = choice.choose(found(tmp_path, items))
        row = each.held_out
        assert set(each.folds) == {"prune80"} and row.low < 0 == row.difference < row.high
        items[2] = record("prune80", acc=flipped[1])
        (each,) = choice.choose(found(tmp_path, items, TEXT + "margin = 0.2\n"))
        covered += each.held_out.low <= -0.02 * 0.92 <= each.held_out.high
    assert covered >= 54


def test_the_choice_stands_in_every_rendering(tmp_path):
    items = sweep(80, 85, 300)
    items[3].measured = {"heads": 0.5, "latency": {"ratio": 0.8, "low": 0.7, "high": 0.9}}
    made = found(tmp_path, items)
    for text in (leaderboard.write(made, "md"), leaderboard.write(made, "text"), document.to_html(made)):
        assert (
            "How far each can go" in text
            and "prune80 5×" in text
            and "0.80 [0.70, 0.90]" in text.replace("\\", "")
        )


def test_perplexity_is_chosen_by_its_logarithm(tmp_path):
    rng = np.random.default_rng(0)
    length = rng.integers(5, 30, 200).astype(float)
    dense = -length * rng.gamma(9, 1 / 3, 200)

    def made(method, worse):
        return record(method, kind="perplexity", ppl=np.stack([dense - worse * length, length], 1))

    items = [made("dense", 0), made("uniform", 3), made("prune50", 0.005), made("prune80", 0.05)]
    (each,) = choice.choose(found(tmp_path, items))
    assert each.row.method == "prune50" and each.held_out.difference == pytest.approx(0.005)


def test_an_unknown_sweep_is_named(tmp_path):
    with pytest.raises(UserError, match=r"unknown sweep 'prone'\. Did you mean prune"):
        found(tmp_path, [], TEXT.replace('["prune"]', '["prone"]'))


def test_the_time_to_go_is_the_mean_of_a_column(tmp_path):
    folder = tmp_path / "records" / "small"
    cells = [("tiny", "sst2", name) for name in ("dense", "uniform", "prune50", "prune80")]
    assert estimate.describe(folder, cells) == "4 cells, 0 recorded, no time known before the first"
    for item, seconds in zip(sweep(80, 85, 300)[:2], (100.0, 200.0), strict=True):
        item.seconds = {"fit": 0.0, "evaluate": seconds}
        records.write(folder, item)
    assert estimate.describe(folder, cells) == "4 cells, 2 recorded, about 5 minutes to go"
    assert estimate.describe(folder, cells[:2]) == "2 cells, 2 recorded in about 5 minutes"
    assert estimate.describe(tmp_path / "records" / "new", cells[:1]).endswith("about 2 minutes to go")
    others = [("bert-base", "squad", "dense"), ("tiny", "squad", "dense")]
    never = "cells of models never measured on their tasks, time unknown"
    assert estimate.describe(folder, [*cells, *others]) == (
        f"6 cells, 2 recorded, about 5 minutes to go and 2 {never}"
    )
    assert estimate.describe(folder, [*cells[:2], *others]) == f"4 cells, 2 recorded, 2 {never}"
    failed = missing("dense", "failed", "x", model="bert-base", task="squad")
    failed.seconds = {"fit": 1.0}
    records.write(folder, failed)
    assert estimate.describe(folder, [others[0], ("bert-base", "squad", "prune50")]).endswith(
        "1 recorded, 1 cell of models never measured on their tasks, time unknown"
    )
    (folder / "tiny" / "sst2" / "dense.json").write_text("{}")
    assert "2 recorded" in estimate.describe(folder, cells)
