"""Tasks for encoders whose metric is no mean, and masked language models: against slow loops by hand."""

from __future__ import annotations

import math
import statistics as plain

import numpy as np
import pytest
import tiny_tasks
import torch
from closeness import close
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import rel_entr

from attnbench.backends import data, lm_eval
from attnbench.backends.encoders.inputs import cuts
from attnbench.backends.encoders.model import only_at
from attnbench.errors import NotApplicable, UserError
from attnbench.inputs import tasks
from attnbench.inputs.settings import Settings
from attnbench.matrix import answered
from attnbench.measures import fidelity, likely

DATA = """
import random

def words(rng, low, high):
    return " ".join(f"w{rng.randrange(60)}" for _ in range(rng.randint(low, high)))

def texts(split, count=40):
    rng = random.Random(f"{split} texts")
    for k in range(count):
        first, second = words(rng, 1, 30), words(rng, 1, 9)
        yield {"first": first, "second": second, "label": k % 3 % 2, "score": rng.random() * 5}

def pairs(split, count=12):
    rng = random.Random(f"{split} pairs")
    for k in range(count):
        yield {"good": words(rng, 2, 9), "bad": words(rng, 2, 9)}

def pages(split, count=5):
    rng = random.Random(f"{split} pages")
    for k in range(count):
        yield {"page": words(rng, 1, 70)}

def louder(docs):
    return [{**doc, "first": doc["first"] + " w0"} for doc in docs]
"""
BASE = {
    "custom_dataset": "!function made_up.texts",
    "validation_split": "validation",
    "doc_to_text": "[first, second]",
    "doc_to_target": "label",
    "metadata": "{calibration: {split: train, samples: 20}}",
}
CLASSIFY = {
    "class": "!function attnbench.backends.classification.Classify",
    **BASE,
    "doc_to_choice": "['no', 'yes']",
    "metric_list": "[{metric: mcc}, {metric: f1}, {metric: acc}]",
}
REGRESS = {
    "class": "!function attnbench.backends.classification.Regress",
    **BASE,
    "doc_to_target": "score",
    "metric_list": "[{metric: spearman}, {metric: pearson}]",
}
PAIRS = {
    "class": "!function attnbench.backends.masked.MinimalPairs",
    "custom_dataset": "!function made_up.pairs",
    "validation_split": "validation",
    "doc_to_text": "[good, bad]",
    "metric_list": "[{metric: acc}]",
}
PAGES = {
    "class": "!function attnbench.backends.masked.PseudoPerplexity",
    "custom_dataset": "!function made_up.pages",
    "validation_split": "validation",
    "doc_to_text": "page",
    "metric_list": "[{metric: pseudo_perplexity}]",
    "metadata": "{window: {max_seq_length: 20, share: 0.25}, calibration: {split: train, samples: 4}}",
}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return tiny_tasks.built_once(tmp_path_factory, tiny_tasks.checkpoint)


@pytest.fixture
def task(tmp_path):
    return lambda base, **changes: tiny_tasks.write(tmp_path, DATA, {**base, **changes})


def _measure(folder, chosen, **options):
    prepared = lm_eval.prepare("made", chosen, Settings(include_path=folder))
    model = chosen.load(prepared.head)
    prepared.check(model)
    return prepared, model, prepared.evaluate(model, **options)


def _jackknife(metric, rows):
    values = [metric(rows[:k] + rows[k + 1 :]) for k in range(len(rows))]
    return math.sqrt((len(rows) - 1) / len(rows) * sum((v - plain.mean(values)) ** 2 for v in values))


# metrics that are no mean


