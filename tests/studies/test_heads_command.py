"""`attnbench heads`: tables, files, rank correlations, and the effect of each head against a loop by hand."""

from __future__ import annotations

import csv
import io

import numpy as np
import pytest
import scipy.stats
import torch
from PIL import Image
from tiny_models import tiny

import attnbench
from attnbench.backends import lm_eval
from attnbench.boards.pictures import heatmap
from attnbench.cli.looking import head_tables
from attnbench.cli.main import main
from attnbench.engine.learning.gates import Silenced
from attnbench.errors import PARAGRAPH, UserError
from attnbench.inputs import models
from attnbench.inputs.settings import Settings
from attnbench.methods.plugins import registry
from attnbench.methods.views import Measured
from attnbench.studies import importance, ranking

TASK = "pocket-sentiment"


def _table(path):
    with path.open(encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    return header, {(row[0], int(row[1])): [float(value) for value in row[2:]] for row in rows}


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = tmp_path_factory.mktemp("heads")
    arguments = [
        "heads",
        "--models",
        "bert",
        "--tasks",
        TASK,
        "--by",
        "entropy,l2,l1",
        "--ablate",
        "--limit",
        "24",
    ]
    stdout = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.stdout", stdout)
        status = main([*arguments, "--output", str(folder), "--records", str(folder / "records")])
    return folder / "pocket-bert" / TASK, status, stdout.getvalue()


def test_scores_are_printed_and_written(done):
    folder, status, shown = done
    assert status == 1  # l1 was asked for by name and tells no heads apart
    assert "l1: failed: heads:l1 cannot tell the heads apart" in shown
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        [
            "correlations.csv",
            "heads.csv",
            "heads.json",
            "overview.png",
            *(f"{name}{end}" for name in ("entropy", "l2", "effect") for end in (".csv", ".png")),
        ]
    )
    found, _ = ranking.ranked("bert", TASK, ["entropy"])
    header, table = _table(folder / "entropy.csv")
    assert header == ["kind", "layer", "0", "1", "2", "3"]
    assert table == found.tables["entropy"]
    assert f"{table['encoder', 3][2]:.4f}" in shown


def test_correlations_are_spearmans(done):
    folder, _, _ = done
    columns = {
        name: np.concatenate(list(_table(folder / f"{name}.csv")[1].values()))
        for name in ("entropy", "l2", "effect")
    }
    with (folder / "correlations.csv").open(encoding="utf-8") as file:
        (_, *names), *rows = csv.reader(file)
    assert names == list(columns)
    for row in rows:
        for name, value in zip(names, row[1:], strict=True):
            expected = scipy.stats.spearmanr(columns[row[0]], columns[name]).statistic
            assert float(value) == pytest.approx(expected, abs=1e-6)


def test_the_effect_of_a_head_is_what_the_task_loses_without_it(done):
    folder, _, shown = done
    checkpoint = models.find("bert", TASK)
    prepared = lm_eval.prepare(TASK, checkpoint, Settings(limit=24))
    model = checkpoint.load(prepared.head)
    batches = prepared.batches(24, batch_size=24)
    dense = prepared.evaluate(model).metrics["acc"]["value"]
    effect = _table(folder / "effect.csv")[1]
    assert "effect: how much worse acc is without this head alone" in shown
    assert f"(with every head it is {dense:.4f}; higher is better)" in " ".join(shown.split())

    layer, head = max(
        ((at, h) for (_, at), row in effect.items() for h in range(4)),
        key=lambda p: effect["encoder", p[0]][p[1]],
    )
    projection = model.bert.encoder.layer[layer].attention.output.dense
    width = projection.in_features // 4
    labels = np.array(prepared.evaluate(model).scores["acc"])
    with torch.no_grad():
        right = model(**batches[0]).logits.argmax(-1)
        projection.weight[:, head * width : (head + 1) * width] = 0
        changed = model(**batches[0]).logits.argmax(-1)
    # two classes: a changed decision turns a right answer wrong or a wrong one right
    moved = (right != changed).numpy()
    order, _ = next(prepared._lm.batches(prepared.task.instances[:24], 24))
    after = np.where(moved, 1 - labels[order], labels[order]).mean()
    assert effect["encoder", layer][head] == pytest.approx(dense - after, abs=1e-9) and dense > after


