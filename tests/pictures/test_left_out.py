"""What pictures leave out is said on them, and no marker hides another."""

from __future__ import annotations

import itertools
import re

import numpy as np
import pytest
from sample_records import missing, record, right

from attnbench.boards import board
from attnbench.boards.pictures import apart, points


def measured(method, model="tiny", wrong=90, **costs):
    item = record(method, model=model, acc=right(1000, wrong))
    item.measured = {"sparsity": 0.0, "bits": None, "heads": 1.0} | costs
    return item


def board_of(items):
    return board.build([
        *items, *(record(name, model=model, acc=right(1000, wrong))
                  for model in {item.cell["model"] for item in items}
                  for name, wrong in (("dense", 80), ("uniform", 480)))
    ])  # fmt: skip


def by_name(items):
    return {each.name: each for each in points.pictures(board_of(items))}


def sweep():
    return [
        measured("prune50", sparsity=0.5), measured("prune80", sparsity=0.8),
        measured("prune80:random", sparsity=0.8), measured("linquant2", sparsity=0.9, bits=2.0),
        measured("heads50:l1", heads=0.5), measured("heads50:entropy", heads=0.5),
    ]  # fmt: skip


def test_every_method_is_drawn_or_counted_with_the_reason():
    found = by_name(sweep())
    notes = {name: each.panels[0].note for name, each in found.items()}
    assert notes["score-sparsity"] == (
        "4 of 6 methods; 2 set fewer than 0.5 % of the values of attention to zero"
    )
    assert notes["kept-bits"] == "1 of 6 methods; 5 do not round attention to levels"
    assert notes["score-heads"] == "2 of 6 methods; 4 remove no heads"
    for each in found.values():
        drawn, whole, *rest = map(int, re.findall(r"(?<!\.)\b\d+\b(?! %|\.)", each.panels[0].note))
        assert drawn == len(each.panels[0].points) and drawn + sum(rest) == whole == 6


def test_methods_that_were_not_measured_are_counted():
    failed = missing("prune90", "failed", "ValueError: no")
    note = by_name([*sweep(), failed])["score-sparsity"].panels[0].note
    assert note.startswith("4 of 7 methods; 2 set ") and note.endswith(", 1 not measured")


def test_a_family_of_one_amount_is_drawn_and_named_as_such():
    from attnbench.boards.pictures import draw

    figure = by_name(sweep())["score-heads"]
    assert [point.method for point in figure.panels[0].points] == ["heads50:entropy", "heads50:l1"]
    texts, lines = [], []

    def kept(figure, picture):
        texts.extend(text.get_text() for text in figure.legends[0].get_texts())
        lines.extend(figure.axes[0].lines)
        texts.append(figure.texts[-1].get_text())
        return {}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(draw, "_saved", kept)
        draw.draw(figure)
        draw.draw(by_name(sweep())["score-sparsity"])
    assert texts[:2] == ["heads:entropy (one point)", "heads:l1 (one point)"]
    assert "prune" in texts and "prune:random (one point)" in texts
    places = [float(line.get_xdata()[0]) for line in lines if line.get_marker() in ("o", "s")]
    assert places[0] == 0.5 and 0.42 < places[1] < 0.5  # equal in score, side by side
    assert any("true places" in text for text in texts)


def test_models_without_a_point_are_named():
    items = [*sweep(), measured("heads50:l1", model="other", heads=0.5)]
    assert by_name(items)["score-sparsity"].foot == "No method has a point here on other, sst2."
    many = [*sweep(), *(measured("heads50:l1", model=f"m{k}", heads=0.5) for k in range(5))]
    assert by_name(many)["score-sparsity"].foot.endswith("m2, sst2; and 2 more.")
    assert by_name(sweep())["score-sparsity"].foot == ""


def test_score_maps_say_what_they_leave_out():
    items = sweep()
    scores = {"encoder 0": [0.1, 0.9]}
    for method in ("heads50:l1", "heads50:entropy", "heads30:l1", "heads50:random"):
        items = [item for item in items if item.cell["method"] != method]
        items.append(measured(method, heads=0.5))
        items[-1].fitted = {method: {"scores_": scores}}
    assert by_name(items)["head-scores"].foot.endswith(
        "Not shown: 1 of smaller amounts, 1 with the scores of another, 1 drawn at random."
    )


def test_depth_maps_say_how_uncertain_a_field_is():
    item = record("evict50:snapkv", acc=np.array([1.0, 0, 1, 1, 0, 1, 0, 1]))
    item.scores |= {"depth": np.repeat([0.0, 1.0], 4), "length": np.full(8, 512.0)}
    (found,) = [each for each in points.pictures(board.build([item])) if each.depths]
    # of a mean of 4 answers, each right or wrong: at most half a point over the root of 4
    assert found.foot.startswith(
        "A field is the mean of 4 samples, with a standard error of up to 25 points."
    )
    assert found.x == "length of the text, tokens" and found.y == "depth in the text, %"


@pytest.mark.parametrize("count", [2, 3, 7])
def test_markers_at_one_place_stand_side_by_side(count):
    moved = apart.shifts([(100.0, 50.0)] * count)
    assert moved[0] == 0 and len(set(moved)) == count and max(map(abs, moved)) <= 15


def test_markers_that_are_seen_stay_where_they_belong():
    generator = np.random.default_rng(0)
    places = [tuple(map(float, place)) for place in generator.uniform(0, 200, (60, 2))]
    moved = apart.shifts(places)
    shown = [(x + step, y) for (x, y), step in zip(places, moved, strict=True)]
    for place, other in itertools.combinations(shown, 2):
        assert max(abs(place[0] - other[0]), abs(place[1] - other[1])) >= apart.HIDDEN
    assert sum(step != 0 for step in moved) < 15
    assert apart.shifts([(0.0, 0.0), (4.0, 0.0), (0.0, 4.0)]) == [0, 0, 0]


def test_a_map_of_heads_says_whether_noise_is_left_blank(monkeypatch):
    from matplotlib.figure import Figure

    from attnbench.boards.pictures import heatmap

    told = []
    monkeypatch.setattr(Figure, "supxlabel", lambda figure, text, **how: told.append(text))
    table = {("encoder", 0): [0.5, 0.1], ("encoder", 1): [0.2, 0.3]}
    assert heatmap.draw(table, "means")[:4] == b"\x89PNG"
    heatmap.draw(table, "effects", certain=table | {("encoder", 1): [float("nan"), 0.3]})
    plain = [" ".join(text.split()) for text in told]
    assert plain == [heatmap.NO_INTERVAL, heatmap.NOISE]
