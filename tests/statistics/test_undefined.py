"""A statistic that is not defined on its samples is null and a dash, never zero."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from sample_records import record, right
from scipy import stats

from attnbench.boards import board
from attnbench.boards.tables import leaderboard
from attnbench.records import record as records
from attnbench.statistics import against_dense, inference, pairs
from attnbench.statistics.aggregates import aggregate, defined

LINE = [[1.0, 2.0], [2.0, 4.0], [3.0, 5.0], [4.0, 9.0]]
TP, FP, FN, TN = np.eye(4)


@pytest.mark.parametrize(
    ("kind", "rows", "wanted"),
    [
        ("pearson", LINE, stats.pearsonr(*np.array(LINE).T)[0]),
        ("spearman", LINE, 1.0),
        ("pearson", LINE[:1], None),
        ("pearson", LINE[:2], None),
        ("spearman", LINE[:2], None),
        ("pearson", [[x, 1.0] for x, _ in LINE], None),
        ("spearman", [[0.5, y] for _, y in LINE], None),
        ("mcc", [TP, TP, FN], None),
        ("mcc", [TP, TP, FP], 0.0),  # one label said: zero by the definition that scikit-learn has too
        ("mcc", [TP, FP, FN, TN, TN], (1 * 2 - 1) / math.sqrt(2 * 2 * 3 * 3)),
        ("f1", [TN, TN], None),
        ("f1", [TN, FN], 0.0),
    ],
)
def test_what_is_not_defined_is_no_number(kind, rows, wanted):
    found = aggregate(kind, np.array(rows))
    assert math.isnan(found) if wanted is None else found == pytest.approx(wanted)
    assert defined(kind, np.array(rows)) == (wanted is not None)


@pytest.mark.parametrize(
    ("kind", "rows"),
    [
        ("mean", [1.0]),
        ("pearson", LINE[:3]),
        ("pearson", [[x, float(x == 1)] for x, _ in LINE]), ("mcc", [TP, TN, TN, TN]),
        ("f1", [TP, TN, TN]),
    ],
)  # fmt: skip
def test_an_error_that_hangs_on_one_sample_is_none(kind, rows):
    assert math.isnan(inference.standard_error(kind, [np.array(rows)]))


def test_a_table_and_json_have_no_number_where_there_is_none(tmp_path):
    constant = np.array([[x, 1.0] for x in np.linspace(0, 1, 12)])
    items = [record(method, kind="pearson", pearson=constant) for method in ("dense", "prune80")]
    for item in items:
        item.metrics["pearson"] |= {"value": None, "stderr": None}
        records.write(tmp_path, item)
    read = list(records.read_all(tmp_path))
    assert [item.metrics["pearson"]["value"] for item in read] == [None, None]
    assert all(against_dense.problem(item) is None for item in read)
    text = leaderboard.render(read, "md")
    assert "0.0" not in text.partition("##")[2].partition("<sub>")[0] and "pearson is not defined" in text
    (row, _) = json.loads(json.dumps(leaderboard.to_json(read), allow_nan=False))
    assert (
        row["comparison"]["pearson"]["score"] is None and row["comparison"]["pearson"]["difference"] is None
    )
    with pytest.raises(pairs.Undefined, match="not defined"):
        pairs.difference(read[1:], read[:1])
    assert any("not defined" in line for line in pairs.report(read, "prune80", "dense", None, None))


def test_zero_in_the_place_of_what_is_not_defined_is_found():
    item = record("dense", kind="pearson", pearson=np.array([[x, 1.0] for x in range(12)]))
    item.metrics["pearson"] |= {"value": 0.0, "stderr": 0.0}
    assert "not defined by its samples" in against_dense.problem(item)


def test_only_what_can_be_undefined_may_be_null(tmp_path):
    item = record("dense", acc=right(20, 3))
    item.metrics["acc"]["value"] = None
    path = records.write(tmp_path, item)
    with pytest.raises(ValueError, match="metrics acc value is None"):
        records.read(path)


@pytest.mark.parametrize(
    ("samples", "dense", "uniform", "told"),
    [
        (10, 4, 9, "it is undecided whether the uniform-attention baseline is worse than dense"),
        (20000, 4000, 4000, "the uniform-attention baseline is not worse by 1 point or more"),
        (400, 300, 20, "the uniform-attention baseline is better than dense"),
        (400, 20, 300, None),
    ],
)
def test_of_uniform_attention_is_said_what_is_shown(samples, dense, uniform, told):
    items = [
        record("dense", acc=right(samples, dense)),
        record("uniform", acc=right(samples, uniform, samples - uniform)),
    ]
    text = " ".join(leaderboard.render(items, "text").split())
    assert (told is None) == ("uniform-attention baseline is" not in text)
    assert told is None or told in text
    assert told is None or "undecided" not in told or "baseline is not worse" not in text


def test_what_is_better_beyond_chance_is_marked_by_holm():
    dense = right(1000, 200)
    items = [
        record("dense", acc=dense),
        record("cheat", acc=right(1000, 100)),
        record("alike", acc=right(1000, 197)),
    ]
    rows = {row.method: row for row in against_dense.rows(items)}
    assert rows["cheat"].suspicious and rows["cheat"].mark.endswith("!") and rows["cheat"].p_better < 1e-6
    assert not rows["alike"].suspicious and not rows["dense"].suspicious
    text = leaderboard.write(board.build(items))
    assert "better than dense beyond chance" in text and "cheat on tiny sst2" in text


def test_of_many_lucky_ones_none_is_suspicious():
    dense = right(200, 40)
    draw = np.random.default_rng(0)
    items = [record("dense", acc=dense)]
    for k in range(60):  # the same skill: other samples, as many
        scores = dense.copy()
        lost, won = (
            draw.choice(np.flatnonzero(dense == 1), 8),
            draw.choice(np.flatnonzero(dense == 0), draw.integers(0, 18)),
        )
        scores[lost], scores[won] = 0, 1
        items.append(record(f"m{chr(97 + k // 26)}{chr(97 + k % 26)}", acc=scores))
    rows = against_dense.rows(items)
    assert any(row.better for row in rows) and not any(row.suspicious for row in rows)