def test_mcc_and_f1_keep_their_counts(checkpoint, task):
    prepared, model, found = _measure(task(CLASSIFY), checkpoint())
    ahead = np.median([logits[1] - logits[0] for logits in found.outputs])
    model.classifier.bias.data += torch.tensor([ahead, 0.0])  # or it would say the same of all
    found, rows = prepared.evaluate(model), []
    for instance, logits in zip(prepared.task.instances, found.outputs, strict=True):
        rows.append((int(logits[1] > logits[0]), instance.doc["label"]))

    def count(rows, pair):
        return sum(row == pair for row in rows)

    def f1(rows):
        right, said = count(rows, (1, 1)), sum(row[0] for row in rows)
        return 2 * right / (said + sum(row[1] for row in rows))

    def mcc(rows):
        tp, fp, fn, tn = (count(rows, pair) for pair in ((1, 1), (1, 0), (0, 1), (0, 0)))
        return (tp * tn - fp * fn) / math.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))

    for name, metric in (("f1", f1), ("mcc", mcc)):
        assert found.metrics[name]["value"] == pytest.approx(metric(rows))
        assert found.metrics[name]["aggregate"] == name and found.metrics[name]["higher_is_better"]
        assert found.metrics[name]["stderr"] == pytest.approx(_jackknife(metric, rows), rel=0.05)
        assert found.scores[name].shape == (40, 4)
        expected = [[count([row], pair) for pair in ((1, 1), (1, 0), (0, 1), (0, 0))] for row in rows]
        assert found.scores[name].tolist() == expected
    assert found.metrics["acc"]["value"] == plain.mean(said == label for said, label in rows)


def test_a_number_is_compared_by_correlation(checkpoint, task):
    from scipy import stats

    prepared, _, found = _measure(task(REGRESS), checkpoint(labels=("similarity",)))
    said = [float(output[0]) for output in found.outputs]
    meant = [instance.doc["score"] for instance in prepared.task.instances]
    assert found.metrics["pearson"]["value"] == pytest.approx(stats.pearsonr(said, meant).statistic)
    assert found.metrics["spearman"]["value"] == pytest.approx(stats.spearmanr(said, meant).statistic)
    np.testing.assert_allclose(found.scores["pearson"], np.stack([said, meant], 1))
    assert np.array_equal(found.scores["pearson"], found.scores["spearman"])
    rows = list(zip(said, meant, strict=True))
    slow = _jackknife(lambda rows: stats.pearsonr(*zip(*rows, strict=True)).statistic, rows)
    assert found.metrics["pearson"]["stderr"] == pytest.approx(slow, rel=0.1)
    with torch.no_grad():
        model = checkpoint(labels=("similarity",)).load("classification")
        losses = [model(**batch).loss for batch in prepared.calibration()]
    assert all(torch.isfinite(loss) for loss in losses)


def test_a_number_needs_one_output_and_a_label_two(checkpoint, task):
    with pytest.raises(UserError, match="the task needs one number; the model has no, yes"):
        _measure(task(REGRESS), checkpoint())
    with pytest.raises(UserError, match="the task has no, yes; the model has similarity"):
        _measure(task(CLASSIFY), checkpoint(labels=("similarity",)))
    with pytest.raises(UserError, match="needs numbers; a document has 'w"):
        _measure(task(REGRESS, doc_to_target="second"), checkpoint(labels=("similarity",)))


# masked language models


def _slow(model, words, text, places=None):
    """Add up log p of every word (or of some places) with a mask in its place: one forward each."""
    ids = words(text)["input_ids"]
    total, count = 0.0, 0
    for k in range(1, len(ids) - 1) if places is None else places:
        given = torch.tensor([ids])
        given[0, k] = words.mask_token_id
        with torch.no_grad():
            logits = model(input_ids=given).logits[0, k].double()
        total += float(logits[ids[k]] - torch.logsumexp(logits, 0))
        count += 1
    return total, count


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_minimal_pairs_equal_a_loop_by_hand(family, checkpoint, task):
    chosen = checkpoint(family, "MaskedLM")
    prepared, model, found = _measure(task(PAIRS), chosen)
    words, right = chosen.tokenizer(), []
    for instance, output in zip(prepared.task.instances, found.outputs, strict=True):
        good, bad = (_slow(model, words, instance.doc[key]) for key in ("good", "bad"))
        close(output, [*good, *bad], layers=2)
        right.append(float(good[0] > bad[0]))
    assert found.scores["acc"].tolist() == right and 0 < sum(right) < 12


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_pseudo_perplexity_equals_a_loop_by_hand(family, checkpoint, task):
    chosen = checkpoint(family, "MaskedLM")
    window = "{window: {max_seq_length: 20, share: 1.0}}"
    prepared, model, found = _measure(task(PAGES, metadata=window), chosen)
    words, sums = chosen.tokenizer(), []
    for instance, output in zip(prepared.task.instances, found.outputs, strict=True):
        page = instance.doc["page"].split()
        parts = [_slow(model, words, " ".join(page[k : k + 18])) for k in range(0, len(page), 18)]
        sums.append([sum(part[0] for part in parts), len(page)])
        close(output, sums[-1], layers=2)
    total = np.sum(sums, 0)
    metric = found.metrics["pseudo_perplexity"]
    close(metric["value"], math.exp(-total[0] / total[1]), layers=2)
    assert metric["aggregate"] == "perplexity" and metric["higher_is_better"] is False
    close(found.scores["pseudo_perplexity"], sums, layers=2)


