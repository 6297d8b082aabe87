"""The plan: which draws are repeated, and what may not share a record's file."""

from __future__ import annotations

import pytest

from attnbench.errors import UserError
from attnbench.matrix import plan
from attnbench.matrix.request import Request


@pytest.mark.parametrize(
    "text, specs",
    [
        ("prune80", ["prune80"]),
        ("dense", ["dense"]),
        ("prune80:random", [f"prune80:random:seed={k}" for k in (5, 6)]),
        ("prune80:random:seed=0", ["prune80:random"]),  # the default, but written
        ("prune80:random:seed=3", ["prune80:random:seed=3"]),
        (
            "prune80:random:seed=0+heads50:random",
            [f"prune80:random+heads50:random:seed={k}" for k in (5, 6)],
        ),
    ],
)
def test_a_seed_that_is_written_is_a_choice(text, specs):
    assert plan.seeded(text, 2, 5) == specs
    planned = plan.plan(Request.of("bert", text, "pocket-sentiment", 2, seed=5))
    assert [cell.method for cell in planned if cell.method not in ("dense", "uniform")] == [
        spec for spec in specs if spec != "dense"
    ]


def test_two_specs_that_would_share_a_file_are_refused(scaled):
    with pytest.raises(UserError, match=r"^methods 'scaled:file=a/b' and 'scaled:file=a-b' would share"):
        plan.plan(Request.of("bert", ["scaled:file=a/b", "scaled:file=a-b"], "pocket-sentiment"))


def test_two_tasks_that_would_share_a_file_are_refused(tmp_path):
    for folder, name in (("a", "of/mine"), ("b", "of-mine")):
        (tmp_path / folder).mkdir()
        content = f"task: {name}\nclass: !function attnbench.backends.classification.Classify\n"
        (tmp_path / folder / "made.yaml").write_text(content, encoding="utf-8")
    tasks = [str(tmp_path / folder / "made.yaml") for folder in ("a", "b")]
    with pytest.raises(UserError, match=r"^tasks .* would share the name 'of-mine' in records"):
        plan.plan(Request.of("bert", "prune80", tasks))
