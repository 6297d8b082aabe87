"""Pictures: which points they have, what the front is, and that the files hold what they should."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sample_records import identify, record, right

from attnbench.boards import board
from attnbench.boards.pictures import draw, draw_depths, points
from attnbench.cli.main import main
from attnbench.methods import families
from attnbench.records.record import write


@pytest.mark.parametrize(
    "method, name, amounts",
    [
        ("prune80", "prune", (80,)),
        ("prune80:random:seed=3+logquant3", "prune:random+logquant", (80, 3)),
        ("threshold0.001:row", "threshold:row", (0.001,)),
        ("heads:fixed:off=3.5", "heads:fixed:off=3.5", (0,)),
        ("hidden-quant8:linear", "hidden-quant:linear", (8,)),
    ],
)
def test_a_family_is_a_spec_without_its_amounts(method, name, amounts):
    assert points.family(method) == name and points.amounts(method) == amounts


def sweep():
    """Records with sparsity, bits and heads: prune90 and linquant2 beat all of the same sparsity or less."""
    costs = {
        "prune50": (0.5, None, 1.0, 90), "prune80": (0.8, None, 1.0, 95), "prune90": (0.9, None, 1.0, 85),
        "prune80:random": (0.8, None, 1.0, 300), "logquant2": (0.2, 2.0, 1.0, 120),
        "logquant3": (0.2, 3.0, 1.0, 90), "linquant2": (0.95, 2.0, 1.0, 150),
        "heads50:entropy": (0.0, None, 0.5, 200),
        "heads30:entropy": (0.0, None, 0.7, 100),
    }  # fmt: skip
    items = [record("dense", acc=right(1000, 80)), record("uniform", acc=right(1000, 480))]
    items[1].measured = {"sparsity": 0.0, "bits": 3.7, "heads": 1.0}
    for method, (sparsity, bits, heads, wrong) in costs.items():
        items.append(record(method, acc=right(1000, wrong)))
        items[-1].measured = {"sparsity": sparsity, "bits": bits, "heads": heads}
    return items


def by_name(items):
    return {each.name: each for each in points.pictures(board.build(items))}


def test_a_cache_is_drawn_against_what_is_kept_of_it():
    items = [record("dense", acc=right(100, 8)), record("uniform", acc=right(100, 48))]
    for method, kv, wrong in (("evict25:h2o", 0.75, 9), ("evict50:h2o", 0.5, 12), ("kvint4", 0.31, 20)):
        items.append(record(method, acc=right(100, wrong)))
        items[-1].measured = {"cache": kv, "kv": kv}
    found = by_name(items)
    assert list(found) == ["kept-kv", "score-kv"]
    drawn = {name: [(p.method, p.x, p.front) for p in each.panels[0].points] for name, each in found.items()}
    assert drawn["kept-kv"] == [
        ("evict25:h2o", 0.75, True), ("evict50:h2o", 0.5, True), ("kvint4", 0.31, True),
    ]  # fmt: skip
    assert [method for method, *_ in drawn["score-kv"]] == ["evict25:h2o", "evict50:h2o", "kvint4"]


def test_points_are_on_the_pictures_they_belong_to():
    found = by_name(sweep())
    assert list(found) == ["kept-sparsity", "kept-bits", "score-sparsity", "score-bits", "score-heads"]
    methods = {name: [point.method for point in each.panels[0].points] for name, each in found.items()}
    assert "heads50:entropy" not in methods["kept-sparsity"] and "linquant2" in methods["kept-sparsity"]
    assert methods["kept-bits"] == ["linquant2", "logquant2", "logquant3"]
    assert methods["score-bits"] == ["linquant2", "logquant2", "logquant3"]  # a single amount is there too
    assert methods["score-heads"] == ["heads30:entropy", "heads50:entropy"]
    panel = found["kept-sparsity"].panels[0]
    assert panel.dense == pytest.approx(1) and panel.uniform == pytest.approx(0)
    assert all("uniform" not in names and "dense" not in names for names in methods.values())


def test_the_front_is_what_nothing_beats():
    found = by_name(sweep())
    front = {p.method for p in found["kept-sparsity"].panels[0].points if p.front}
    assert front == {"prune90", "linquant2"}
    front = {p.method for p in found["kept-bits"].panels[0].points if p.front}
    assert front == {"logquant2", "logquant3"}


def test_a_modifier_that_changes_x_makes_a_family():
    specs = {
        "gates:l0:lr=0.15:on=encoder:penalty=0.01": 0.9, "gates:l0:lr=0.15:on=encoder:penalty=0.3": 0.5,
        "gates:l0:lr=0.15:on=encoder:penalty=0.1": 0.7, "gates:l0:lr=0.15:penalty=0.1": 0.6,
        "mask50:size=4": 0.5, "mask50:size=8": 0.5, "heads30:l1": 0.3, "heads50:l1": 0.5,
        "cut:layers=0+prune80": 0.1, "cut:layers=1+prune80": 0.2,
    }  # fmt: skip
    swept = families.modifier_sweeps(specs)
    name = "gates:l0:lr=0.15:on=encoder:penalty=*"
    assert swept == {
        "gates:l0:lr=0.15:on=encoder:penalty=0.01": (name, 0.01),
        "gates:l0:lr=0.15:on=encoder:penalty=0.1": (name, 0.1),
        "gates:l0:lr=0.15:on=encoder:penalty=0.3": (name, 0.3),
        "cut:layers=0+prune80": ("cut:layers=*+prune80", 0.0),
        "cut:layers=1+prune80": ("cut:layers=*+prune80", 1.0),
    }
    items = sweep()
    for penalty, heads in ((0.01, 0.9), (0.1, 0.95), (0.3, 0.4)):
        items.append(record(f"gates:l0:penalty={penalty}", acc=right(1000, 150)))
        items[-1].measured = {"sparsity": 0.0, "heads": heads}
    points = by_name(items)["score-heads"].panels[0].points
    assert [p.x for p in points if p.family == "gates:l0:penalty=*"] == [0.9, 0.95, 0.4]  # along the modifier


def test_a_quantiser_that_silences_heads_is_on_no_picture_of_heads():
    items = [record("dense", acc=right(1000, 80)), record("uniform", acc=right(1000, 480))]
    for method, heads, sparsity, fitted in (
        ("linquant1", 0.75, 0.99, {}), ("linquant2", 0.9, 0.98, {}),
        ("silent1", 0.5, 0.0, {}), ("silent2", 0.25, 0.0, {}),
        ("both1", 0.5, 0.9, {"both1": {"alive_": {"encoder 0": [1.0, 0.0]}}}),
        ("both2", 0.4, 0.9, {"both2": {"alive_": {"encoder 0": [1.0, 0.0]}}}),
    ):  # fmt: skip
        items.append(record(method, acc=right(1000, 90)))
        items[-1].measured, items[-1].fitted = {"heads": heads, "sparsity": sparsity}, fitted
    found = by_name(items)["score-heads"].panels[0]
    assert [point.family for point in found.points] == ["both", "both", "silent", "silent"]
    assert found.dense is not None
    assert "score-heads" not in by_name(items[:4])


def test_latencies_that_overlap_do_not_beat():
    def point(name, low, x, high, y):
        return points.Point(name, "f", x, y, y, y, False, low, high)

    drawn = [point("noisy", 0.49, 0.71, 1.05, 1.0), point("same heads", 0.62, 0.94, 1.33, 1.0),
              point("surely slower", 1.4, 1.5, 1.6, 1.0), point("worse", 0.6, 0.8, 1.1, 0.4),
              point("worse, maybe faster", 0.6, 0.65, 0.8, 0.2),
              point("worse and slower, but sure of it", 0.71, 0.72, 0.73, 0.9)]  # fmt: skip
    front = {p.method for p in drawn if points._with_front(p, drawn, False).front}
    assert front == {"noisy", "same heads", "worse, maybe faster"}


def test_front_against_a_search_of_all_pairs():
    rng = np.random.default_rng(0)
    drawn = [points.Point(str(k), "f", *map(float, rng.integers(0, 6, 2)), 0, 0) for k in range(60)]
    for more in (True, False):
        for point in drawn:
            better = [
                other for other in drawn
                if (other.x >= point.x if more else other.x <= point.x) and other.y >= point.y
                and not (other.x == point.x and other.y == point.y)
            ]  # fmt: skip
            assert points._with_front(point, drawn, more).front == (not better)


def test_the_table_of_latencies_has_their_ends():
    items = [*sweep(), realised("heads20:entropy", 90, 0.9), realised("heads70:entropy", 300, 0.6)]
    items[-1].measured["latency"] |= {"low": 0.5, "high": 0.7}
    lines = list(csv.DictReader(io.StringIO(by_name(items)["kept-latency"].table)))
    assert [(line["x low"], line["x high"]) for line in lines] == [("", ""), ("0.5", "0.7")]
    assert "x low" not in by_name(items)["kept-sparsity"].table
    assert (
        pytest.importorskip("attnbench.boards.pictures.draw").draw(by_name(items)["kept-latency"])["png"][:4]
        == b"\x89PNG"
    )


def realised(method, wrong, latency, **more):
    item = record(method, acc=right(1000, wrong))
    item.measured = {"heads": 0.5, "latency": {"ratio": latency}} | more
    return item


def test_only_what_is_realised_is_drawn_against_latency():
    items = [*sweep(), realised("heads70:entropy", 300, 0.6), realised("heads20:entropy", 90, 0.9)]
    items += [realised("heads20:random", 120, 0.95)]
    found = by_name(items)["kept-latency"].panels[0].points
    assert {point.method: (point.x, point.front) for point in found} == {
        "heads70:entropy": (0.6, True), "heads20:entropy": (0.9, True), "heads20:random": (0.95, False)
    }  # fmt: skip


def test_a_sweep_alone_and_followed_by_another_method():
    items = sweep()
    for amount, wrong in ((50, 82), (80, 85), (90, 90)):
        items.append(record(f"prune{amount}+finetune100", acc=right(1000, wrong)))
    points = by_name(items)["score-amount"].panels[0].points
    assert {point.family for point in points} == {"prune", "prune+finetune", "prune:random"}
    assert [point.x for point in points if "+" in point.family] == [50, 80, 90]
    assert "score-amount" not in by_name(sweep())


def test_heads_are_a_grid_a_way_of_scoring():
    items = sweep()
    scores = {"encoder 0": [0.1, 0.9], "encoder 1": [0.5, -0.2]}
    for item in items:
        method = item.cell["method"]
        if method.startswith("heads"):
            alive = {"encoder 0": [0.0, 1.0], "encoder 1": [1.0, 0.0 if "50" in method else 1.0]}
            item.fitted = {method: {"scores_": scores, "alive_": alive}}
        if method == "heads50:entropy":
            drawn = record(f"{method}:seed=4", acc=right(1000, 300))
            drawn.fitted = {f"{method}:seed=4": {"scores_": {"encoder 0": [7.0, 7.0]}}}
        if method == "prune90":
            item.fitted = {method: {"scores_": {"encoder 0": {"shape": [4, 50]}}, "other_": 3}}
    items += [drawn, *(record(f"heads50:{by}", acc=right(1000, 300)) for by in ("random", "l2"))]
    items[-2].fitted = {"heads50:random": {"scores_": {"encoder 0": [0.3, 0.2]}}}
    items[-1].fitted = {"heads50:l2": {"scores_": scores}}
    each = by_name(items)["head-scores"]
    # the largest, its first seed; no draw; none twice
    assert [grid.method for grid in each.grids] == ["heads50:entropy"]
    assert each.grids[0].gone == {(0, 0), (1, 1)}
    lines = list(csv.DictReader(io.StringIO(each.table)))
    assert [line["removed"] for line in lines] == ["1", "0", "0", "1"] and lines[1]["score"] == "0.9"
    draw = pytest.importorskip("attnbench.boards.pictures.draw")
    assert draw.draw(each)["png"][:4] == b"\x89PNG" and each.digest.encode() in draw.draw(each)["svg"]


def test_nothing_to_draw():
    assert by_name([record("dense", acc=right(10, 1)), record("prune80", acc=right(10, 1))]) == {}


def test_the_table_holds_the_points():
    each = by_name(sweep())["kept-sparsity"]
    lines = list(csv.DictReader(io.StringIO(each.table)))
    assert len(lines) == 7 and {line["method"]: line["x"] for line in lines}["prune50"] == "0.5"


@pytest.fixture(scope="module")
def drawn():
    draw = pytest.importorskip("attnbench.boards.pictures.draw")
    items = [*sweep(), record("dense", model="other", acc=right(1000, 80))]
    for method, sparsity in (("prune50", 0.5), ("prune80:$x_$", 0.8), ("_odd<b>&", 0.3)):
        items.append(record(method, model="other", acc=right(1000, 90)))
        items[-1].measured = {"sparsity": sparsity}
    items.append(record("uniform", model="other", acc=right(1000, 480)))
    each = by_name(items)["kept-sparsity"]
    assert len(each.panels) == 2
    return each, draw.draw(each), draw


def test_a_digest_is_the_same_on_another_processor(drawn):
    each, _, _ = drawn
    panel = each.panels[0]

    def with_first(y):
        points = [replace(panel.points[0], y=y), *panel.points[1:]]
        return replace(each, panels=[replace(panel, points=points), *each.panels[1:]]).digest

    y = panel.points[0].y
    assert with_first(y * (1 + 4e-16)) == each.digest != with_first(y * 1.001)


def test_svg_is_well_formed_and_carries_the_digest(drawn):
    from xml.etree import ElementTree

    each, files, _ = drawn
    root = ElementTree.fromstring(files["svg"])
    assert root.tag.endswith("svg") and each.digest.encode() in files["svg"]
    assert b"<script" not in files["svg"] and b'href="http' not in files["svg"]


def test_png_is_a_picture_and_carries_the_digest(drawn):
    from PIL import Image

    each, files, _ = drawn
    with Image.open(io.BytesIO(files["png"])) as image:
        assert image.info["Description"] == each.digest and min(image.size) > 400
        assert len(image.convert("L").getcolors(1 << 20)) > 10  # not empty


def test_the_same_points_are_the_same_bytes(drawn):
    each, files, draw = drawn
    assert draw.draw(each) == files


def test_names_keep_clear_of_each_other_and_of_points():
    figure_of = pytest.importorskip("matplotlib.figure")
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    from attnbench.boards.pictures import labels

    figure = figure_of.Figure(figsize=(5, 4))
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    xs, ys = [0.5, 0.51, 0.52, 0.9], [1.0, 1.01, 0.99, 0.2]
    axes.plot(xs, ys, "o")
    figure.draw_without_rendering()
    labels.place(
        axes, [(f"method{k}", x, y) for k, (x, y) in enumerate(zip(xs, ys, strict=True))], fontsize=7
    )
    assert len(axes.texts) == 4
    figure.draw_without_rendering()
    frame = axes.get_window_extent()
    for place, label in enumerate(axes.texts):
        text = label.get_bbox_patch().get_window_extent()
        assert frame.x0 <= text.x0 + 2 and text.x1 - 2 <= frame.x1
        for x, y in zip(xs, ys, strict=True):
            assert not text.contains(*axes.transData.transform((x, y)))
        others = [each.get_bbox_patch().get_window_extent() for each in axes.texts[:place]]
        assert not any(text.padded(-1).overlaps(other.padded(-1)) for other in others)


def test_log_ticks_read_plainly_and_long_specs_are_not_cut():
    draw_heads = pytest.importorskip("attnbench.boards.pictures.draw_heads")
    spec = "gates:l0:lr=0.15:on=encoder:penalty=0.01:seed=1:steps=100"
    lines = draw_heads.wrapped(spec).split("\n")
    assert "".join(line.strip() for line in lines) == spec and max(map(len, lines)) <= draw_heads.LINE + 2
    from matplotlib.figure import Figure

    from attnbench.boards.pictures import draw

    axes = Figure().subplots()
    drawn = [points.Point(f"prune{k}", "prune", k / 10, 10.0**k, 10.0**k, 10.0**k) for k in (1, 5)]
    panel = points.Panel("m", "t", "perplexity", "log", drawn, 5.0, None)
    picture = points.Picture("score-sparsity", "", "x", "score ± standard error", [panel])
    _, places = draw._panel(axes, picture, panel, {"prune": draw._style(0, "prune")})
    assert places == {"prune1": 0.1, "prune5": 0.5}
    ticks = [axes.yaxis.get_major_formatter()(value, 0) for value in (10.0, 1000.0, 100000.0)]
    assert ticks == ["10", "1,000", "100,000"]


def test_no_two_families_share_colour_marker_and_line(drawn):
    draw = drawn[2]
    styles = [tuple(map(str, draw._style(place, "f").values())) for place in range(24)]
    assert len(set(styles)) == 24
    looks = [(s["marker"], str(s["linestyle"])) for s in (draw._style(place, "f") for place in range(12))]
    assert len(set(looks)) == 12  # without colour


def test_all_that_a_board_draws_is_told_apart_in_black_and_white():
    draw = pytest.importorskip("attnbench.boards.pictures.draw")
    folder = Path(__file__).parents[2] / "leaderboards"
    texts = [path.read_text(encoding="utf-8") for path in folder.glob("*/*-*.csv")]
    tables = [list(csv.DictReader(io.StringIO(text))) for text in texts]
    drawn = [{line["family"] for line in lines} for lines in tables if lines and "family" in lines[0]]
    most = max(drawn, key=len)
    assert len(most) >= 20
    names = [f"m{chr(97 + k)}" for k in range(24)] + [f"m{chr(97 + k)}:random" for k in range(11)]
    for found in (most, names):
        # a point that is alone in its family has no line: marker and fill are enough
        looks = [(style["marker"], style["fillstyle"]) for style in draw._styles(found).values()]
        assert len(set(looks)) == len(looks) == len(found)


@pytest.mark.parametrize("dpi", [72, 150, 200])
def test_names_are_clear_as_drawn_at_any_size(dpi):
    figure_of = pytest.importorskip("matplotlib.figure")
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    from attnbench.boards.pictures import draw, labels

    with matplotlib.rc_context(draw.STYLE):
        figure = figure_of.Figure(figsize=(5, 3.4))
        FigureCanvasAgg(figure)
        axes = figure.subplots()
        axes.set_xlim(0.4, 6.6)
        axes.set_ylim(-50, 125)
        names = ["prune80+logquant2", "prune50+logquant3", "linquant3:pruned", "logquant3",
                 "quantile3:halving", "logquant1", "prune80:global+logquant3"]  # fmt: skip
        points = list(zip(names, (2, 3, 3, 3, 4.5, 1, 1.2), (102, 106, 105, 106, 107, 26, 40), strict=True))
        axes.plot([x for _, x, _ in points], [y for *_, y in points], "o")
        axes.axhline(100)
        figure.draw_without_rendering()
        labels.place(axes, points, fontsize=7)
        figure.set_dpi(dpi)
        figure.draw_without_rendering()
    frame, level = axes.get_window_extent(), axes.transData.transform((0, 100))[1]
    boxes = [super(type(text), text).get_window_extent() for text in axes.texts]
    assert len(boxes) == len(names)
    for place, box in enumerate(boxes):
        assert frame.x0 < box.x0 and box.x1 < frame.x1 and frame.y0 < box.y0 and box.y1 < frame.y1
        assert not any(box.overlaps(other) for other in boxes[:place])
        assert not box.y0 < level < box.y1, axes.texts[place].get_text()  # not struck through


def test_plots_of_a_suite_are_written_shown_and_checked(tmp_path, capsys):
    items = sweep()
    for item in items:
        dense = item.cell["method"] == "dense"
        item.settings |= {"calibration": None}
        sites, changed = (0, 0.0) if dense else (2, 0.5)
        effect = "applied" if changed else "no effect"
        item.receipt = {"sites_expected": sites, "sites_hit": sites, "changed": changed, "effect": effect}
        identify(item)
        write(tmp_path / "records" / "small", item)
    methods = [item.cell["method"] for item in items[2:]]
    path = tmp_path / "small.toml"
    path.write_text(
        f'models = ["tiny"]\ntasks = ["sst2"]\nmethods = {methods}\nrepeats = 1\n', encoding="utf-8"
    )
    assert main(["leaderboard", str(path), "--output", str(tmp_path)]) == 0
    assert len(list((tmp_path / "small").iterdir())) == 15
    text = (tmp_path / "small.md").read_text(encoding="utf-8")
    assert "![Score against bits](small/score-bits.svg)" in text
    assert main(["leaderboard", str(path), "--check"]) == 0, capsys.readouterr().out
    (tmp_path / "small" / "score-bits.svg").write_text("<svg/>")
    (tmp_path / "small" / "old.png").touch()
    assert main(["leaderboard", str(path), "--check"]) == 1
    told = capsys.readouterr().out
    assert "score-bits.svg: stale" in told and "old.png: stale" in told
    assert main(["leaderboard", "--records", str(tmp_path / "records" / "small"), "--format", "plots"]) == 2


def test_log_axes_of_a_look_have_their_numbers_written_out():
    from matplotlib.figure import Figure

    from attnbench.boards.pictures import looks

    figure = Figure(layout="constrained")
    axes = figure.subplots()
    axes.plot([1e-6, 1], [1e-3, 10])
    axes.set(xscale="log", yscale="log", title="$x$")
    svg = looks.saved(figure, "x")["svg"].decode()
    assert "mathdefault" not in svg
    assert [axis.get_major_formatter()(0.001, 0) for axis in (axes.xaxis, axes.yaxis)] == ["0.001"] * 2


def test_a_map_of_equal_numbers_has_the_colour_of_little():
    import io

    import matplotlib.image
    from matplotlib import colormaps

    from attnbench.boards.pictures import heatmap

    image = matplotlib.image.imread(io.BytesIO(heatmap.draw({("encoder", 0): [0.0, 0.0]}, "x")))
    darkest = colormaps["plasma"](0.0)[:3]
    assert (abs(image[..., :3] - darkest).max(-1) < 0.02).mean() > 0.1


def placed(method, length, scores):
    """A record of 10 samples at the depths 0, 1/4 ... 1, two of each."""
    item = record(method, model="tiny", task=f"needles_{length}@question", acc=np.array(scores, float))
    item.scores |= {"depth": np.tile(np.arange(5) / 4, 2), "length": np.full(10, float(length))}
    return item


def test_a_map_tells_the_score_by_depth_and_length():
    middle = [1, 0, 0, 0, 1] * 2
    items = [
        placed("evict50:snapkv", 512, [1, 0, 0, 1, 1, 1, 1, 0, 1, 1]),
        placed("evict50:snapkv", 1024, middle),
        placed("dense", 512, [1] * 10),
        placed("dense", 1024, [1] * 9 + [0]),
        placed("evict50:random:seed=1", 512, middle),
        placed("uniform", 512, [0] * 10),
    ]
    (found,) = [each for each in points.pictures(board.build(items)) if each.depths]
    assert [each.method for each in found.depths] == ["dense", "evict50:snapkv"]
    own = found.depths[1]
    assert (own.task, own.lengths) == ("needles@question", (512, 1024))
    assert own.depths == (0, 0.25, 0.5, 0.75, 1) and own.samples == ((2, 2),) * 5
    assert own.scores == ((1, 1), (0.5, 0), (0, 0), (1, 0), (1, 1))
    lines = list(csv.DictReader(io.StringIO(found.table)))
    assert len(lines) == 20 and lines[9] == {
        "model": "tiny", "task": "needles@question", "metric": "acc", "method": "dense", "length": "1024",
        "depth": "1", "score": "0.5", "samples": "2",
    }  # fmt: skip
    drawn = draw.draw(found)
    for kind, content in drawn.items():
        assert found.digest.encode() in content, kind


@pytest.mark.parametrize("methods", [1, 60])
def test_the_foot_of_a_map_is_below_all_fields(methods):
    specs = [f"evict{k}:snapkv" for k in range(1, methods + 1)]
    items = [placed(spec, 512, [1, 0, 0, 1, 1] * 2) for spec in specs]
    (found,) = [each for each in points.pictures(board.build(items)) if each.depths]
    figure = draw_depths.draw(found)
    figure.canvas.draw()
    (text,) = [each for each in figure.texts if each.get_text().startswith("A field is the mean")]
    lowest = min(axes.get_tightbbox().y0 for axes in figure.axes if axes.get_visible())
    assert text.get_window_extent().y0 > 0 and text.get_window_extent().y1 <= lowest


def test_records_that_tell_no_place_have_no_map():
    assert not any(each.depths for each in points.pictures(board.build(sweep())))
