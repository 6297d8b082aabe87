"""Causal language models on tasks of lm-eval's stock form, against lm-eval's own HFLM on the same files."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import numpy as np
import pytest
import tiny_causal
import tiny_tasks
import torch
from closeness import close, near_jumps
from lm_eval.evaluator import evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from scipy.special import rel_entr

import attnbench
from attnbench import Method
from attnbench.backends import kinds, lm_eval
from attnbench.doors import lm_eval_cli
from attnbench.engine.serving.attention import apply
from attnbench.errors import NotApplicable, UserError
from attnbench.inputs import tasks
from attnbench.inputs.models import Checkpoint
from attnbench.inputs.settings import Settings
from attnbench.matrix import answered
from attnbench.measures import fidelity, likely
from attnbench.statistics import aggregates


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """Build a tiny causal model once for each choice: family, positions, special tokens, vocabulary."""
    return tiny_tasks.built_once(tmp_path_factory, tiny_causal.build)


@pytest.fixture
def task(tmp_path):
    """Write a task's YAML beside its data, and return the folder."""
    return functools.partial(tiny_causal.write, tmp_path)


def _prepare(folder, checkpoint, name="made", **options):
    return lm_eval.prepare(name, checkpoint, Settings(include_path=folder, **options))


def _by_hflm(folder, checkpoint, limit=None, max_length=None):
    """Evaluate by lm-eval alone, one input at a time. Returns its metrics and the responses by document."""
    lm = HFLM(
        pretrained=checkpoint.load("causal-lm"),
        tokenizer=checkpoint.tokenizer(),
        batch_size=1,
        max_length=max_length,
    )
    loaded = TaskManager(include_defaults=False).load([str(Path(folder) / "made.yaml")])
    found = evaluate(lm, loaded, limit=limit, bootstrap_iters=0, log_samples=True)
    return found["results"]["made"], [sample["resps"] for sample in found["samples"]["made"]]


# equality with lm-eval's own model


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize("form", tiny_causal.FORMS)
def test_dense_numbers_are_those_of_lm_evals_own_model(form, family, checkpoint, task):
    folder, chosen = task(form), checkpoint(family)
    prepared = _prepare(folder, chosen)
    model = chosen.load(prepared.head)
    prepared.check(model)
    found = prepared.evaluate(model, batch_size=5)
    metrics, responses = _by_hflm(folder, chosen)
    for name, metric in found.metrics.items():
        close(metric["value"], metrics[f"{name},none"], layers=2)
        assert metric["value"] == pytest.approx(aggregates.aggregate(metric["aggregate"], found.scores[name]))
    ours = [[instance.resps for instance in requests] for requests in prepared._documents.values()]
    for own, theirs in zip(ours, responses, strict=True):
        for (answer,), (expected,) in zip(own, theirs, strict=True):
            if form == "written":
                assert answer == expected
            else:
                close(np.ravel(answer), np.ravel(expected), layers=2)
    wanted = {"pages": ["word_perplexity"], "last": ["acc", "perplexity"], "written": ["exact_match"]}
    assert list(found.metrics) == wanted.get(form, ["acc"])  # the others are the same log-likelihoods again
    assert found.scores["doc_id"].tolist() == list(range(12))


@pytest.mark.parametrize("form", tiny_causal.FORMS)
def test_results_depend_on_no_batch(form, checkpoint, task):
    chosen = checkpoint("llama")
    prepared = _prepare(task(form), chosen)
    model = chosen.load("causal-lm")
    with near_jumps(model, "prune50") as near:
        first = prepared.evaluate(model, batch_size=1)
    assert not any(near)
    with apply(model, "prune50"):
        for options in ({"batch_size": 7}, {"batch_size": 64}, {"batch_tokens": 40}):
            other = prepared.evaluate(model, **options)
            close(np.stack(other.outputs), np.stack(first.outputs), layers=2)
            for name, metric in first.metrics.items():
                close(other.metrics[name]["value"], metric["value"], layers=2)


def _divergence(dense, own):
    """KL of dense's 16 likeliest tokens and of all others as one, by its definition."""
    order = np.argsort(-dense)
    kinds = [np.append(each[order[:16]], each[order[16:]].sum()) for each in (dense, own)]
    return float(rel_entr(*kinds).sum())


