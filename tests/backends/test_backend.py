"""The evaluation backend on tiny random encoders and generated documents, against slow loops by hand."""

from __future__ import annotations

import json
import logging
import subprocess
import sys

import numpy as np
import pytest
import tiny_tasks
import torch
from closeness import close
from hypothesis import given, settings
from hypothesis import strategies as st
from lm_eval.api.instance import Instance
from lm_eval.tasks import TaskManager

import attnbench
from attnbench.backends import data, lm_eval
from attnbench.backends.encoders.model import EncoderLM, best_spans
from attnbench.doors import lm_eval_cli
from attnbench.doors.lm_eval_model import AttnbenchLM
from attnbench.errors import NotApplicable, UserError
from attnbench.inputs.models import Checkpoint
from attnbench.inputs.settings import Settings

WORDS = [f"w{k}" for k in range(60)]
DATA = """
import random

def words(rng, low, high):
    return [f"w{rng.randrange(60)}" for _ in range(rng.randint(low, high))]

def texts(split, longest=30):
    rng = random.Random(f"{split} texts")
    for k in range(40):
        first = " ".join(words(rng, 1, longest))
        second = " ".join(words(rng, 1, 9))
        yield {"first": first, "second": second, "label": k % 2, "name": ["no", "yes"][k % 2]}

def same(split):
    return list(texts("validation"))

def questions(split, longest=70):
    rng = random.Random(f"{split} questions")
    for k in range(25):
        context = words(rng, 5, longest)
        first = rng.randrange(len(context))
        answer = " ".join(context[first : first + 3])
        start = len(" ".join(context[:first])) + (first > 0)
        answers = {"text": [answer, "w1"], "answer_start": [start, 0]}
        yield {"question": " ".join(words(rng, 2, 6)), "context": " ".join(context), "answers": answers}
"""
CLASSIFY = {
    "class": "!function attnbench.backends.classification.Classify",
    "custom_dataset": "!function made.texts",
    "validation_split": "validation",
    "doc_to_text": "first",
    "doc_to_target": "label",
    "doc_to_choice": "['no', 'yes']",
    "metric_list": "[{metric: acc}]",
    "metadata": "{calibration: {split: train, samples: 20}}",
}
SPAN = {
    "class": "!function attnbench.backends.spans.Span",
    "custom_dataset": "!function made.questions",
    "validation_split": "validation",
    "metric_list": "[{metric: em}, {metric: f1}]",
    "metadata": "{window: {max_seq_length: 32, doc_stride: 8, max_answer_length: 5},"
    " calibration: {split: train, samples: 20}}",
}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """Build a tiny checkpoint once for each choice: family, head, labels, positions."""
    return tiny_tasks.built_once(tmp_path_factory, _build)


def _build(folder, family="bert", head="SequenceClassification", labels=("no", "yes"), positions=80):
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    start, end, pad = ("[CLS]", "[SEP]", "[PAD]") if family == "bert" else ("<s>", "</s>", "<pad>")
    special = [pad, start, end] if family == "bert" else [start, pad, end]
    vocabulary = {token: k for k, token in enumerate([*special, "[UNK]", *WORDS])}
    raw = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    pair = f"{start} $A {end} $B:1 {end}:1" if family == "bert" else f"{start} $A {end} {end} $B {end}"
    raw.post_processor = processors.TemplateProcessing(
        single=f"{start} $A {end}",
        pair=pair,
        special_tokens=[(name, vocabulary[name]) for name in (start, end)],
    )
    inputs = ["input_ids", *(["token_type_ids"] if family == "bert" else []), "attention_mask"]
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=raw,
        pad_token=pad,
        cls_token=start,
        sep_token=end,
        unk_token="[UNK]",
        model_input_names=inputs,
    )
    if family == "gpt2":
        config = transformers.GPT2Config(vocab_size=len(vocabulary), n_embd=16, n_layer=1, n_head=2)
        model = transformers.GPT2LMHeadModel(config)
    else:
        name = {"bert": "Bert", "roberta": "Roberta"}[family]
        config = getattr(transformers, f"{name}Config")(
            vocab_size=len(vocabulary), hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
            intermediate_size=32, max_position_embeddings=positions + (2 if family == "roberta" else 0),
            pad_token_id=vocabulary[pad], type_vocab_size=2 if family == "bert" else 1,
            id2label=dict(enumerate(labels)),
        )  # fmt: skip
        torch.manual_seed(len(labels))
        model = getattr(transformers, f"{name}For{head}")(config)
        for weight in model.parameters():
            weight.data.normal_(std=0.4)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


