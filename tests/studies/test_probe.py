"""The probe: chosen on dev alone, all places at once, with controls that say what a score means."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
import transformers
from sklearn.linear_model import LogisticRegression, Ridge
from tiny_tasks import tokenizer

import attnbench
from attnbench.errors import UserError
from attnbench.methods.protocol import Method
from attnbench.methods.spec import parse_study
from attnbench.studies.passes import conduct
from attnbench.studies.probes import fits, other_weights, probing
from attnbench.studies.probes.fits import Targets
from attnbench.studies.probes.tasks import SPLITS, Task
from attnbench.studies.reading import Reading


@pytest.fixture(scope="module")
def reading() -> Reading:
    """A tiny BERT with random weights that reads words w0 to w59."""
    words = tokenizer()
    config = transformers.BertConfig(
        vocab_size=len(words), hidden_size=24, num_hidden_layers=2, num_attention_heads=3,
        intermediate_size=16, max_position_embeddings=20, pad_token_id=0,
    )  # fmt: skip
    torch.manual_seed(0)
    model = transformers.BertModel(config).eval()
    for name, weight in model.named_parameters():
        if weight.dim() == 2:
            weight.data.normal_(std=0.5 if "embeddings" not in name else 1.0)
    return Reading(model, words)


@dataclass
class Silent(Method):
    """Let no head read anything."""

    name = "silent"

    def context(self, context, site):
        return context * 0


def made(label, samples: int = 300, classes: int = 2, words: int = 60) -> Task:
    """Make texts of three to eight of some words, each labelled by `label(words, rng)`."""
    rng = np.random.default_rng(0)
    texts, labels = {}, {}
    for split in SPLITS:
        drawn = [rng.integers(0, words, rng.integers(3, 9)) for _ in range(samples)]
        texts[split] = [(" ".join(f"w{k}" for k in each),) for each in drawn]
        labels[split] = np.array([label(each, rng) for each in drawn])
    return Task("made", "", False, texts, labels, classes)


def tables(monkeypatch, reading, task, spec="probe"):
    monkeypatch.setattr(probing, "find", lambda *_: task)
    (seen,) = conduct(reading.model, [parse_study(spec)], reading)
    assert not seen.failed and not seen.absent
    return seen.tables()["dense"]


def by_first(words, _):
    return int(words[0] < 30)


def test_no_choice_sees_a_test_label(monkeypatch, reading):
    task = made(lambda words, rng: int(words[0] < 30) if rng.random() < 0.9 else int(rng.integers(3)), 150, 3)
    honest = tables(monkeypatch, reading, task)
    rng = np.random.default_rng(5)
    # labels that would make each of many choices come out otherwise: those that a poor head says best
    for draw in range(2):
        labels = task.labels | {"test": rng.permutation(task.labels["test"]) if draw else np.full(150, -1)}
        other = tables(monkeypatch, reading, Task("made", "", False, task.texts, labels, 3))
        for name in ("probes", "compared", "sweep"):
            columns = [each for each in ("dev", "penalty", "columns") if each in honest[name]]
            assert other[name].index.equals(honest[name].index)
            np.testing.assert_array_equal(other[name][columns].to_numpy(), honest[name][columns].to_numpy())
            if name == "probes":  # and the labels do count where they should
                assert not np.allclose(other[name]["score"], honest[name]["score"])


def test_selectivity_is_near_zero_for_labels_that_are_a_control_themselves(monkeypatch, reading):
    samples = 300
    arbitrary = np.random.default_rng(9).integers(0, 2, 60)
    task = made(lambda words, _: int(arbitrary[words[0]]), samples, words=12)
    found = tables(monkeypatch, reading, task, "probe:pooling=first")["probes"]
    assert found["score"].max() > 0.9  # the first word can be told, arbitrary as its label is
    # of two accuracies of 300 samples, and of what 9 weights of a head cannot tell of 12 words: two of them
    assert abs(found["selectivity"].mean()) < 4 * (2 * 0.25 / samples) ** 0.5 + 2 / 12


def test_random_labels_are_not_told(monkeypatch, reading):
    samples = 300
    task = made(lambda _, rng: int(rng.integers(2)), samples)
    found = tables(monkeypatch, reading, task)
    # 6 heads and 3 layers, and the best of what dev chose: 5 sd of the accuracy of a guess
    assert abs(found["probes"]["score"] - 0.5).max() < 5 * (0.25 / samples) ** 0.5
    assert found["heads"]["selectivity"].max() < 5 * (2 * 0.25 / samples) ** 0.5


def test_tables_have_a_row_for_each_and_say_the_same(monkeypatch, reading):
    found = tables(monkeypatch, reading, made(by_first, 120))
    probes, compared, sweep = found["probes"], found["compared"], found["sweep"]
    assert list(found["heads"].index) == [("encoder", layer, head) for layer in range(2) for head in range(3)]
    own, random = (probes.xs(name, level="weights").loc["made"] for name in ("given", "random"))
    for each in (own, random):
        assert sorted(each.index) == sorted(
            [("encoder", layer, head) for layer in range(2) for head in range(3)]
            + [("encoder", layer, -1) for layer in (-1, 0, 1)]
        )
    assert (own["score"] - own["control"] == own["selectivity"]).all() and random["control"].isna().all()
    heads, layers = own[own.index.get_level_values("head") >= 0], own[own.index.get_level_values("head") < 0]
    np.testing.assert_array_equal(found["heads"]["score"], heads.sort_index()["score"])
    rows = compared.loc["made", "given"]
    assert rows.loc["best head", "dev"] == heads["dev"].max() == sweep.loc[("made", "given", 1), "dev"]
    assert rows.loc["best layer", "dev"] == layers["dev"].drop(("encoder", -1, -1)).max()
    assert rows.loc["last layer", "score"] == layers.loc[("encoder", 1, -1), "score"]
    assert rows.loc["embeddings", "score"] == layers.loc[("encoder", -1, -1), "score"]
    assert rows.loc[["best 3 heads", "last layer", "random 3 heads"], "columns"].tolist() == [24, 24, 24]
    assert sweep.loc["made", "given"].index.tolist() == [1, 2, 4, 6] and rows.loc["majority", "score"] > 0.4
    assert rows["spread"].notna().sum() == 1


def test_gains_are_paired_over_the_texts_of_test(monkeypatch, reading):
    task = made(by_first, 120)
    found = tables(monkeypatch, reading, task)
    rows, depth = found["compared"].loc["made", "given"], found["depth"].loc["made", "given"]
    gains = rows.loc["best 3 heads", "score"] - rows["score"]
    for name in ("last layer", "best layer", "best head", "embeddings", "random 3 heads"):
        assert rows.loc[name, "behind"] == pytest.approx(gains[name])
    assert rows.loc[["best 3 heads", "majority"], "behind"].isna().all()
    trials = probing.Trials(reading.model, reading, task)
    right = [trials.score([[place]], "").right[0].astype(int) for place in trials.layers[1:]]
    assert [each.mean() for each in right] == [depth["lower"], depth["upper"]]
    gain = [int(a) - int(b) for a, b in zip(*right, strict=True)]
    mean = sum(gain) / 120
    error = (sum((each - mean) ** 2 for each in gain) / 119 / 120) ** 0.5
    np.testing.assert_allclose(
        depth[["gain", "gain_low", "gain_high"]], [mean, mean - 1.96 * error, mean + 1.96 * error]
    )


def test_pairs_and_numbers_have_correlations_and_no_control(monkeypatch, reading):
    alike = made(lambda words, rng: 0, 120)
    rng, texts, labels = np.random.default_rng(2), {}, {}
    for split, given in alike.texts.items():
        same = rng.random(120) < 0.5
        other = [given[k] if each else given[k - 1] for k, each in enumerate(same)]
        texts[split] = [(*one, *two) for one, two in zip(given, other, strict=True)]
        labels[split] = same * 4.0 + rng.random(120)
    task = Task("pairs", "", True, texts, labels, 0)
    found = tables(monkeypatch, reading, task, "probe:pooling=mean")
    heads = found["heads"]
    assert heads["score"].between(0.5, 1).all()  # |u - v| is zero for a text beside itself
    assert heads[["control", "selectivity"]].isna().all().all()
    rows = found["compared"].loc["pairs", "given"]
    assert "majority" not in rows.index and rows.loc["last layer", "columns"] == 2 * 24


def test_a_method_is_probed_without_other_weights(monkeypatch, reading):
    monkeypatch.setattr(probing, "find", lambda *_: made(by_first, 80))
    (seen,) = conduct(reading.model, [parse_study("probe")], reading, {"silent": [Silent()]})
    assert not seen.failed
    found = seen.tables()
    assert set(found["dense"]["probes"].index.get_level_values("weights")) == {"given", "random"}
    silent = found["silent"]["probes"]
    assert set(silent.index.get_level_values("weights")) == {"given"}
    # a head that reads nothing has one vector for all texts: the most frequent class of train
    guess = found["silent"]["compared"].loc[("made", "given", "majority"), "score"]
    assert (silent[silent.index.get_level_values("head") >= 0]["score"] == guess).all()


def test_checkpoints_of_one_training_stand_in_one_table(monkeypatch, reading, tmp_path):
    names = []
    for step in (1, 2):
        other = other_weights.untrained(reading.model, step)
        other.save_pretrained(tmp_path / f"step-{step}")
        names.append(str(tmp_path / f"step-{step}"))
    spec = "probe:bare:" + ":".join(f"checkpoint={name}" for name in names)
    found = tables(monkeypatch, reading, made(by_first, 80), spec)["compared"]
    assert list(found.loc["made"].index.unique("weights")) == ["given", "step-1", "step-2"]
    (tmp_path / "half").mkdir()
    wide = transformers.BertModel(
        transformers.BertConfig(**{**reading.model.config.to_dict(), "hidden_size": 48})
    )
    wide.save_pretrained(tmp_path / "half")
    for folder, said in (
        ("half", "checkpoint .* another architecture|cannot be read"),
        ("none", "no config.json there"),
    ):
        with pytest.raises(UserError, match=said):
            probing.loaded(reading.model, str(tmp_path / folder))


def test_a_record_is_of_the_data_and_the_checkpoints_that_were_read(tmp_path):
    lines = [f"{split}\t{k % 2}\t{split} w{k}" for split in ("tr", "va", "te") for k in range(4)]
    (tmp_path / "data").mkdir()
    config = transformers.BertConfig(vocab_size=9, hidden_size=4, num_hidden_layers=1, num_attention_heads=1)
    for step in (1, 2):
        torch.manual_seed(step)
        transformers.BertModel(config).save_pretrained(tmp_path / f"step-{step}")

    def read(line, spec=""):
        (tmp_path / "data" / "tree_depth.txt").write_text("\n".join([*lines, line]), encoding="utf-8")
        return parse_study(f"probe:task=tree_depth:source={tmp_path / 'data'}{spec}").reads()

    first = read("tr\t0\tmore")
    assert set(first) == {"probing task tree_depth"} and first == read("tr\t0\tmore")
    for other in ("tr\t1\tmore", "tr\t0\tless", "va\t0\tmore"):
        assert read(other) != first
    steps = [read("tr\t0\tmore", f":checkpoint={tmp_path}/step-{step}") for step in (1, 2)]
    assert [set(each) - set(first) for each in steps] == [{"checkpoint step-1"}, {"checkpoint step-2"}]
    assert steps[0]["checkpoint step-1"] != steps[1]["checkpoint step-2"]


def test_a_control_of_one_class_is_told_by_all(monkeypatch, reading):
    task = made(lambda words, _: int(words[1] < 30), 60)
    for texts in task.texts.values():
        texts[:] = [("w1 " + text,) for (text,) in texts]
    found = tables(monkeypatch, reading, task)
    assert (found["heads"]["control"] == 1).all() and found["heads"]["score"].between(0, 0.95).all()


@pytest.mark.parametrize("spec", ["probe:units=-1", "probe:limit=0", "probe:checkpoint=a/x:checkpoint=b/x"])
def test_a_field_out_of_range_is_refused(spec):
    with pytest.raises(UserError):
        parse_study(spec)


@pytest.mark.parametrize("name", ["bert", "gpt", "marian"])
def test_pocket_models_of_every_kind_are_probed(name):
    folder = attnbench.checkpoint(name)
    config = transformers.AutoConfig.from_pretrained(folder)
    model = getattr(transformers, config.architectures[0]).from_pretrained(folder).eval()
    data = Reading(model, transformers.AutoTokenizer.from_pretrained(folder))
    (seen,) = conduct(model, [parse_study("probe:limit=40:bare")], data)
    assert not seen.failed and not seen.absent
    kind = "decoder" if name == "gpt" else "encoder"
    heads = seen.tables()["dense"]["heads"]
    assert set(heads.index.get_level_values("kind")) == {kind}
    assert len(heads) == sum(site.heads for site in attnbench.discover(model) if site.kind == kind)
    assert heads["score"].between(0, 1).all() and heads["score"].std() > 0


def vectors(sets=3, samples=120, columns=4, seed=0):
    rng = np.random.default_rng(seed)
    return torch.tensor(
        rng.normal(size=(sets, samples, columns)) @ rng.normal(size=(columns, columns))
    ).float()


def test_the_penalty_is_the_one_that_is_best_on_dev(monkeypatch):
    rng = np.random.default_rng(1)
    train, dev, test = vectors(2, 60, 20), vectors(2, 90, 20, 1), vectors(2, 50, 20, 2)
    labels = [
        torch.from_numpy((each[0, :, 0].numpy() + rng.normal(size=each.shape[1]) * 4 > 0).astype(int))
        for each in (train, dev, test)
    ]
    found = fits.train(train, dev, Targets(labels[0], labels[1], 2))
    scores = found.score(test, labels[2])
    for k in range(2):
        mean, deviation = train[k].mean(0), train[k].std(0, correction=0)
        x, z, t = (((each[k] - mean) / deviation).double().numpy() for each in (train, dev, test))
        theirs = {
            penalty: LogisticRegression(C=1 / (penalty * 60), tol=1e-9, max_iter=9999).fit(
                x, labels[0].numpy()
            )
            for penalty in fits.PENALTIES
        }
        on_dev = {penalty: each.score(z, labels[1].numpy()) for penalty, each in theirs.items()}
        penalty = float(found.penalty[k])
        # what is left on the grid can move a sample or two
        assert on_dev[penalty] >= max(on_dev.values()) - 2 / 90
        assert abs(float(found.dev[k]) - on_dev[penalty]) <= 1 / 90
        assert abs(float(scores[k]) - theirs[penalty].score(t, labels[2].numpy())) <= 1 / 50


def test_numbers_are_told_by_ridge_regression_and_pearson():
    rng = np.random.default_rng(3)
    train, dev, test = vectors(2), vectors(2, 70, seed=1), vectors(2, 50, seed=2)
    numbers = [
        torch.from_numpy(each[0, :, 1].double().numpy() + rng.normal(size=each.shape[1]))
        for each in (train, dev, test)
    ]
    found = fits.train(train, dev, Targets(numbers[0], numbers[1], 0))
    scores = found.score(test, numbers[2])
    for k in range(2):
        mean, deviation = train[k].mean(0), train[k].std(0, correction=0)
        x, z, t = (((each[k] - mean) / deviation).double().numpy() for each in (train, dev, test))
        theirs = {
            penalty: Ridge(alpha=penalty * len(x)).fit(x, numbers[0].numpy()) for penalty in fits.PENALTIES
        }
        on_dev = {penalty: np.corrcoef(each.predict(z), numbers[1])[0, 1] for penalty, each in theirs.items()}
        penalty = max(on_dev, key=on_dev.get)
        assert float(found.dev[k]) == pytest.approx(on_dev[penalty], abs=1e-5)
        assert float(scores[k]) == pytest.approx(
            np.corrcoef(theirs[penalty].predict(t), numbers[2])[0, 1], abs=1e-3
        )
    constant = fits.train(torch.ones_like(train), torch.ones_like(dev), Targets(numbers[0], numbers[1], 0))
    assert constant.score(torch.ones_like(test), numbers[2]).isnan().all() and constant.dev.isnan().all()


def test_a_perceptron_tells_what_no_line_parts_and_a_set_does_not_depend_on_the_others():
    given, held = (torch.randn(2, 600, 2, generator=torch.Generator().manual_seed(k)) for k in range(2))
    labels = [(each[0].prod(1) > 0).long() for each in (given, held)]
    targets = Targets(*labels, 2)
    line, bent = fits.train(given, held, targets), fits.train(given, held, targets, hidden=16)
    assert line.dev[0] < 0.65 and bent.dev[0] > 0.75 and bent.dev[1] < 0.65
    assert bent.score(held, labels[1]).tolist() == bent.dev.tolist()
    alone = fits.train(given[:1], held[:1], targets, hidden=16)
    assert abs(float(alone.dev[0]) - float(bent.dev[0])) < 0.02
    with pytest.raises(UserError, match="units="):
        fits.train(given, held, Targets(labels[0].double(), labels[1].double(), 0), hidden=4)