def test_a_share_of_the_tokens_is_drawn_by_its_seed(checkpoint, task):
    chosen = checkpoint("bert", "MaskedLM")
    prepared, model, found = _measure(task(PAGES), chosen)
    rows = prepared._lm.rows(prepared.task.instances)
    for instance, mine, output in zip(prepared.task.instances, rows, found.outputs, strict=True):
        page, expected = instance.doc["page"].split(), 0.0
        for k, row in enumerate(mine):
            inside = len(row.ids) - 2
            assert len(row.places) == max(1, round(0.25 * inside)) == len(set(row.places.tolist()))
            text = " ".join(page[k * 18 : k * 18 + 18])
            expected += _slow(model, chosen.tokenizer(), text, row.places.tolist())[0]
        close(output[0], expected, layers=2)
        assert output[1] == sum(len(row.places) for row in mine)
    again = _measure(task(PAGES), chosen)[2]
    assert np.array_equal(again.scores["pseudo_perplexity"], found.scores["pseudo_perplexity"])
    other = PAGES["metadata"].replace("0.25", "0.25, seed: 1")
    assert not np.allclose(_measure(task(PAGES, metadata=other), chosen)[2].outputs, found.outputs)


@pytest.mark.parametrize("share", [1.0, 0.25])
def test_what_is_expected_of_masked_tokens_is_that_of_the_plain_model(share, checkpoint, task):
    chosen = checkpoint("bert", "MaskedLM")
    metadata = f"{{window: {{max_seq_length: 20, share: {share}}}}}"
    prepared, model, dense = _measure(task(PAGES, metadata=metadata), chosen, batch_size=4)
    other = checkpoint("bert", "MaskedLM", seed=1).load(prepared.head)  # no tiny change, of any cause
    own = prepared.evaluate(other, dense.likely[likely.IDS], batch_size=7)
    found = fidelity.compared(prepared.form, {}, *(answered.arrays(each) for each in (dense, own)))
    expected = []
    for rows in prepared._lm.rows(prepared.task.instances):
        odds = []
        for row in rows:
            for place in row.places:
                ids = torch.tensor(row.ids.tolist())[None]
                ids[0, place] = chosen.tokenizer().mask_token_id
                with torch.no_grad():
                    before = model(input_ids=ids).logits[0, place].double().softmax(-1).numpy()
                    now = other(input_ids=ids).logits[0, place].double().softmax(-1).numpy()
                order = np.argsort(-before)
                kinds = [np.append(each[order[:16]], each[order[16:]].sum()) for each in (before, now)]
                odds.append(rel_entr(*kinds).sum())
        expected.append(np.mean(odds))
    close(found["fidelity kl"], expected, layers=2)
    assert list(found) == ["fidelity kl"] and min(expected) > 1e-3


@pytest.mark.parametrize("base", [CLASSIFY, PAIRS, PAGES], ids=["classify", "pairs", "pages"])
def test_results_do_not_depend_on_the_batches(base, checkpoint, task):
    chosen = checkpoint("bert", "SequenceClassification" if base is CLASSIFY else "MaskedLM")
    prepared, model, first = _measure(task(base), chosen, batch_size=1)
    for options in ({"batch_size": 7}, {"batch_tokens": 1}, {"batch_tokens": 90}):
        other = prepared.evaluate(model, **options)
        close(np.stack(other.outputs), np.stack(first.outputs), layers=2)