@pytest.fixture
def task(tmp_path):
    """Write a task's YAML beside its data, and return the folder."""

    def write(base=CLASSIFY, **changes):
        (tmp_path / "made.py").write_text(DATA)
        content = {"task": "made", **base, **changes}
        lines = [f"{key}: {value}" for key, value in content.items() if value is not None]
        (tmp_path / "made.yaml").write_text("\n".join(lines))
        return str(tmp_path)

    return write


def _prepare(folder, checkpoint, **options):
    return lm_eval.prepare("made", checkpoint, Settings(include_path=folder, **options))


def _measure(folder, checkpoint, batch_size=8, **options):
    prepared = _prepare(folder, checkpoint, **options)
    model = checkpoint.load(prepared.head)
    prepared.check(model)
    return prepared, model, prepared.evaluate(model, batch_size=batch_size)


# equality with loops by hand


@pytest.mark.parametrize("family", ["bert", "roberta"])
@pytest.mark.parametrize("pair", [False, True])
def test_classification_equals_a_loop_by_hand(family, pair, checkpoint, task):
    chosen = checkpoint(family)
    prepared, model, found = _measure(task(doc_to_text="[first, second]" if pair else "first"), chosen)
    vocabulary, right = chosen.tokenizer().get_vocab(), []
    start, end = ("[CLS]", "[SEP]") if family == "bert" else ("<s>", "</s>")
    for instance, output in zip(prepared.task.instances, found.outputs, strict=True):
        doc = instance.doc
        tokens, types = [start, *doc["first"].split(), end], [0] * (len(doc["first"].split()) + 2)
        if pair:
            second = [*([end] if family == "roberta" else []), *doc["second"].split(), end]
            tokens, types = tokens + second, types + [1] * len(second)
        inputs = {"input_ids": torch.tensor([[vocabulary[token] for token in tokens]])}
        if family == "bert":
            inputs["token_type_ids"] = torch.tensor([types])
        with torch.no_grad():
            logits = model(**inputs).logits[0].numpy()
        close(output, logits, layers=2)
        right.append(float((logits[1] > logits[0]) == (doc["label"] == 1)))
    assert found.scores["acc"].tolist() == right and found.scores["doc_id"].tolist() == list(range(40))
    mean = sum(right) / 40
    spread = (sum((value - mean) ** 2 for value in right) / 39 / 40) ** 0.5
    assert found.metrics["acc"] == {
        "value": pytest.approx(mean),
        "stderr": pytest.approx(spread),
        "higher_is_better": True,
        "aggregate": "mean",
    }


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_spans_of_long_contexts_equal_a_loop_by_hand(family, checkpoint, task):
    chosen = checkpoint(family, "QuestionAnswering")
    prepared, model, found = _measure(task(SPAN), chosen)
    vocabulary = chosen.tokenizer().get_vocab()
    start, end = ("[CLS]", "[SEP]") if family == "bert" else ("<s>", "</s>")
    windows = 0
    for instance, output in zip(prepared.task.instances, found.outputs, strict=True):
        question, context = instance.doc["question"].split(), instance.doc["context"].split()
        head = [start, *question, end, *([end] if family == "roberta" else [])]
        room, first, candidates = 32 - len(head) - 1, 0, []
        while True:
            part = context[first : first + room]
            tokens = [*head, *part, end]
            inputs = {"input_ids": torch.tensor([[vocabulary[token] for token in tokens]])}
            if family == "bert":
                inputs["token_type_ids"] = torch.tensor([[0] * len(head) + [1] * (len(part) + 1)])
            with torch.no_grad():
                answer = model(**inputs)
            low, high = answer.start_logits[0].tolist(), answer.end_logits[0].tolist()
            for i in range(len(part)):
                for j in range(i, min(i + 5, len(part))):
                    candidates.append((low[len(head) + i] + high[len(head) + j], first + i, first + j))
            windows += 1
            if first + room >= len(context):
                break
            first += room - 8  # windows share doc_stride tokens
        score, i, j = max(candidates)
        text = instance.doc["context"][int(output[0]) : int(output[1])]
        close(output[2], score, layers=2)
        assert text == " ".join(context[i : j + 1])
    assert windows > len(found.outputs)  # some contexts do need several windows
    em, f1 = (found.metrics[metric]["value"] for metric in ("em", "f1"))
    assert 0 <= em <= f1 <= 1