def test_the_heat_map_shows_every_number(done):
    folder, _, _ = done
    with Image.open(folder / "effect.png") as picture:
        assert picture.format == "PNG" and min(picture.size) > 200
        pixels = np.asarray(picture.convert("RGB")).reshape(-1, 3)
    assert len(np.unique(pixels, axis=0)) > 50


def test_a_heat_map_takes_kinds_of_different_sizes_and_equal_numbers():
    flat = {
        ("encoder", 0): [1.0, 1.0],
        ("encoder", 1): [1.0, 1.0, 1.0],
        ("cross", 0): [1.0],
        ("decoder", 3): [2.0],
    }
    assert heatmap.draw(flat, "flat").startswith(b"\x89PNG")
    assert heatmap.draw({("encoder", 0): [0.0]}, "zero", diverging=True).startswith(b"\x89PNG")


def test_a_constant_criterion_correlates_with_nothing():
    study = ranking.Ranking("m", "t", {"a": {("encoder", 0): [1.0, 2.0]}, "b": {("encoder", 0): [3.0, 3.0]}})
    values = study.correlations()
    assert values["a", "a"] == 1 and np.isnan(values["a", "b"]) and np.isnan(values["b", "b"])
    assert "–" in head_tables.describe(study) and "nan" not in head_tables.describe(study)


def test_kinds_are_named_where_there_are_several():
    study = ranking.Ranking("m", "t", {"a": {("cross", 0): [1.0, 2.0], ("encoder", 0): [1.0, 0.5]}})
    assert head_tables.describe(study).splitlines()[3].split() == ["kind", "layer", "0", "1"]


MISTAKES = {
    "heads": "no model",
    "heads --models bert --by entrpy": "Did you mean entropy",
    "heads --models brt": "Did you mean bert",
    "heads --models ./nowhere": "no such folder",
    "heads --models bert --tasks nope": "unknown task 'nope'",
    "heads --models bert --tasks pocket-qa --by probe": "nothing was scored",
    "heads --models bert --tasks pocket-translation --by l2": "nothing was scored",
    "heads --models bert --tasks pocket-sentiment --by l2 --output file/x": "cannot be written",
}