@pytest.mark.parametrize("form", ["pages", "last"])
def test_what_is_expected_of_targets_is_that_of_the_plain_model_on_one_text(form, checkpoint, task):
    chosen = checkpoint("llama")
    prepared = _prepare(task(form), chosen)
    model = chosen.load("causal-lm")
    dense = prepared.evaluate(model, batch_size=5)
    with near_jumps(model, "prune50") as near, apply(model, "prune50"):
        own = prepared.evaluate(model, dense.likely[likely.IDS], batch_size=3)
    assert not any(near)
    arrays = [answered.arrays(found) for found in (dense, own)]
    found = fidelity.compared(prepared.form, {}, *arrays)
    odds, changed = [], []
    for requests in prepared._documents.values():
        each = []
        for row in (row for rows in prepared._lm.inputs.rows(requests) for row in rows):
            ids = torch.tensor([row.ids])
            with torch.no_grad():
                before = model(input_ids=ids).logits[0, -len(row.targets) :].double().softmax(-1).numpy()
                with apply(model, "prune50"):
                    now = model(input_ids=ids).logits[0, -len(row.targets) :].double().softmax(-1).numpy()
            each += zip(before, now, strict=True)
        odds.append(np.mean([_divergence(*pair) for pair in each]))
        changed.append(float(any(p.argmax() != q.argmax() for p, q in each)))
    close(found["fidelity kl"], odds, layers=2)
    assert max(odds) > 0.01
    if form == "last":
        assert found["fidelity answers-changed"].tolist() == changed
    assert ("fidelity answers-changed" in found) == (form == "last")


@pytest.mark.parametrize("form, kind", [
    ("pairs", "choices"), ("choices", "choices"), ("last", "target"), ("pages", "rolling"),
    ("written", "text"),
])  # fmt: skip
def test_an_answer_is_what_the_task_asks_for(form, kind, checkpoint, task):
    prepared = _prepare(task(form), checkpoint())
    assert prepared.form.name == kind
    if form == "choices":
        made = [len(instance.doc["choices"]) for instance in prepared.task.instances if not instance.idx]
        assert list(prepared.form.options) == made and len(set(made)) > 1


def test_padding_is_masked_and_each_distinct_input_is_read_once(checkpoint, task, monkeypatch):
    chosen = checkpoint()
    prepared = _prepare(task("pairs"), chosen)
    model, rows = chosen.load("causal-lm"), []
    forward = type(model).forward

    def spied(self, input_ids=None, attention_mask=None, **options):
        for ids, mask in zip(input_ids, attention_mask, strict=True):
            assert mask.tolist() == sorted(mask.tolist(), reverse=True)
            rows.append(tuple(ids[mask.bool()].tolist()))
        return forward(self, input_ids=input_ids, attention_mask=attention_mask, **options)

    monkeypatch.setattr(type(model), "forward", spied)
    prepared.evaluate(model, batch_size=4)
    assert len(rows) == len(set(rows)) == 12  # a pair differs in its last word, which is predicted, not read
    lengths = [len(row) for row in rows]
    assert lengths == sorted(lengths, reverse=True)


def test_a_second_evaluation_starts_afresh(checkpoint, task):
    chosen = checkpoint("llama")
    prepared = _prepare(task("choices"), chosen)
    model, requests = chosen.load("causal-lm"), list(prepared.task.instances)
    first = prepared.evaluate(model)
    with apply(model, "uniform"):
        between = prepared.evaluate(model)
    again = prepared.evaluate(model)
    assert not np.allclose(np.stack(between.outputs), np.stack(first.outputs), atol=1e-3)
    np.testing.assert_array_equal(np.stack(again.outputs), np.stack(first.outputs))
    assert all(before is now for before, now in zip(requests, prepared.task.instances, strict=True))


def test_progress_ends_at_the_number_of_samples(checkpoint, task):
    for form in tiny_causal.FORMS:
        chosen, heard = checkpoint(), []
        prepared = _prepare(task(form), chosen, limit=5)
        prepared.evaluate(chosen.load("causal-lm"), batch_size=2, progress=heard.append)
        assert heard == sorted(heard) and heard[-1] == prepared.samples == 5