@pytest.mark.parametrize("base", [CLASSIFY, SPAN], ids=["classify", "span"])
def test_results_do_not_depend_on_the_batch_size(base, checkpoint, task):
    chosen = checkpoint(head="QuestionAnswering" if base is SPAN else "SequenceClassification")
    prepared, model, first = _measure(task(base), chosen, batch_size=1)
    for size in (7, 64):
        other = prepared.evaluate(model, batch_size=size)
        close(np.stack(other.outputs), np.stack(first.outputs), layers=2)
        assert other.metrics == first.metrics
        assert all((other.scores[name] == first.scores[name]).all() for name in first.scores)


@settings(max_examples=60)
@given(st.data())
def test_the_best_span_is_the_best_of_all(data):
    tokens, longest = data.draw(st.integers(1, 9)), data.draw(st.integers(1, 12))
    value = st.integers(-40, 40).map(lambda k: k / 8)  # exact in float32, so that sums tie as they should
    start, end = (data.draw(st.lists(value, min_size=tokens, max_size=tokens)) for _ in range(2))
    first = data.draw(st.integers(0, tokens - 1))
    last = data.draw(st.integers(first + 1, tokens))
    logits = torch.tensor([start]), torch.tensor([end])
    found = best_spans(*logits, torch.tensor([[first, last]]), longest)
    spans = [(i, j) for i in range(first, last) for j in range(i, min(i + longest, last))]
    best = max(spans, key=lambda span: (start[span[0]] + end[span[1]], span[0] - span[1], -span[0]))
    assert [part.item() for part in found] == [start[best[0]] + end[best[1]], *best]


# one preparation, many evaluations


def test_a_second_evaluation_starts_afresh(checkpoint, task):
    prepared, model, first = _measure(task(), checkpoint())
    requests = list(prepared.task.instances)
    weight = model.classifier.weight.data.clone()
    model.classifier.weight.data.zero_()
    between = prepared.evaluate(model)
    assert len({tuple(output) for output in between.outputs}) == 1
    model.classifier.weight.data.copy_(weight)
    again = prepared.evaluate(model, batch_size=8)
    assert again.metrics == first.metrics and all(map(np.array_equal, again.outputs, first.outputs))
    assert all(before is now for before, now in zip(requests, prepared.task.instances, strict=True))


def test_progress_counts_whole_samples(checkpoint, task):
    chosen, heard = checkpoint(head="QuestionAnswering"), []
    prepared = _prepare(task(SPAN), chosen)
    prepared.evaluate(chosen.load("qa"), batch_size=4, progress=heard.append)
    assert heard == sorted(heard) and heard[-1] == prepared.samples == 25


def test_a_limit_keeps_the_first_documents(checkpoint, task):
    folder = task()
    _, _, few = _measure(folder, checkpoint(), limit=5)
    _, _, all_ = _measure(folder, checkpoint())
    assert len(few.outputs) == 5
    close(np.stack(few.outputs), np.stack(all_.outputs[:5]), layers=2)
    with pytest.raises(UserError, match="limit=0"):
        _prepare(folder, checkpoint(), limit=0)


