"""`attnbench heads`: tables, files, rank correlations, and the effect of each head against a loop by hand."""

from __future__ import annotations

import csv
import io

import numpy as np
import pytest
import scipy.stats
import torch
from PIL import Image

import attnbench
from attnbench.backends import lm_eval
from attnbench.boards.pictures import heatmap
from attnbench.cli.looking import head_tables
from attnbench.cli.main import main
from attnbench.engine.learning.gates import Silenced
from attnbench.errors import UserError
from attnbench.inputs import models
from attnbench.inputs.settings import Settings
from attnbench.matrix.bench import Bench
from attnbench.methods.plugins import registry
from attnbench.studies import importance

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
        status = main([*arguments, "--output", str(folder)])
    return folder / "pocket-bert" / TASK, status, stdout.getvalue()


def test_scores_are_printed_and_written(done):
    folder, status, shown = done
    assert status == 1  # l1 was asked for by name and tells no heads apart
    assert "l1: failed: heads:l1 cannot tell the heads apart" in shown
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        [
            "correlations.csv",
            *(f"{name}{end}" for name in ("entropy", "l2", "effect") for end in (".csv", ".png")),
        ]
    )
    found = importance.study("bert", TASK, ["entropy"])
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
    assert f"(with every head it is {dense:.4f}; higher is better)" in shown

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
    study = importance.Study("m", "t", {"a": {("encoder", 0): [1.0, 2.0]}, "b": {("encoder", 0): [3.0, 3.0]}})
    values = study.correlations()
    assert values["a", "a"] == 1 and np.isnan(values["a", "b"]) and np.isnan(values["b", "b"])
    assert "–" in head_tables.describe(study) and "nan" not in head_tables.describe(study)


def test_kinds_are_named_where_there_are_several():
    study = importance.Study("m", "t", {"a": {("cross", 0): [1.0, 2.0], ("encoder", 0): [1.0, 0.5]}})
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
    assert main(line.split()) == 2
    assert says in capsys.readouterr().err.splitlines()[-1]


def test_all_criteria_are_those_that_score():
    assert importance.chosen(["all"]) == list(importance.criteria())
    assert importance.chosen([]) == ["entropy", "gradient", "l2"]
    assert set(importance.criteria()) == {
        "l1", "l2", "entropy", "variance", "output", "confidence", "gradient", "lrp", "probe", "random",
    }  # fmt: skip
    with pytest.raises(UserError, match="fixed"):
        importance.chosen(["fixed"])


def test_a_criterion_that_does_not_apply_is_no_failure(capsys, tmp_path):
    line = "heads --models bert --tasks pocket-qa --by probe,confidence --output"
    assert main([*line.split(), str(tmp_path)]) == 0
    shown = capsys.readouterr()
    assert "probe: not applicable: heads:probe needs a class label" in shown.out
    assert "\nconfidence\n" in shown.out and "failed" not in shown.out
    assert "next: attnbench methods heads:probe   attnbench run --methods heads50:probe" in shown.err


@pytest.mark.parametrize("error", [RuntimeError, SystemExit])
def test_a_criterion_that_breaks_does_not_stop_the_others(error, capsys, tmp_path, monkeypatch):
    def broken(*_):
        raise error("one of the tensors was not used")

    monkeypatch.setattr(importance.criteria()["confidence"], "importance", broken)
    line = "heads --models bert --tasks pocket-sentiment --by confidence,l2 --output"
    assert main([*line.split(), str(tmp_path)]) == 1
    shown = capsys.readouterr().out
    assert f"confidence: failed: {error.__name__}: one of the tensors was not used" in shown
    assert "\nl2\n" in shown


def test_a_criterion_is_explained_where_it_is_shown(done):
    _, _, shown = done
    assert "Remove the heads that look everywhere: a low entropy of attention counts as importance." in shown
    assert "importance = -mean over examples and queries of (-sum_k p log p) / log n" in shown
    assert max(map(len, shown.splitlines())) <= 110


LOWER = {"word_perplexity": ({"word_perplexity": (6.0, 9.0)}, False), "mcc": ({"mcc": (-0.25, -0.5)}, True)}


@pytest.mark.parametrize("metric", LOWER)
def test_the_effect_is_how_much_worse_a_metric_is_either_way(metric, monkeypatch):
    """A stand-in for the evaluation: the model with all its heads, then without one."""
    values, higher = LOWER[metric]
    whole, without = values[metric]

    class Prepared:
        def evaluate(self, model, **_):
            seen = []
            note = lambda context, _: seen.extend(head.any() for head in context.transpose(0, 1))  # noqa: E731
            with torch.no_grad(), attnbench.watch(model, context=note):
                model(input_ids=torch.arange(5, 12)[None])
            value = whole if all(seen) else without
            metrics = {metric: {"value": value, "stderr": 0.1, "higher_is_better": higher}}
            return type("Measurement", (), {"metrics": metrics})

    bench = Bench("bert", TASK, Settings(limit=1))
    bench.prepared, model = Prepared(), bench.model
    found = importance.Study("m", "t")
    found.tables[importance.EFFECT] = importance._ablate(found, bench)
    assert found.dense == whole and found.higher_is_better is higher
    assert {value for row in found.tables["effect"].values() for value in row} == {abs(without - whole)}
    better = "higher" if higher else "lower"
    text = f"how much worse {metric} is without this head alone (with every head it is {whole:.4f}; {better}"
    assert text in head_tables.describe(found) and model is bench.model


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
    assert importance.study("bert", TASK, ["loudest"]).tables["loudest"] == {("encoder", 0): [0.5, 1.0]}
