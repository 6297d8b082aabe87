"""What a board can tell apart: ties, methods over columns, sweeps that turn round."""

from __future__ import annotations

import pytest
from sample_records import record, right

from attnbench.boards import board
from attnbench.boards.page import document
from attnbench.boards.tables import apart, separable

SAMPLES = 500
WRONG = {"dense": 20, "uniform": 250, "prune50": 22, "prune80": 40, "prune95": 150, "logquant3": 22}
MEASURED = {
    "prune50": {"sparsity": 0.5}, "prune80": {"sparsity": 0.8}, "prune95": {"sparsity": 0.95},
    "logquant2": {"bits": 2, "sparsity": 0.6}, "logquant3": {"bits": 3, "sparsity": 0.7},
}  # fmt: skip


def made(model="tiny", **changes):
    items = []
    for method, wrong in (WRONG | changes).items():
        items.append(record(method, model, acc=right(SAMPLES, wrong)))
        items[-1].measured = dict(MEASURED.get(method, {}))
    return items


def lines(*items):
    (section,) = board.build([each for group in items for each in group]).sections
    text = "\n\n".join(separable.of_section(section))
    return text, [
        [cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if "|" in line
    ]


def test_methods_that_the_samples_cannot_tell_apart_share_their_ranks():
    text, table = lines(made())
    told = "tiny on sst2: 2 of 4 methods tied with the best on 500 samples: "
    assert told in text and sorted(text.partition(told)[2].partition(".")[0].split(", ")) == [
        "logquant3",
        "prune50",
    ]
    assert table[0] == ["method", "tiny, sst2"]
    assert dict(table[2:]) == {"prune50": "**1–2**", "logquant3": "**1–2**", "prune80": "3", "prune95": "4"}


def test_a_method_is_summed_up_over_its_columns():
    text, table = lines(made(), made("other", prune80=20))
    start = next(k for k, line in enumerate(table) if line[1] == "columns")
    end = start + 2 + len(WRONG) - 2
    rows = {line[0]: dict(zip(table[start], line, strict=True)) for line in table[start + 2 : end]}
    assert {name: row["columns"] for name, row in rows.items()} == dict.fromkeys([*WRONG][2:], "2")
    row = rows["prune80"]
    assert (row["better"], row["worse"], row["undecided"]) == ("0", "1", "1")
    kept = (1 - 20 / 230 + 1) / 2  # one column 20 of 230 mistakes from dense to uniform, one at dense
    assert row["mean kept [95 %]"].startswith(f"{100 * kept:.0f}% [")
    assert "dense and uniform taken as they are" in text


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({}, None),
        ({"prune80": 90, "prune95": 60}, "prune95 scores +6.0"),
        ({"prune80": 62, "prune95": 60}, None),  # by chance
        ({"logquant2": 80, "logquant3": 22}, None),  # three bits are better than two
        ({"logquant2": 22, "logquant3": 80}, "logquant2 scores +11.6"),
    ],
)
def test_a_sweep_that_turns_round_is_told(wrong, told):
    text, _ = lines(made(**wrong))
    assert ("Sweeps that turn round" in text) == (told is not None)
    if told:
        assert f"- tiny on sst2: {told}" in text and ", which leaves more." in text


def test_the_file_names_its_board():
    found = separable.files(board.build(made()), "small")
    assert list(found) == ["small-ranks.md"] and b"what is separable" in found["small-ranks.md"]


HEADS = {"heads50:gradient": 22, "heads50:entropy": 150, "heads50:random": 160}


def told(*items):
    (section,) = board.build([each for group in items for each in group]).sections
    return apart.markdown(section)


def test_methods_of_one_budget_are_told_apart():
    text = told(made(**HEADS))
    assert "- heads50:gradient is best; behind: :entropy, :random." in text
    assert "prune50" not in text.partition(apart.BUDGETS)[2].partition("<sub>")[0]  # alone at its budget
    several = told(made(**HEADS), made("other", **HEADS | {"heads50:entropy": 22}))
    line = "- heads50, tied with the best on so many of 2 columns: :gradient 2, :entropy 1, :random 0."
    assert line in several and "- tiny on sst2: " in several and "- other on sst2: " in several


def test_where_nothing_is_behind_budgets_are_counted():
    text = told(made(**dict.fromkeys(HEADS, 22)))
    assert "- 1 budget: all methods are tied." in text and "is best" not in text


@pytest.mark.parametrize(("kept", "compared"), [(0.5, True), (0.52, True), (0.8, False)])
def test_what_leaves_more_is_of_another_budget(kept, compared):
    items = made(**HEADS)
    for item in items:
        if item.cell["method"] in HEADS:
            item.measured["heads"] = kept if item.cell["method"] == "heads50:gradient" else 0.5
    line = ":entropy, :random." if compared else "heads50:entropy is best; behind: :random."
    assert (line in told(items)) == compared or not compared
    assert ("heads50:gradient is best" in told(items)) == compared


@pytest.mark.parametrize(
    ("method", "name"),
    [
        ("prune80", "prune80"),
        ("prune80:random:seed=3", "prune80"),
        ("heads50:gradient:on=encoder:steps=5", "heads50:on=encoder"),
        ("prune80+logquant3:edge", "prune80+logquant3"),
        ("gates:l0:penalty=0.1", "gates"),
    ],
)
def test_a_budget_is_name_amount_and_place(method, name):
    assert apart.budget(method) == name


def test_a_long_table_leaves_ranks_out_and_says_so(monkeypatch):
    monkeypatch.setattr(apart, "MOST", 5)
    text = told(made(), made("other"))
    assert apart.LEFT_OUT in text and "tied with the best" not in text and "| prune80 " in text
    page = document.to_html(board.build([*made(), *made("other")]))
    assert "Ranks and alarms are left out" in page


def test_the_page_says_the_same():
    page = document.to_html(board.build(made(**HEADS, prune80=90, prune95=60)))
    for text in ("heads50:gradient is best; behind: :entropy, :random.", "prune95 scores +6.0", apart.TITLE):
        assert text in page
    assert apart.TITLE not in document.to_html(board.build([record("dense", acc=right(9, 1))]))