def test_batches_are_model_inputs_of_the_first_samples(checkpoint, task):
    prepared = _prepare(task(), checkpoint())
    batches = prepared.batches(10, batch_size=4)
    assert [len(batch["input_ids"]) for batch in batches] == [4, 4, 2]
    lengths = [length for batch in batches for length in batch["attention_mask"].sum(1).tolist()]
    expected = [len(instance.doc["first"].split()) + 2 for instance in prepared.task.instances[:10]]
    assert lengths == sorted(expected, reverse=True)
    assert set(batches[0]) == {"input_ids", "attention_mask", "token_type_ids"}


# heads, labels, lengths


@pytest.mark.parametrize(
    ("labels", "order"),
    [
        (("no", "yes"), [0, 1]),
        (("NO", "Yes"), [0, 1]),
        (("yes", "no"), [1, 0]),
        (("LABEL_0", "LABEL_1"), [0, 1]),
    ],
)
def test_labels_that_fit(labels, order, checkpoint, task):
    chosen = checkpoint(labels=labels)
    prepared, model, found = _measure(task(), chosen)
    doc = prepared.task.instances[0].doc
    inputs = chosen.tokenizer()(doc["first"], return_tensors="pt")
    with torch.no_grad():
        close(found.outputs[0], model(**inputs).logits[0, order], layers=2)
    targets = {label for batch in prepared.calibration() for label in batch["labels"].tolist()}
    assert targets == {0, 1}
    one = _prepare(task(metadata="{calibration: {split: train, samples: 1}}"), chosen)
    (first,), (batch,) = one.calibration_documents(), one.calibration()
    assert batch["labels"].item() == order[first["label"]]


@pytest.mark.parametrize("labels", [("bad", "good"), ("no", "maybe", "yes"), ("LABEL_0", "x")])
def test_labels_that_do_not_fit_are_both_listed(labels, checkpoint, task):
    chosen = checkpoint(labels=labels)
    prepared = _prepare(task(), chosen)
    with pytest.raises(UserError, match=f"no, yes.*{', '.join(labels)}"):
        prepared.check(chosen.load("classification"))


def test_a_label_may_be_a_name(checkpoint, task):
    by_name = _measure(task(doc_to_target="name"), checkpoint())[2]
    assert by_name.metrics == _measure(task(), checkpoint())[2].metrics
    with pytest.raises(UserError, match="has labels no, yes; a document has 'w"):
        _prepare(task(doc_to_target="second"), checkpoint())


@pytest.mark.parametrize(
    ("base", "family", "head"),
    [
        (CLASSIFY, "bert", "QuestionAnswering"),
        (CLASSIFY, "bert", "MaskedLM"),
        (CLASSIFY, "gpt2", "CausalLM"),
        (SPAN, "roberta", "SequenceClassification"),
        (SPAN, "gpt2", "CausalLM"),
    ],
)
def test_a_head_for_another_task_is_refused_before_it_is_loaded(base, family, head, checkpoint, task):
    with pytest.raises(UserError, match="does not fit task 'made'"):
        _prepare(task(base), checkpoint(family, head))


def test_inputs_longer_than_the_model_takes_are_an_error(checkpoint, task):
    for family in ("bert", "roberta"):
        chosen = checkpoint(family, positions=20)
        prepared = _prepare(task(), chosen)
        over = sum(len(instance.doc["first"].split()) + 2 > 20 for instance in prepared.task.instances)
        for call in (prepared.check, prepared.evaluate):
            with pytest.raises(UserError, match=f"{over} of 40 inputs of task 'made' have over 20 tokens"):
                call(chosen.load("classification"))


def test_a_question_that_leaves_a_window_no_room_is_an_error(checkpoint, task):
    changed = SPAN["metadata"].replace("doc_stride: 8", "doc_stride: 27")
    with pytest.raises(UserError, match="no room for a stride of 27"):
        _prepare(task(SPAN, metadata=changed), checkpoint(head="QuestionAnswering"))