@pytest.mark.parametrize(("line", "says"), MISTAKES.items())
def test_a_mistake_is_one_line(line, says, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    assert (
        main([*line.split(), "--records", str(tmp_path / "records")] if "--by" in line else line.split()) == 2
    )
    assert says in capsys.readouterr().err.splitlines()[-1]


def test_all_criteria_are_those_that_score():
    assert ranking.chosen(["all"]) == list(importance.criteria())
    assert ranking.chosen([]) == ["entropy", "gradient", "l2"]
    assert set(importance.criteria()) == {
        "l1", "l2", "entropy", "variance", "output", "confidence", "gradient", "lrp", "probe", "random",
    }  # fmt: skip
    with pytest.raises(UserError, match="fixed"):
        ranking.chosen(["fixed"])


def test_a_criterion_that_does_not_apply_is_no_failure(capsys, tmp_path):
    line = "heads --models bert --tasks pocket-qa --by probe,confidence --output"
    assert main([*line.split(), str(tmp_path), "--records", str(tmp_path / "records")]) == 0
    shown = capsys.readouterr()
    assert "probe: not applicable: heads:probe needs a class label" in shown.out
    assert "\nconfidence\n" in shown.out and "failed" not in shown.out
    assert (
        "next: attnbench methods heads:confidence   attnbench run --models bert --tasks pocket-qa --methods "
        in shown.err
    )


@pytest.mark.parametrize("error", [RuntimeError, SystemExit])
def test_a_criterion_that_breaks_does_not_stop_the_others(error, capsys, tmp_path, monkeypatch):
    def broken(*_):
        raise error("one of the tensors was not used")

    monkeypatch.setattr(importance.criteria()["confidence"], "importance", broken)
    line = "heads --models bert --tasks pocket-sentiment --by confidence,l2 --output"
    assert main([*line.split(), str(tmp_path), "--records", str(tmp_path / "records")]) == 1
    shown = capsys.readouterr().out
    assert f"confidence: failed: {error.__name__}: one of the tensors was not used" in shown
    assert "\nl2\n" in shown


def test_a_criterion_is_explained_where_it_is_shown(done):
    _, _, shown = done
    told = " ".join(shown.split())
    assert "Remove the heads that look everywhere: a low entropy of attention counts as importance." in told
    assert "importance = -mean over examples and queries of (-sum_k p log p) / log n" in shown
    assert max(map(len, shown.splitlines())) <= PARAGRAPH


N = 60
LOG = np.random.default_rng(0).normal(-20, 3, N)
RIGHT = (np.arange(N) % 10 > 0).astype(float)
WORSE = {  # metric: aggregate, samples with every head, without the one that counts, is higher better
    "word_perplexity": ("perplexity", np.c_[LOG, 10 + RIGHT], np.c_[LOG - 2, 10 + RIGHT], False),
    "acc": ("mean", RIGHT, RIGHT * (np.arange(N) % 3 > 0), True),
    "error": ("mean", 1 - RIGHT, 1 - RIGHT * (np.arange(N) % 3 > 0), False),
}


@pytest.mark.parametrize("metric", WORSE)
def test_the_effect_is_how_much_worse_a_metric_is_and_told_from_noise(metric):
    """A task that notices one head, by hand: its effect, its interval, and no other that differs."""
    kind, dense, without, higher = WORSE[metric]
    model, gone = tiny("bert"), ("encoder", 1, 2)

    class Task:
        def measured(self):
            seen = {}
            note = lambda c, s: seen.update({(s.kind, s.layer, h): c[:, h].any() for h in range(s.heads)})  # noqa: E731
            with torch.no_grad(), attnbench.watch(model, context=note):
                model(input_ids=torch.arange(5, 12)[None])
            rows = dense if seen[gone] else without
            value = np.exp(-rows[:, 0].sum() / rows[:, 1].sum()) if kind == "perplexity" else rows.mean()
            return Measured(metric, float(value), higher, kind, rows)

    found = importance.effects(model, attnbench.discover(model), Task())
    certain = found.certain()
    there = {(*key, h) for key, row in certain.items() for h, value in enumerate(row) if np.isfinite(value)}
    assert there == {gone} and sum(map(len, certain.values())) == 12
    effect, low, high = (table["encoder", 1][2] for table in (found.effect, found.low, found.high))
    if kind == "perplexity":
        worse, whole = (np.exp(-rows[:, 0].sum() / rows[:, 1].sum()) for rows in (without, dense))
        left_out = [
            np.exp(-np.delete(dense[:, 0], k).sum() / np.delete(dense[:, 1], k).sum()) for k in range(N)
        ]
        assert found.one == pytest.approx(np.abs(np.array(left_out) - whole).max(), rel=0.05)
        assert effect == pytest.approx(worse - whole)
    else:
        assert effect == pytest.approx(abs(without.mean() - dense.mean())) and found.one == 1 / N
    assert 0 < low < effect < high
    assert found.effect["encoder", 0][0] == 0 and found.low["encoder", 0][0] < 0 < found.high["encoder", 0][0]


def test_an_ablation_is_recorded_as_other_looks_are_and_measured_again_by_verify(done, capsys):
    folder, _, _ = done
    top = folder.parents[1]
    records = top / "records" / ".looks" / "pocket-bert" / TASK / "dense"
    before = {path.name: path.read_bytes() for path in records.glob("*.json")}
    assert {"ablation.json", "importance,by=entropy.json"} <= set(before)
    assert main(["verify", str(records / "importance,by=entropy.json")]) == 0
    assert "agrees" in capsys.readouterr().out
    line = ["heads", "--models", "bert", "--tasks", TASK, "--by", "entropy", "--ablate", "--limit", "24"]
    assert main([*line, "--output", str(top / "again"), "--records", str(top / "records")]) == 0
    assert {path.name: path.read_bytes() for path in records.glob("*.json")} == before
    again = top / "again" / "pocket-bert" / TASK / "effect.csv"
    assert again.read_bytes() == (folder / "effect.csv").read_bytes()


def test_a_picture_has_no_colour_for_what_may_be_noise():
    table = {("encoder", 0): [0.5, 0.25], ("encoder", 1): [-0.25, 0.125]}
    certain = {("encoder", 0): [0.5, np.nan], ("encoder", 1): [np.nan, np.nan]}
    with Image.open(io.BytesIO(heatmap.draw(table, "t", True, certain))) as picture:
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    body = pixels[:, : pixels.shape[1] * 3 // 4]  # without the colour bar
    coloured = (body.max(2) - body.min(2) > 40).any(0), (body.max(2) - body.min(2) > 40).any(1)
    wide, high = (np.flatnonzero(each) for each in coloured)
    assert np.ptp(wide) < body.shape[1] / 2 and np.ptp(high) < body.shape[0] / 2  # one cell of four
    assert high.min() > body.shape[0] / 3  # layer 0 is at the bottom


def test_of_texts_alone_there_is_nothing_to_measure(capsys, tmp_path):
    line = ["look", "--models", "bert", "--text", "good", "--studies", "ablation,importance:by=entropy"]
    assert main([*line, "--records", str(tmp_path)]) == 0
    told = capsys.readouterr()
    assert "ablation: not applicable: it measures a task, and here is none: give --tasks" in told.err


def test_only_one_head_is_silenced_at_a_time():
    model = models.find("marian", "pocket-translation").load("seq2seq")
    ids = torch.arange(5, 12)[None]
    zeros = set()
    method = Silenced(2, on=("cross",), layers=("1",))
    note = lambda c, s: zeros.update((s.kind, s.layer, h) for h in range(s.heads) if not c[:, h].any())  # noqa: E731
    with torch.no_grad(), attnbench.apply(model, method), attnbench.watch(model, context=note):
        model(input_ids=ids, decoder_input_ids=ids[:, :4])
    assert zeros == {("cross", 1, 2)}
    with attnbench.apply(model, method):  # where gradients are wanted
        model(input_ids=ids, decoder_input_ids=ids[:, :4]).logits.sum().backward()


def test_a_title_ends_where_its_figure_does():
    import matplotlib.figure

    seen = []
    save = matplotlib.figure.Figure.savefig

    def look(figure, *args, **kwargs):
        save(figure, *args, **kwargs)
        box = figure._suptitle.get_window_extent()
        seen.append((box.x0, box.x1, figure.bbox.width))

    title = "pocket-marian, pocket-translation\neffect: how much worse word_perplexity is without this head "
    title += "alone (with every head it is 7.1923; lower is better)"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(matplotlib.figure.Figure, "savefig", look)
        for kinds, width in ((1, 2), (1, 12), (3, 4)):
            table = {(kind, 0): [0.5] * width for kind in ("encoder", "decoder", "cross")[:kinds]}
            heatmap.draw(table, title, diverging=True)
    assert all(left >= 0 and right <= width for left, right, width in seen) and len(seen) == 3


def test_a_layer_that_is_not_there_leaves_the_others_their_numbers(monkeypatch):
    import matplotlib.figure

    names = []
    save = matplotlib.figure.Figure.savefig

    def look(figure, *args, **kwargs):
        save(figure, *args, **kwargs)
        names.extend(label.get_text() for label in figure.axes[0].get_yticklabels())

    monkeypatch.setattr(matplotlib.figure.Figure, "savefig", look)
    heatmap.draw({("encoder", 1): [1.0, 2.0], ("encoder", 3): [1.0, 0.5]}, "without layers 0 and 2")
    assert names == ["1", "3"]


def test_a_plugins_criterion_needs_no_amount_and_no_family(monkeypatch):
    class Loudest(attnbench.Method):
        name, criterion = "loudest", True

        def fit(self, model, batches):
            self.scores_ = {("encoder", 0): torch.tensor([0.5, 1.0])}

    monkeypatch.setitem(registry().methods, "loudest", Loudest)
    assert importance.criteria()["loudest"] is Loudest
    found, _ = ranking.ranked("bert", TASK, ["loudest"])
    assert found.tables["loudest"] == {("encoder", 0): [0.5, 1.0]}