def test_windows_score_every_token_once(checkpoint, task):
    chosen = checkpoint(positions=16)
    prepared = _prepare(task("pages"), chosen)
    for instance, windows in zip(
        prepared.task.instances, prepared._lm.inputs.rows(prepared.task.instances), strict=True
    ):
        tokens = chosen.tokenizer()(instance.args[0])["input_ids"]
        assert [token for row in windows for token in row.targets] == tokens
        assert all(len(row.ids) <= 16 for row in windows)
    assert any(len(rows) > 2 for rows in prepared._lm.inputs.rows(prepared.task.instances))


@pytest.mark.parametrize("form", ["pages", "last"])
def test_a_length_is_that_of_lm_evals_own_model(form, checkpoint, task):
    folder, chosen = task(form), checkpoint("llama")
    whole, prepared = _prepare(folder, chosen), _prepare(folder, chosen, max_length=6)
    assert prepared._lm.inputs.rows(prepared.task.instances) != whole._lm.inputs.rows(whole.task.instances)
    found = prepared.evaluate(chosen.load(prepared.head), batch_size=5)
    metrics, _ = _by_hflm(folder, chosen, max_length=6)
    for name, metric in found.metrics.items():
        close(metric["value"], metrics[f"{name},none"], layers=2)
    for wrong in (1, 4096):
        with pytest.raises(UserError, match=f"--max-length {wrong}: the model takes 2 to .* tokens"):
            _prepare(folder, chosen, max_length=wrong)


# a group


def test_a_group_is_one_cell(checkpoint, task, tmp_path, monkeypatch):
    folder, chosen = task("pairs", name="first"), checkpoint()
    task("choices", name="second")
    (tmp_path / "_both.yaml").write_text("group: both\ntask: [first, second]\nmetadata: {version: 1}\n")
    file = tasks.TaskFile("both", str(tmp_path / "_both.yaml"), "causal-lm", "", (), None, "")
    monkeypatch.setattr(tasks, "stock", {"both": file}.get)
    prepared = lm_eval.prepare("both", chosen, Settings(limit=7))
    model = chosen.load("causal-lm")
    found = prepared.evaluate(model)
    alone = [_prepare(folder, chosen, name, limit=7).evaluate(model) for name in ("first", "second")]
    assert prepared.samples == 14 and len({len(output) for output in found.outputs}) == 1
    np.testing.assert_array_equal(found.scores["acc"], np.concatenate([each.scores["acc"] for each in alone]))
    assert found.metrics["acc"]["value"] == pytest.approx(found.scores["acc"].mean())
    assert found.scores["doc_id"].tolist() == [*range(7), *range(12, 19)]  # they do not follow the limit


# calibration


@pytest.mark.parametrize("form", ["pairs", "choices", "last", "written"])
def test_calibration_labels_are_what_the_task_asks_for(form, checkpoint, task):
    chosen = checkpoint("llama")
    eight, seven = (f"{{calibration: {{split: train, samples: {count}}}}}" for count in (8, 7))
    prepared = _prepare(task(form, metadata=eight), chosen)
    tokenizer, found = chosen.tokenizer(), []
    for batch in prepared.calibration(batch_size=3):
        ids, labels, mask = (batch[name] for name in ("input_ids", "labels", "attention_mask"))
        for k in range(len(ids)):
            asked = labels[k] != -100
            assert (ids[k][asked] == labels[k][asked]).all() and not asked[0] and mask[k][asked].all()
            whole = tokenizer.decode(ids[k][mask[k].bool()]).removeprefix("<bos>").strip()
            found.append((whole, tokenizer.decode(labels[k][asked])))
        with torch.no_grad():
            assert chosen.load("causal-lm")(**batch).loss.isfinite()
    documents = prepared.calibration_documents()
    assert len(documents) == 8
    expected = [((context + target).strip(), target.strip()) for context, target in documents]
    assert sorted(found) == sorted(expected)
    right = {"pairs": "good", "last": "last", "written": "last"}.get(form)
    train = prepared.task.tasks["made"].dataset["train"]
    answers = {doc[right] if right else doc["choices"][doc["label"]] for doc in train}
    assert {target for _, target in found} <= answers
    assert prepared.fingerprints["calibration"] == "made.made:train[8] seed 0"
    fewer = _prepare(task(form, metadata=seven), chosen)
    assert prepared.calibration_fingerprint() != fewer.calibration_fingerprint()
    assert _prepare(task(form), chosen).fingerprints["calibration"] == "made.made:train[512] seed 0"