def test_an_output_that_is_not_finite_is_an_error(checkpoint, task):
    for base, head in ((CLASSIFY, "SequenceClassification"), (SPAN, "QuestionAnswering")):
        prepared = _prepare(task(base), checkpoint(head=head))
        model = checkpoint(head=head).load(prepared.head)
        for weight in model.parameters():
            weight.data.fill_(float("nan"))
        with pytest.raises(ArithmeticError, match=f"for {prepared.samples} of {prepared.samples} samples"):
            prepared.evaluate(model)


@pytest.mark.parametrize("verb", ["loglikelihood", "loglikelihood_rolling", "generate_until"])
def test_an_encoder_answers_no_request_made_for_causal_models(verb, checkpoint):
    request = Instance(verb, {}, ("a", "b"), 0, ("lambada", 0, 1))
    with pytest.raises(UserError, match="choose a task for encoders"):
        getattr(EncoderLM(checkpoint().tokenizer()), verb)([request])


# calibration


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_calibration_of_spans_points_at_the_answers(family, checkpoint, task):
    chosen = checkpoint(family, "QuestionAnswering")
    prepared = _prepare(task(SPAN), chosen)
    batches = prepared.calibration(batch_size=6)
    found = []
    for batch in batches:
        keys = ("input_ids", "start_positions", "end_positions")
        for row, first, last in zip(*(batch[key] for key in keys), strict=True):
            found.append(chosen.tokenizer().decode(row[first : last + 1]))
    expected = [doc["answers"]["text"][0] for doc in prepared.calibration_documents()]
    assert len(expected) == 20 and sorted(found) == sorted(expected)  # each answer fits in some window
    with torch.no_grad():
        assert all(torch.isfinite(chosen.load("qa")(**batch).loss) for batch in batches)


def test_calibration_is_drawn_by_seed_and_shares_nothing(checkpoint, task):
    folder = task()
    draws = [_prepare(folder, checkpoint(), seed=seed).calibration_documents() for seed in (0, 0, 1)]
    assert draws[0] == draws[1] != draws[2] and len(draws[0]) == 20
    prepared = _prepare(folder, checkpoint())
    evaluated = {instance.doc["first"] for instance in prepared.task.instances}
    assert not evaluated & {doc["first"] for doc in draws[0]}
    assert [len(batch["labels"]) for batch in prepared.calibration(batch_size=7)].count(7) == 2
    prints = {_prepare(folder, checkpoint(), seed=seed).calibration_fingerprint() for seed in (0, 0, 1)}
    assert len(prints) == 2
    assert prepared.fingerprints["calibration"] == "made.texts:train[20] seed 0"


def test_calibration_that_overlaps_is_an_error(checkpoint, task):
    folder = task(custom_dataset="!function made.same")
    with pytest.raises(UserError, match="20 of 20 calibration samples of task 'made' are evaluated too"):
        _prepare(folder, checkpoint(), limit=3).calibration()


def test_without_a_calibration_split_fitted_methods_are_not_applicable(checkpoint, task):
    prepared = _prepare(task(metadata="{}"), checkpoint())
    assert prepared.fingerprints["calibration"] is None
    with pytest.raises(NotApplicable, match="names no calibration split"):
        prepared.calibration()


def test_calibration_from_another_dataset(checkpoint, task, monkeypatch):
    asked = []

    def load(*arguments):
        asked.append(arguments)
        return [{"first": f"w{k} w{k}", "label": 1} for k in range(9)]

    monkeypatch.setattr(data, "load", load)
    prepared = _prepare(task(metadata="{}"), checkpoint(), calibration="some/data:part:train")
    assert len(prepared.calibration_documents()) == 9
    assert asked == [("some/data", "part", "train", ["first", "label"])]
    assert prepared.fingerprints["calibration"] == "some/data/part:train[512] seed 0"
    with pytest.raises(UserError, match="'train' is neither DATASET:SPLIT"):
        _prepare(task(), checkpoint(), calibration="train")


# tasks and data that are not there