def test_inputs_to_look_at_are_few_of_long_pages(checkpoint, task):
    prepared = _measure(task(PAGES), checkpoint("bert", "MaskedLM"))[0]
    sizes = [len(rows) for rows in prepared._lm.rows(prepared.task.instances)]
    assert max(sizes) > 2
    for n in (1, 2, 5):
        kept = [k for k in range(1, n + 1) if sum(sizes[:k]) <= 4 * n] or [1]
        assert sum(len(batch["input_ids"]) for batch in prepared.batches(n)) == sum(sizes[: kept[-1]])


@pytest.mark.parametrize("base", [PAIRS, PAGES], ids=["pairs", "pages"])
def test_progress_counts_the_documents_whose_copies_are_all_done(base, checkpoint, task):
    chosen, heard = checkpoint("bert", "MaskedLM"), []
    prepared = lm_eval.prepare("made", chosen, Settings(include_path=task(base)))
    prepared.evaluate(chosen.load("masked-lm"), batch_size=3, progress=heard.append)
    assert heard == sorted(heard) and heard[-1] == prepared.samples


@given(
    st.lists(st.integers(0, 40), max_size=30).map(lambda values: sorted(values, reverse=True)),
    st.integers(1, 9),
    st.none() | st.integers(1, 120),
)
def test_cuts_cover_everything_within_the_budget(lengths, size, tokens):
    found = list(cuts(lengths, size, tokens))
    assert [k for start, stop in found for k in range(start, stop)] == list(range(len(lengths)))
    for start, stop in found:
        if tokens is None:
            assert stop - start <= size
        else:
            assert stop == start + 1 or (stop - start) * lengths[start] <= tokens