def test_a_long_text_is_calibrated_on_in_windows(checkpoint, task):
    prepared = _prepare(task("pages"), checkpoint(positions=16))
    batches = prepared.calibration()
    assert all(batch["input_ids"].shape[1] <= 16 for batch in batches)
    pages = prepared.task.tasks["made"].dataset["train"]["page"]
    seen = sum(int((batch["labels"] != -100).sum()) for batch in batches)
    lengths = [len(page.split()) for page in pages]
    full = sum(-(-length // 16) for length in lengths if length >= 16)
    assert seen == sum(lengths) - full  # a full window has no place for the last word that it predicts


def test_calibration_that_is_evaluated_or_missing(checkpoint, task, tmp_path):
    chosen = checkpoint()
    for splits in ("same", "spaced"):
        overlapping = _prepare(task(custom_dataset=f"!function made.{splits}"), chosen)
        with pytest.raises(UserError, match="12 of 12 calibration samples of task 'made' are evaluated too"):
            overlapping.calibration()
    without = _prepare(task(training_split=None), chosen)
    assert without.fingerprints["calibration"] is None
    with pytest.raises(NotApplicable, match="task 'made' has no training split: give --calibration"):
        without.calibration()
    named = _prepare(task(metadata="{calibration: {split: train, samples: 5}}", training_split=None), chosen)
    assert sum(len(batch["input_ids"]) for batch in named.calibration()) == 5
    wrong = _prepare(task(metadata="{calibration: {split: dev, samples: 5}}"), chosen)
    with pytest.raises(UserError, match=r"has no split 'dev'. It has train, validation"):
        wrong.calibration()


def test_any_text_can_be_calibrated_on(checkpoint, task, tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "texts"
    folder.mkdir()
    rows = [{"number": k, "page": " ".join(tiny_causal.WORDS[k : k + 20])} for k in range(10)]
    (folder / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    chosen = checkpoint(positions=16)
    prepared = _prepare(task(training_split=None), chosen, calibration=f"{folder}:train")
    (batch,) = prepared.calibration(batch_size=99)
    assert len(batch["input_ids"]) == 20 and batch["input_ids"].shape[1] == 16  # two windows each
    (folder / "train.jsonl").write_text("\n".join(json.dumps({"number": k}) for k in range(3)))
    with pytest.raises(UserError, match=r"has no column 'text'. It has number"):
        _prepare(task(training_split=None), chosen, calibration=f"{folder}:train").calibration()


# a whole run


def test_a_run_measures_methods_and_lm_evals_command_line_agrees(checkpoint, task, tmp_path, monkeypatch):
    monkeypatch.setattr("lm_eval.utils._LOGGING_CONFIGURED", True)
    path = checkpoint("llama").path
    methods = "prune50,logquant3,heads50:gradient,mask50,prune50:on=encoder"
    ran = attnbench.run(path, methods, "pocket-agreement", limit=20, records=str(tmp_path / "records"))
    found = {item.cell["method"]: item for item in ran.records}
    assert [item.status for item in ran.records].count("measured") == len(ran.records) - 1
    assert found["prune50:on=encoder"].status == "not applicable"
    assert found["uniform"].receipt["changed"] > 0.5 and found["mask50"].receipt["sites_hit"] == 2
    arguments = ["--model_args", f"pretrained={path},method=mask50", "--tasks", "pocket-agreement"]
    out = tmp_path / "out"
    command = ["run", "--model", "attnbench", "--limit", "20", "--output_path", str(out), *arguments]
    assert lm_eval_cli.main(command) == 0
    (file,) = out.rglob("results_*.json")
    value = json.loads(file.read_text())["results"]["pocket-agreement"]["acc,none"]
    assert value == found["mask50"].metrics["acc"]["value"]


def test_an_output_that_is_not_finite_is_an_error(checkpoint, task):
    chosen = checkpoint()
    prepared = _prepare(task("pages"), chosen)
    model = chosen.load("causal-lm")
    model.transformer.h[1].mlp.c_proj.bias.data[0] = float("nan")
    with pytest.raises(ArithmeticError, match="the log-likelihood is not finite for"):
        prepared.evaluate(model)


# what does not fit


def test_contexts_that_are_too_long_lose_their_beginning_and_it_is_said(checkpoint, task):
    folder, chosen = task("choices"), checkpoint(positions=8)
    prepared = _prepare(folder, chosen)
    assert "requests of task 'made' are longer than the 8 tokens the model takes" in prepared.notes[0]
    _, responses = _by_hflm(folder, chosen)
    prepared.evaluate(chosen.load("causal-lm"))
    for requests, theirs in zip(prepared._documents.values(), responses, strict=True):
        for instance, (expected,) in zip(requests, theirs, strict=True):
            close(instance.resps[0][0], expected[0], layers=2)
    assert not _prepare(folder, checkpoint(positions=32)).notes


def test_prompts_that_leave_no_room_lose_their_beginning_and_it_is_said(checkpoint, task):
    folder, chosen = task("written"), checkpoint(positions=12)
    prepared = _prepare(folder, chosen)
    cut = sum(len(instance.args[0].split()) > 6 for instance in prepared.task.instances)
    assert f"{cut} of 12 requests of task 'made' are longer than the 12 tokens" in prepared.notes[0] and cut
    (batch,) = prepared.batches(12)
    assert batch["input_ids"].shape[1] == 6  # what is measured beside the score is what was read
    _, responses = _by_hflm(folder, chosen)
    prepared.evaluate(chosen.load("causal-lm"))
    said = [[request.resps[0] for request in requests] for requests in prepared._documents.values()]
    assert said == [[expected for (expected,) in theirs] for theirs in responses]


def test_an_empty_prompt_is_the_beginning_of_a_text(checkpoint, task):
    chosen = checkpoint()
    prepared = _prepare(task("written", doc_to_text='"{{good if label else none}}"'), chosen)
    model, tokenizer = chosen.load("causal-lm"), chosen.tokenizer()
    (batch,) = prepared.batches(100)
    assert not prepared.notes and batch["attention_mask"].sum(1).min() == 1
    prepared.evaluate(model, batch_size=3)
    for instance in prepared.task.instances:
        ids = tokenizer(instance.args[0])["input_ids"] or [tokenizer.bos_token_id]
        found = model.generate(torch.tensor([ids]), max_new_tokens=6, do_sample=False)
        text = tokenizer.decode(found[0, len(ids) :], skip_special_tokens=True)
        assert instance.resps[0] == text.split("w7")[0]


@pytest.mark.parametrize(
    ("form", "options", "message"),
    [
        (
            "pairs",
            {"positions": 5},
            r"document \d+ of task 'made': a text to score has \d+ tokens: .* 1 to 5 at a time",
        ),
        ("pairs", {"special": ("pad",)}, "neither a bos nor an eos token"),
        (
            "pairs",
            {"vocabulary": 20},
            r"document \d+ of .*: the tokenizer gives 'w\d+' the id .* embeddings for 20",
        ),
        ("written", {"vocabulary": 20}, r"document \d+ of task 'made': the tokenizer gives 'w\d+'"),
        ("written", {"positions": 6}, "asks for 6 new tokens, the model takes 6 in all"),
        ("written", {"special": ("pad", "bos")}, "no eos token"),
    ],
)
def test_models_that_do_not_fit_are_refused(form, options, message, checkpoint, task):
    chosen = checkpoint(**options)
    with pytest.raises(UserError, match=message):
        prepared = _prepare(task(form), chosen)
        prepared.evaluate(chosen.load("causal-lm"))


@pytest.mark.parametrize(
    "settings",
    [
        {"return_dict_in_generate": True, "output_scores": True, "num_return_sequences": 2},
        {"max_new_tokens": 2}, {"max_new_tokens": 20}, {"max_length": 4}, {"max_time": 1e-9},
        {"num_return_sequences": 3, "num_beams": 1}, {"prompt_lookup_num_tokens": 2},
    ],
)  # fmt: skip
def test_what_a_checkpoint_says_of_the_form_of_generation_changes_nothing(settings, checkpoint, task):
    chosen = checkpoint()
    prepared, model = _prepare(task("written"), chosen), chosen.load("causal-lm")
    tokenizer, expected = chosen.tokenizer(), []
    for instance in prepared.task.instances:
        ids = tokenizer(instance.args[0], return_tensors="pt")["input_ids"]
        text = model.generate(ids, max_new_tokens=6, do_sample=False)[0, ids.shape[1] :]
        expected.append(tokenizer.decode(text, skip_special_tokens=True).split("w7")[0])
    vars(model.generation_config).update(settings)
    assert prepared.suit(model, prepared.task.instances, 1e-4, "cpu") is None
    prepared.evaluate(model)
    assert [instance.resps[0] for instance in prepared.task.instances] == expected
    assert {name: getattr(model.generation_config, name) for name in settings} == settings


def test_what_a_checkpoint_says_of_generation_is_named_where_it_breaks(checkpoint, task):
    chosen = checkpoint()
    prepared, model = _prepare(task("written"), chosen), chosen.load("causal-lm")
    model.generation_config.cache_implementation = "nowhere"
    with pytest.raises(ValueError) as broken:
        prepared.evaluate(model)
    assert "its generation_config.json sets cache_implementation=nowhere" in broken.value.__notes__
    model.generation_config.cache_implementation = None
    model.generation_config.repetition_penalty = 1.1

    class Breaks(Method):
        name = "breaks"

        def probs(self, probs, site):
            raise ValueError("of its own")

    with pytest.raises(ValueError, match="of its own") as broken, apply(model, Breaks()):
        prepared.evaluate(model)
    assert not any("generation_config" in note for note in broken.value.__notes__)


def test_texts_to_stop_at_are_read_by_the_tokenizer(checkpoint, task, monkeypatch):
    chosen = checkpoint()
    prepared, model, given = _prepare(task("written"), chosen), chosen.load("causal-lm"), []
    real = model.generate
    monkeypatch.setattr(
        model, "generate", lambda **asked: given.append(asked.pop("tokenizer", 0)) or real(**asked)
    )
    prepared.evaluate(model)
    monkeypatch.setattr(model.generation_config, "stop_strings", ["w3"])
    with pytest.raises(ValueError, match="tokenizer"):  # which the stand-in keeps from transformers
        prepared.evaluate(model)
    assert given[0] == 0 and given[-1] is prepared._lm.tokenizer


def test_padding_needs_no_token_of_its_own(checkpoint, task):
    folder = task("choices")
    bare, padded = (
        _prepare(folder, checkpoint(special=special)) for special in (("bos", "eos"), ("bos", "eos", "pad"))
    )
    assert bare._lm.inputs.tokenizer.pad_token_id == bare._lm.inputs.prefix
    assert padded._lm.inputs.tokenizer.pad_token_id == 2


@pytest.mark.parametrize(
    ("architecture", "settings", "kind"),
    [
        ("BertForMaskedLM", {}, "encoder"),
        ("BertLMHeadModel", {}, "encoder"),  # it would see what it has to predict
        ("BertLMHeadModel", {"is_decoder": True}, "causal"),
        ("RobertaForSequenceClassification", {}, "encoder"),
        ("GPT2LMHeadModel", {}, "causal"),
        ("GPT2ForSequenceClassification", {}, "encoder"),
        ("LlamaForCausalLM", {}, "causal"),
        ("MarianMTModel", {}, "seq2seq"),
        ("T5ForConditionalGeneration", {}, "seq2seq"),
        ("BartForSequenceClassification", {}, "encoder"),
        (None, {"model_type": "gpt2"}, "causal"),
        (None, {"model_type": "marian"}, "seq2seq"),
        (None, {"model_type": "bert"}, "encoder"),
    ],
)
def test_the_kind_of_a_checkpoint(architecture, settings, kind):
    import transformers

    types = transformers.CONFIG_MAPPING
    name = settings.get("model_type") or getattr(transformers, architecture).config_class.model_type
    config = types[name](**{key: value for key, value in settings.items() if key != "model_type"})
    config.architectures = [architecture] if architecture else None
    assert kinds.kind(config) == kind


def test_an_encoder_gets_no_likelihood_task(task, tiny_folder):
    chosen = Checkpoint("tiny", tiny_folder, "folder")
    for name in ("made", "pocket-perplexity", "hellaswag"):
        with pytest.raises(UserError, match=f"does not fit task '{name}': it is a Bert.*a causal language"):
            _prepare(task(), chosen, name)


# where tasks are


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("blimp", "blimp/_blimp.yaml"),
        ("blimp_adjunct_island", "blimp/adjunct_island.yaml"),
        ("wikitext", "wikitext/wikitext.yaml"),
        ("lambada_openai", "lambada/lambada_openai.yaml"),
        ("sst2", "glue/sst2/default.yaml"),
    ],
)
def test_stock_tasks_are_found_by_name(name, place):
    assert Path(tasks.find(name, None, "causal").path).as_posix().endswith(f"lm_eval/tasks/{place}")
    assert tasks.stock("no such task") is None and tasks.stock("../secret") is None


def test_ours_and_the_stock_task_of_a_name_do_not_mix(task):
    assert tasks.find("sst2", None, "encoder").head == "classification"
    assert tasks.find("sst2", None, "causal").head == "causal-lm"
    assert tasks.find("pocket-agreement", None, "causal").path.startswith(str(tasks.folder()))
    assert tasks.find("made", task(), "causal").head == "causal-lm"


def test_data_that_cannot_be_had_says_what_to_set(checkpoint, task, monkeypatch):
    monkeypatch.setattr("attnbench.backends.data._hub_answers", lambda: False)
    folder = task(custom_dataset=None, dataset_path="no-one/nothing")
    with pytest.raises(UserError, match=r"the data of task 'made' .no-one/nothing. is neither.*Set HF_HOME"):
        _prepare(folder, checkpoint())


def test_a_task_file_that_is_wrong_is_one_line(checkpoint, task):
    with pytest.raises(UserError, match=r"made.yaml', line \d+: task 'made' cannot be loaded"):
        _prepare(task(doc_to_choice='"{{[good, worse]}}"'), checkpoint())


@pytest.mark.parametrize(
    ("changes", "key", "message"),
    [
        ({"tst_split": "test"}, "tst_split", "unknown key 'tst_split'. Did you mean test_split"),
        ({"doc_to_text": '"{{good"'}, "doc_to_text", "unexpected end of template"),
        ({"doc_to_choice": '"{{abc}}"'}, "doc_to_choice", "'abc' is undefined"),
        ({"doc_to_choice": '"{{none}}"'}, "task", "'NoneType' object is not iterable"),
        (
            {"doc_to_target": "nogold"},
            "doc_to_target",
            "document 0 has the target 'nogold', which is neither",
        ),
        ({"doc_to_target": '"7"'}, "doc_to_target", "the first document's target is none of its choices"),
        ({"doc_to_target": -1}, "doc_to_target", "document 0 has the target -1, which is neither"),
        ({"output_type": "multi_choice"}, "output_type", "Got invalid output_type 'multi_choice'"),
        ({"validation_split": "tst"}, "validation_split", "'tst'"),
        ({"metric_list": "[{metric: nope}]"}, "metric_list", "unknown metric 'nope'. lm-eval has acc, "),
        ({"include": "nowhere.yaml"}, "include", "No such file"),
        (
            {
                "custom_dataset": None,
                "dataset_path": "json",
                "dataset_kwargs": "{data_files: {test: nowhere.jsonl}}",
            },
            "dataset_kwargs",
            "nowhere.jsonl",
        ),
    ],
)
def test_a_mistake_in_a_stock_task_is_named_with_its_line(changes, key, message, checkpoint, task):
    folder = task(**changes)
    lines = (Path(folder) / "made.yaml").read_text().splitlines()
    line = next(number for number, text in enumerate(lines, 1) if text.startswith(f"{key}:"))
    with pytest.raises(UserError) as caught:
        _prepare(folder, checkpoint())
    said = str(caught.value)
    assert f"made.yaml', line {line}: " in said and message in said and "HF_HOME" not in said