@pytest.mark.parametrize("name", ["sst", "squadd", "pocket_qa"])
def test_an_unknown_task_names_the_near_ones(name, checkpoint):
    near = r"unknown task '.*Did you mean (sst5 or sst2|squad|pocket-qa).*Known: .*pocket-sentiment"
    with pytest.raises(UserError, match=near):
        lm_eval.prepare(name, checkpoint(), Settings())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"doc_to_text": "text"}, "'made' has no column 'text'. It has first, second, label, name"),
        ({"doc_to_target": "gold"}, "no column 'gold'"),
        ({"doc_to_choice": None}, "doc_to_choice"),
        ({"doc_to_choice": "[no, yes]"}, "quote its labels"),
        ({"validation_split": None}, "no validation_split"),
        ({"custom_dataset": None}, "neither a dataset_path nor a custom_dataset"),
        ({"metric_list": "[{metric: bleu}]"}, "Classify has no metric 'bleu'. It has acc"),
        (
            {"metric_list": "[{metric: f1}]", "doc_to_choice": "[a, b, c]"},
            "line 8: task 'made': mcc and f1 are for two labels, not 3",
        ),
        ({"metric_list": "[{metric: acc, aggregation: median}]"}, "has to be mean"),
        ({"metric_list": None}, "no metric_list"),
        ({"doc_to_txt": "first"}, "made.yaml', line 10: task 'made': unknown key 'doc_to_txt'"),
    ],
)
def test_a_task_file_that_is_wrong(changes, message, checkpoint, task):
    with pytest.raises(UserError, match=message.replace("[", r"\[")):
        _prepare(task(**changes), checkpoint())


def test_a_task_that_is_none_of_ours(checkpoint, tmp_path):
    (tmp_path / "made.yaml").write_text("task: made\ndataset_path: x/y\noutput_type: generate_until\n")
    with pytest.raises(UserError, match=r"does not fit task 'made': it is a Bert.*a causal language"):
        _prepare(str(tmp_path), checkpoint())
    (tmp_path / "made.yaml").write_text("task: made\n")
    with pytest.raises(UserError, match="has no `task:` and `class:`"):
        lm_eval.prepare(str(tmp_path / "made.yaml"), checkpoint(), Settings())
    (tmp_path / "made.yaml").write_text("task: [made\n")
    with pytest.raises(UserError, match="cannot be read"):
        _prepare(str(tmp_path), checkpoint())


def test_a_tokenizer_that_needs_sentencepiece_says_what_to_install(tiny_folder, monkeypatch):
    import transformers

    def missing(*_, **__):
        raise ImportError(
            "\nMarianTokenizer requires the SentencePiece library but it was not found in\nyour"
        )

    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", missing)
    with pytest.raises(
        UserError, match=r'needs sentencepiece. Next: pip install "attnbench\[sentencepiece\]"$'
    ):
        Checkpoint("opus", tiny_folder, "folder").tokenizer()


def test_data_that_cannot_be_had_says_what_to_set(checkpoint, task, monkeypatch):
    import datasets

    monkeypatch.setattr(data, "_hub_answers", lambda: False)
    before = datasets.config.HF_HUB_OFFLINE
    message = r"dataset 'no-one/nothing' .* Set HF_HOME .* HF_HUB_OFFLINE=1.*pocket-qa"
    with pytest.raises(UserError, match=message):
        _prepare(task(custom_dataset=None, dataset_path="no-one/nothing"), checkpoint())
    assert before == datasets.config.HF_HUB_OFFLINE