@pytest.mark.parametrize("name", ["Bert", "Roberta", "Electra", "DistilBert", "Albert", "ModernBert"])
def test_logits_of_one_place_are_those_of_all(name):
    import transformers

    small = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
    small |= {"embedding_size": 16, "dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 24}
    config = getattr(transformers, f"{name}Config")(vocab_size=97, **small, pad_token_id=0)
    model = getattr(transformers, f"{name}ForMaskedLM")(config).eval()
    ids = torch.randint(3, 97, (4, 9), generator=torch.Generator().manual_seed(0))
    line, places = torch.arange(4), torch.tensor([1, 5, 2, 8])
    with torch.no_grad():
        whole = model(input_ids=ids).logits[line, places]
        with only_at(model, line, places):
            found = model(input_ids=ids).logits
        assert model(input_ids=ids).logits.shape == (4, 9, 97)
    assert found.shape == (4, 1, 97)
    close(found[:, 0], whole, layers=2)


def test_calibration_of_a_masked_model_asks_for_what_is_masked(checkpoint, task):
    chosen = checkpoint("bert", "MaskedLM")
    prepared = lm_eval.prepare("made", chosen, Settings(include_path=task(PAGES)))
    model, words = chosen.load("masked-lm"), chosen.tokenizer()
    for batch in prepared.calibration(batch_size=3):
        asked = batch["labels"] != -100
        assert (asked == (batch["input_ids"] == words.mask_token_id)).all()
        assert asked.any(1).all() and (batch["labels"][asked] >= words.vocab["w0"]).all()
        with torch.no_grad():
            assert torch.isfinite(model(**batch).loss)


def test_pairs_are_calibrated_on_the_texts_of_another_dataset(checkpoint, task, monkeypatch):
    chosen = checkpoint("bert", "MaskedLM")
    with pytest.raises(NotApplicable, match="names no calibration split"):
        lm_eval.prepare("made", chosen, Settings(include_path=task(PAIRS))).calibration()

    def load(path, name, split, columns):
        (column,) = columns(["id", "sentence"])
        return [{column: f"w{k} w{k + 1} w3"} for k in range(9)] + [{column: " "}]

    monkeypatch.setattr(data, "load", load)
    prepared = lm_eval.prepare(
        "made", chosen, Settings(include_path=task(PAIRS), calibration="some/texts:train")
    )
    batches = prepared.calibration()
    assert sum(len(batch["input_ids"]) for batch in batches) == 9
    assert prepared.fingerprints["calibration"] == "some/texts:train[512] seed 0"
    prepared = lm_eval.prepare("made", chosen, Settings(include_path=task(PAIRS), calibration="mine.csv"))
    with pytest.raises(UserError, match=r"'mine\.csv' holds labels, task 'made' does not"):
        prepared.calibration()


def test_a_tokenizer_without_a_mask_is_an_error(checkpoint, task):
    with pytest.raises(UserError, match="no mask token"):
        _measure(task(PAIRS), checkpoint("bert", "MaskedLM", mask=False))


def test_windows_longer_than_the_model_takes_are_an_error(checkpoint, task):
    long = "{window: {max_seq_length: 60, share: 0.1}}"
    with pytest.raises(UserError, match=r"inputs of task 'made' have over 40 tokens.*\(the longest: 60\)"):
        _measure(task(PAGES, metadata=long), checkpoint("bert", "MaskedLM", positions=40))


# documents


def test_longer_texts_are_cut_only_where_the_task_says_so(checkpoint, task):
    chosen = checkpoint(positions=24)
    with pytest.raises(UserError, match="have over 24 tokens"):
        _measure(task(CLASSIFY), chosen)
    prepared, _, found = _measure(task(CLASSIFY, metadata="{max_seq_length: 24}"), chosen)
    rows = [rows[0] for rows in prepared._lm.rows(prepared.task.instances)]
    long = [len(f"{i.doc['first']} {i.doc['second']}".split()) + 3 > 24 for i in prepared.task.instances]
    assert [row.cut for row in rows] == long and max(len(row.ids) for row in rows) == 24
    assert prepared.notes == [f"{sum(long)} of 40 inputs of made are cut to fit"]
    assert len(found.outputs) == 40


def test_documents_may_be_processed(checkpoint, task):
    prepared = _measure(task(CLASSIFY, process_docs="!function made_up.louder"), checkpoint())[0]
    assert all(instance.doc["first"].endswith(" w0") for instance in prepared.task.instances)


@pytest.mark.parametrize("base", [CLASSIFY, PAIRS])
def test_an_empty_text_is_a_text_but_no_sentence(base, checkpoint, task, tmp_path):
    folder = task(base)
    code = DATA.replace('words(rng, 2, 9), "bad"', '"", "bad"').replace("words(rng, 1, 30)", '""')
    (tmp_path / "made_up.py").write_text(code)
    if base is PAIRS:
        with pytest.raises(UserError, match="document 0 has an empty sentence"):
            _measure(folder, checkpoint("bert", "MaskedLM"))
    else:
        assert len(_measure(folder, checkpoint())[2].outputs) == 40


@pytest.mark.parametrize(
    ("text", "message"),
    [("None", "document 0 has None for a text"), ("'w1 \\ud83d'", "half a character .* at 3")],
)
def test_a_text_that_is_none(text, message, checkpoint, task, tmp_path):
    folder = task(CLASSIFY)
    (tmp_path / "made_up.py").write_text(DATA.replace("words(rng, 1, 30)", text))
    with pytest.raises(UserError, match=message):
        _measure(folder, checkpoint())


def test_a_split_without_documents_is_an_error(checkpoint, task):
    with pytest.raises(UserError, match="split 'validation' holds no document"):
        _measure(task(CLASSIFY, dataset_kwargs="{count: 0}"), checkpoint())


def test_the_few_calibration_samples_that_are_evaluated_too_are_replaced(checkpoint, task, tmp_path):
    folder = task(CLASSIFY, metadata="{calibration: {split: train, samples: 40}}")
    clash = """
def clash(split):
    return list(texts(split, 60)) + (list(texts("validation"))[:SHARED] if split == "train" else [])
"""
    for shared, fine in ((2, True), (30, False)):
        (tmp_path / "made_up.py").write_text(DATA + clash.replace("SHARED", str(shared)))
        task_file = tmp_path / "made.yaml"
        task_file.write_text(task_file.read_text().replace("made_up.texts", "made_up.clash"))
        prepared = lm_eval.prepare("made", checkpoint(), Settings(include_path=folder))
        evaluated = {instance.doc["first"] for instance in prepared.task.instances}
        if fine:
            docs = prepared.calibration_documents()
            assert len(docs) == 40 == len({doc["first"] for doc in docs})
            assert not evaluated & {doc["first"] for doc in docs}
        else:
            with pytest.raises(
                UserError, match=r"of 40 calibration samples of task 'made' are evaluated too"
            ):
                prepared.calibration_documents()


def test_white_space_makes_no_text_another(checkpoint, task, tmp_path):
    fitted = "{calibration: {split: train, samples: 40}}"
    folder = task(CLASSIFY, custom_dataset="!function made_up.spaced", metadata=fitted)
    spaced = """
def spaced(split):
    found = list(texts("both"))
    return found if split != "train" else [{**doc, "second": f" {doc['second']} \\n"} for doc in found]
"""
    (tmp_path / "made_up.py").write_text(DATA + spaced)
    prepared = lm_eval.prepare("made", checkpoint(), Settings(include_path=folder))
    with pytest.raises(UserError, match="40 of 40 calibration samples of task 'made' are evaluated too"):
        prepared.calibration_documents()


# configurations


def test_configurations_are_measured_one_after_the_other_and_alone(checkpoint, task, tmp_path, monkeypatch):
    def load(path, name, split, columns, **options):
        return [{"good": f"w{ord(name[-1]) % 60} w{k}", "bad": "w1 w2"} for k in range(3)]

    monkeypatch.setattr(data, "load", load)
    chosen = checkpoint("bert", "MaskedLM")
    changes = {
        "custom_dataset": None,
        "dataset_path": "some/data",
        "metadata": "{configurations: [a, made.b]}",
    }
    folder = task(PAIRS, **changes)
    whole = lm_eval.prepare("made", chosen, Settings(include_path=folder))
    alone = [lm_eval.prepare(f"made_{part}", chosen, Settings(include_path=folder)) for part in "ab"]
    assert [len(each.task.instances) for each in (whole, *alone)] == [6, 3, 3]
    docs = [instance.doc for each in alone for instance in each.task.instances]
    assert docs == [instance.doc for instance in whole.task.instances]
    assert [each.task.task_name for each in alone] == ["made_a", "made_b"]
    assert len({each.fingerprints["task"] for each in (whole, *alone)}) == 3
    with pytest.raises(UserError, match="unknown task 'made_c'"):
        lm_eval.prepare("made_c", chosen, Settings(include_path=folder))
    other = tiny_tasks.write(tmp_path, DATA, {**PAIRS, "metadata": "{configurations: [a]}"}, "of_mine")
    assert tasks.find("of_mine_a", other).configuration == "a"


def test_bundled_configurations_have_the_names_of_lm_eval():
    assert tasks.find("xquad_de").configuration == "xquad.de"
    assert tasks.find("blimp_adjunct_island").configuration == "adjunct_island"
    parts = tasks.find("blimp").parts()
    assert len(parts) == 67 and all(tasks.stock(name) for name in ("blimp_transitive", "xquad_de"))
    stock = (tasks.Path(tasks.stock("blimp").path)).read_text()
    assert all(f'"{name}"' in stock for name in parts)


# mistakes


@pytest.mark.parametrize(
    ("base", "changes", "message"),
    [
        (PAIRS, {"doc_to_text": "good"}, "line 5: task 'made': it needs doc_to_text, the columns of the"),
        (
            PAGES,
            {"metadata": "{}"},
            "line 7: task 'made': it needs doc_to_text, a column",
        ),
        (PAGES, {"metadata": "{window: {max_seq_length: 20, share: 0}}"}, "line 7"),
        (REGRESS, {"doc_to_text": "[a, b, c]"}, "line 5: task 'made': it needs doc_to_text, one or two"),
        (
            REGRESS,
            {"metric_list": "[{metric: acc}]"},
            "Regress has no metric 'acc'. It has pearson",
        ),
        (
            CLASSIFY,
            {"custom_dataset": "!function made_up.nothing"},
            "made.yaml', line 3: Module .* has no function",
        ),
        (CLASSIFY, {"class": "!function attnbench.nowhere.Task"}, "made.yaml', line 2: Cannot import module"),
        (CLASSIFY, {"custom_dataset": "[!function"}, r"made.yaml', line \d: cannot be read"),
    ],
)
def test_a_mistake_in_a_task_file_is_named_with_its_line(base, changes, message, checkpoint, task):
    head = "MaskedLM" if base in (PAIRS, PAGES) else "SequenceClassification"
    with pytest.raises(UserError, match=message):
        _measure(task(base, **changes), checkpoint("bert", head))
