"""Who measures what: shares of a matrix, and the order in which cells are handed out."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attnbench.errors import UserError
from attnbench.inputs.settings import Settings
from attnbench.matrix import estimate
from attnbench.matrix.plan import Cell
from attnbench.matrix.sharing import shards
from attnbench.matrix.sharing.schedule import Schedule
from attnbench.matrix.sharing.shards import MARK, Shard


@given(sizes=st.dictionaries(st.text(max_size=3), st.integers(1, 1000), max_size=40), of=st.integers(1, 12))
def test_shards_part_the_columns_and_none_has_much_more_than_another(sizes, of):
    found = [shards.share(Shard(number, of), sizes) for number in range(1, of + 1)]
    assert sorted(key for each in found for key in each) == sorted(sizes)
    loads = [sum(sizes[key] for key in each) for each in found]
    # what came last to the fullest came when that had least of all
    assert max(loads) - min(loads) <= max(sizes.values(), default=0)


def test_a_share_is_the_largest_first_by_hand():
    sizes = {"a": 5, "b": 9, "c": 4, "d": 4}
    assert [shards.share(Shard(k, 2), sizes) for k in (1, 2)] == [{"b", "d"}, {"a", "c"}]
    assert shards.share(Shard(5, 5), sizes) == set()


def test_a_column_is_as_large_as_its_cells_and_samples():
    samples = {"limit 10": 30, "all": 3 * 400}
    assert shards.size("pocket-sentiment", 3, Settings(limit=10)) == samples["limit 10"]
    known = shards.size("pocket-sentiment", 3, Settings())
    assert known % 3 == 0 and known >= samples["limit 10"]


def _slurm(number, first, last, count, step=None):
    values = dict(zip(shards.SLURM, map(str, (number, first, last, count)), strict=True))
    return values | ({shards.STEP: str(step)} if step else {})


READ = {
    "2/3": ({}, Shard(2, 3)),
    "0-3": (_slurm(0, 0, 3, 4), Shard(1, 4)),
    "1-4": (_slurm(4, 1, 4, 4), Shard(4, 4)),
    "10-30:10": (_slurm(20, 10, 30, 3, 10), Shard(2, 3)),
}


@pytest.mark.parametrize("name", READ)
def test_a_shard_is_read(name):
    variables, shard = READ[name]
    assert shards.parse("slurm" if variables else name, variables) == shard


REFUSED = {
    "0/3": ({}, "--shard 0/3: give K/N"),
    "4/3": ({}, "--shard 4/3: give K/N"),
    "-1/3": ({}, "--shard -1/3: give K/N"),
    "1": ({}, "--shard 1: give K/N"),
    "no array": ({}, "SLURM_ARRAY_TASK_ID is no number here: `sbatch --array=1-4` sets it"),
    "gaps": (_slurm(7, 1, 7, 3), "an array with gaps has no shares: give --array=1-3"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_no_shard_is_read(name):
    variables, words = REFUSED[name]
    with pytest.raises(UserError, match=re.escape(words)):
        shards.parse(name if "/" in name or name == "1" else "slurm", variables)


def test_shards_of_something_else_in_one_folder_are_refused_until_all_is_there(tmp_path):
    columns = [("a", "x"), ("b", "x")]
    shards.claim(tmp_path, Shard(1, 2), "one.toml", columns)
    shards.claim(tmp_path, Shard(2, 2), "one.toml", columns[::-1])
    others = {
        "another suite": (Shard(1, 2), "two.toml", columns, "2 shards of two.toml, 2 columns"),
        "another number": (Shard(1, 3), "one.toml", columns, "3 shards of one.toml, 2 columns"),
        "other columns": (Shard(1, 2), "one.toml", columns[:1], "2 shards of one.toml, 1 columns"),
    }
    for shard, source, mine, words in others.values():
        with pytest.raises(UserError) as caught:
            shards.claim(tmp_path, shard, source, mine)
        told = str(caught.value)
        assert told.startswith(f"--records {tmp_path} is being filled by 2 shards of one.toml, 2 columns")
        assert words in told and f"rm {tmp_path / MARK}" in told
    paths = [tmp_path / "a.json", tmp_path / "b.json"]
    paths[0].touch()
    shards.settle(tmp_path, paths)
    assert [path.name for path in tmp_path.glob(".*")] == [MARK]
    paths[1].touch()
    shards.settle(tmp_path, paths)
    assert not list(tmp_path.glob(".*"))
    shards.claim(tmp_path, Shard(1, 3), "one.toml", columns)


def test_a_note_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / MARK).write_text("[", encoding="utf-8")
    with pytest.raises(UserError, match="is being filled by shards that cannot be read"):
        shards.claim(tmp_path, Shard(1, 2), "one.toml", [])


def _cells(model, *methods):
    return [Cell(model, "t", method) for method in methods]


def _schedule(**columns):
    return Schedule([((model, "t"), _cells(model, *methods.split())) for model, methods in columns.items()])


def test_dense_comes_before_the_others_of_its_column_whoever_takes_them():
    schedule = _schedule(a="dense p q")
    group, cell = schedule.take()
    assert cell.method == "dense" and schedule.take() is None and len(schedule.left) == 2
    schedule.done(group, cell)
    assert schedule.take(group)[1].method == "p" and schedule.take()[1].method == "q"
    assert schedule.take(group) is None and not schedule.left


def test_columns_that_nobody_has_opened_come_first_then_the_one_with_most_left():
    schedule = _schedule(a="dense p q", b="dense r s u", c="dense")
    one, cell = schedule.take()
    schedule.done(one, cell)
    two, cell = schedule.take()
    schedule.done(two, cell)
    assert (one.model, two.model) == ("a", "b")
    assert schedule.take(one)[1] == Cell("a", "t", "p")  # its own column first
    third, _ = schedule.take()
    assert third.model == "c"
    assert schedule.take(third)[1] == Cell("b", "t", "r")  # then it helps


def test_what_another_run_measures_comes_after_what_is_nobodys():
    schedule = _schedule(a="dense p q", b="dense r")
    one, cell = schedule.take()
    schedule.done(one, cell)
    group, cell = schedule.take(one)
    schedule.elsewhere(group, cell)
    two, cell = schedule.take(one)
    assert cell == Cell("b", "t", "dense")
    schedule.done(two, cell)
    assert [schedule.take(two)[1] for _ in range(2)] == [Cell("b", "t", "r"), Cell("a", "t", "q")]
    assert schedule.take(two) is None and schedule.left == _cells("a", "p")
    schedule.again()
    assert schedule.take(two)[1] == Cell("a", "t", "p")


def test_dense_that_another_run_measures_is_waited_for():
    schedule = _schedule(a="dense p")
    group, cell = schedule.take()
    schedule.elsewhere(group, cell)
    assert schedule.take(group) is None
    schedule.again()
    assert schedule.take(group)[1].method == "dense"


def test_what_a_worker_left_comes_back_and_what_is_given_up_does_not():
    schedule = Schedule([(("a", "t"), _cells("a", "dense", "p")), (("a", "t"), _cells("a", "q"))])
    group, cell = schedule.take()
    schedule.back(group, cell)
    assert schedule.take() == (group, cell) and schedule.take() is None
    schedule.done(group, cell)
    assert {schedule.take()[1].method for _ in range(2)} == {"p", "q"}
    schedule.back(group, cell)
    schedule.drop(group)
    assert not schedule.left and schedule.take() is None


def test_what_is_left_of_a_column_by_what_is_recorded(tmp_path):
    def put(model, method, seconds):
        path = tmp_path / model / "t" / f"{method}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        body = {"status": "measured", "seconds": {"evaluate": seconds}}
        path.write_text(json.dumps(body), encoding="utf-8")

    put("a", "dense", 2.0)
    put("a", "p", 4.0)
    put("b", "dense", 10.0)
    cells = [(model, "t", method) for model in "abc" for method in ("dense", "p", "q")]
    # a: one cell at the mean of 2 and 4; b: two at 10; c is not known: three at the mean of 3 and 10
    assert estimate.seconds_left(tmp_path, cells) == {
        ("a", "t"): 3.0, ("b", "t"): 20.0, ("c", "t"): 19.5
    }  # fmt: skip
    assert estimate.seconds_left(tmp_path / "none", cells[:3]) == {("a", "t"): 3.0}