def test_local_files_are_data_as_in_lm_eval(checkpoint, task, tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    rows = [{"first": f"w{k} w{k + 1}", "label": k % 2} for k in range(12)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    files = f"{{data_files: {{validation: {tmp_path / 'rows.jsonl'}}}}}"
    folder = task(custom_dataset=None, dataset_path="json", dataset_kwargs=files)
    assert [instance.doc for instance in _prepare(folder, checkpoint()).task.instances] == rows


def test_a_model_in_training_mode_is_not_measured(checkpoint, task):
    prepared = _prepare(task(), checkpoint())
    with pytest.raises(RuntimeError, match="training mode"):
        prepared.evaluate(checkpoint().load("classification").train())


def test_fingerprints_follow_what_changes_a_number(checkpoint, task):
    first = _prepare(task(), checkpoint()).fingerprints
    assert first == _prepare(task(), checkpoint()).fingerprints and first["source"] == "attnbench"
    fewer = _prepare(task(), checkpoint(), limit=7).fingerprints
    assert fewer["task"] == first["task"] and fewer["dataset"] != first["dataset"]
    other = _prepare(task(doc_to_choice="[maybe, 'yes']"), checkpoint()).fingerprints
    assert other["task"] != first["task"] and other["dataset"] == first["dataset"]


def test_bundled_tasks_are_listed_without_heavy_imports():
    code = """
import json, sys
from dataclasses import asdict
from attnbench.inputs import tasks
listed = {name: asdict(task) for name, task in tasks.available().items()}
print(json.dumps([listed, [name for name in ("torch", "numpy", "lm_eval") if name in sys.modules]]))
"""
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    listed, heavy = json.loads(process.stdout)
    assert not heavy
    found = {name: (task["head"], tuple(task["metrics"])) for name, task in listed.items()}
    assert {name: found[name] for name in ("squad", "sst2", "mrpc", "stsb", "blimp", "wikitext")} == {
        "squad": ("qa", ("em", "f1")),
        "sst2": ("classification", ("acc",)),
        "mrpc": ("classification", ("f1", "acc")),
        "stsb": ("classification", ("spearman", "pearson")),
        "blimp": ("masked-lm", ("acc",)),
        "wikitext": ("masked-lm", ("pseudo_perplexity",)),
    }
    assert listed["sst2"]["calibration"] == "train[512]" and listed["squad"]["dataset"] == "rajpurkar/squad"


# lm-eval's own command line


@pytest.fixture
def quiet_lm_eval(monkeypatch):
    """Undo lm-eval's set-up of its logging, whose handler would keep this test's captured stderr."""
    monkeypatch.setattr("lm_eval.utils._LOGGING_CONFIGURED", True)
    monkeypatch.setattr(logging.getLogger("lm_eval"), "level", logging.WARNING)


def _by_command_line(out, *arguments):
    assert lm_eval_cli.main(["run", "--model", "attnbench", "--output_path", str(out), *arguments]) == 0
    (file,) = out.rglob("results_*.json")
    return json.loads(file.read_text())["results"]


@pytest.mark.parametrize("method", ["dense", "uniform", "heads50:entropy"])
def test_lm_evals_command_line_measures_the_same(method, tiny_folder, tmp_path, capsys, quiet_lm_eval):

    name, metric = "pocket-sentiment", "acc,none"
    model = f"pretrained={tiny_folder},method={method}"
    arguments = ["--model_args", model, "--tasks", name, "--limit", "60"]
    found = _by_command_line(tmp_path, *arguments)[name]
    assert name in capsys.readouterr().out
    ours = attnbench.run(tiny_folder, method, name, limit=60, records=str(tmp_path / "records"))
    (record,) = [item for item in ours.records if item.cell["method"] == method]
    assert record.error is None
    assert found[metric] == record.metrics["acc"]["value"]
    assert found["acc_stderr,none"] == pytest.approx(record.metrics["acc"]["stderr"])


def test_lm_evals_command_line_takes_a_folder_of_tasks(tiny_folder, task, tmp_path, quiet_lm_eval):
    folder = task()
    model = f"pretrained={tiny_folder},include_path={folder}"
    out = tmp_path / "out"
    arguments = ["--model_args", model, "--include_path", folder, "--limit", "3", "--tasks"]
    with pytest.raises(UserError, match="the task has no, yes; the model has negative, positive"):
        _by_command_line(out, *arguments, "pocket-sentiment,made")


def test_lm_evals_command_line_takes_a_part_of_a_task(checkpoint, task, tmp_path, quiet_lm_eval):
    folder = task(metadata="{configurations: [first, second]}")
    model = f"pretrained={checkpoint().path},include_path={folder}"
    arguments = ["--model_args", model, "--include_path", folder, "--tasks", "made_first"]
    found = _by_command_line(tmp_path / "out", *arguments)
    ours = lm_eval.prepare("made_first", checkpoint(), Settings(include_path=folder))
    measured = ours.evaluate(checkpoint().load("classification")).metrics
    assert list(found) == ["made_first"]
    for name, metric in measured.items():
        assert found["made_first"][f"{name},none"] == pytest.approx(metric["value"])


def test_lm_evals_command_line_says_what_a_model_is_for(quiet_lm_eval):
    command = ["run", "--model", "attnbench", "--model_args", "pretrained=gpt", "--tasks", "blimp_transitive"]
    with pytest.raises(
        UserError, match="pocket-gpt is trained for pocket-agreement, pocket-perplexity, not for"
    ):
        lm_eval_cli.main(command)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"metadata": "{}"}, "names no calibration split"),
        ({"task": "other"}, "Tasks not found: made. attnbench has .*pocket-qa, "),
    ],
)
def test_lm_evals_command_line_says_what_is_wrong(
    changes, message, checkpoint, task, quiet_lm_eval, monkeypatch
):
    class Small(TaskManager):  # lm-eval's own 14,000 files take 11 seconds to scan
        def __init__(self, include_path, include_defaults, metadata):
            super().__init__(include_path=include_path, include_defaults=False, metadata=metadata)

    monkeypatch.setattr("lm_eval.tasks.TaskManager", Small)
    folder = task(**changes)
    model = f"pretrained={checkpoint().path},include_path={folder},method=heads50:entropy"
    arguments = ["--model_args", model, "--include_path", folder, "--tasks", "made"]
    with pytest.raises(UserError, match=message):
        lm_eval_cli.main(["run", "--model", "attnbench", *arguments])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"methd": "dense"}, "unknown model argument 'methd'"),
        ({"method": "prun80"}, "prun"),
        ({"batch_size": "0"}, "batch_size=0 is not a whole number of at least 1"),
        ({"batch_size": "-3"}, "batch_size=-3 is not"),
        ({"batch_size": "many"}, "batch_size='many' is not"),
        ({"dtype": "fp32"}, "unknown dtype 'fp32'"),
        ({"device": "gpu"}, "no device 'gpu' here. --device takes cpu"),
        ({"seed": "-1"}, "seed -1 is no whole number from 0 to"),
    ],
)
def test_a_model_argument_that_is_wrong(arguments, message):
    with pytest.raises(UserError, match=message):
        AttnbenchLM("bert", **arguments)


