"""What a board says of costs: why some are not there, and when others were measured."""

from __future__ import annotations

import pytest
from sample_records import record, right

from attnbench.boards import board
from attnbench.boards.tables import leaderboard, setting


@pytest.mark.parametrize(
    ("whys", "told"),
    [
        (["too few"], "tiny sst2: mask0 has no latency: too few."),
        (["too few"] * 8, "mask0, mask1, mask2, mask3, mask4, mask5, 2 more have no latency: too few."),
        (
            ["noise", "too few", "noise", "too far"],
            "tiny sst2: mask0, mask2 have no latency: noise. mask1 has no latency: too few. "
            "mask3 has no latency: too far.",
        ),
        (
            ["noise", "too few", "too far", "too wide", "too deep"],
            "mask2 has no latency: too far. Nor have mask3, mask4: each record says why.",
        ),
    ],
)
def test_a_line_says_why_there_is_no_latency(whys, told):
    items = [record("dense", acc=right(100, 9))]
    for number, why in enumerate(whys):
        items.append(record(f"mask{number}", acc=right(100, 10 + number)))
        items[-1].measured = {"latency": {"why": why}}
    for form in ("md", "text"):
        assert told in " ".join(leaderboard.write(board.build(items), form).split())


def test_costs_that_came_later_say_when_and_where():
    items = [record("dense", acc=right(100, 9)), record("prune80", acc=right(100, 10))]
    later = {"date": "2026-03-01T10:00:00+00:00", "environment": {"processor": "Another", "threads": 1}}
    items[1].measured = {"flops": {"dense": 1e9, "simulated": 0.9}, "costs": later}
    (told,) = [line for line in setting.whole([], items, str) if line.startswith("Costs")]
    assert told == "Costs measured after the scores: 2026-03-01, processor Another, threads 1."


def test_dense_times_are_of_a_pass_or_of_a_token_after_a_prompt():
    items = [record(name, acc=right(100, 9)) for name in ("dense", "heads50:random", "evict50:tova")]
    items[0].measured = {"flops": {"dense": 2e9}, "memory": {"dense": 3e6}}
    timed = {"ratio": 0.5, "samples": 1, "threads": 1}
    items[1].measured = {"latency": {**timed, "seconds": 1.5, "tokens": 64}}
    items[2].measured = {
        "latency": {**timed, "seconds": 0.02, "tokens": 40}, "first": {**timed, "seconds": 2.0},
        "held": {"dense": 8.0, "ratio": 0.5},
    }  # fmt: skip
    assert (
        "tiny sst2 dense: 2 GFLOPs a sample, 1 sample of 64 tokens in 1.5 s, a prompt of 40 tokens and the "
        "first token after it in 2 s, the next one in 20 ms, at most 3 MB held by one attention module, "
        "1 thread."
    ) in " ".join(leaderboard.write(board.build(items), "text").split())