@pytest.mark.parametrize(("given", "size"), [("auto", 32), ("auto:4", 32), ("8", 8), (8, 8)])
def test_a_batch_size_that_lm_eval_would_find_itself_is_ours(given, size):
    assert AttnbenchLM("bert", batch_size=given).batch_size == size


def test_other_command_lines_compare_with_eager_too(monkeypatch):
    from attnbench.doors.causal_server import CausalServer
    from attnbench.doors.lm_eval_model import AttnbenchLM
    from attnbench.engine.serving import soundness

    monkeypatch.setattr(soundness, "compare_with_eager", lambda model: 0.5)
    with pytest.raises(UserError, match="not supported"), AttnbenchLM("bert")._ready("pocket-sentiment"):
        pass
    for method in ("prune80", "heads50:gradient,task=pocket-agreement"):
        with pytest.raises(UserError, match="not supported"):
            CausalServer.of(f"pretrained=gpt,method={method}").ask("loglikelihood", [])


@pytest.mark.parametrize(
    ("method", "message"),
    [("prune80:on=cross", "no attention at on=cross"), ("quantile3", "it would see the future")],
)
def test_other_command_lines_refuse_what_a_run_refuses(method, message):
    from attnbench.doors.causal_server import CausalServer
    from attnbench.doors.lm_eval_model import AttnbenchLM

    request = Instance("loglikelihood", {}, ("the dog", " runs"), 0, ("pocket-agreement", 0, 1))
    with pytest.raises(UserError, match=message):
        AttnbenchLM("gpt", method).loglikelihood([request])
    with pytest.raises(UserError, match=message):
        CausalServer.of(f"pretrained=gpt,method={method}").ask("loglikelihood", [])
