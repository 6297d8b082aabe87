"""Generated long texts: held against what a reader of the text alone finds in it."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from attnbench.backends.causal import aggregation
from attnbench.backends.causal.prepared import prepare
from attnbench.backends.long.dataset import counting, documents
from attnbench.backends.long.writers import DEPTHS, KINDS
from attnbench.doors import lm_eval_cli
from attnbench.errors import UserError
from attnbench.inputs import models, tasks
from attnbench.inputs.models import Checkpoint
from attnbench.inputs.settings import Settings
from attnbench.statistics import aggregates

POCKET = Path(models.__file__).parents[1] / "pocket" / "weights" / "llama-language"
TOLD = re.compile(r"The special number for (\w+) is (\d+)\.")
LINK = re.compile(r"Variable (\w+) is (?:equal to variable )?(\w+)\.")


@pytest.fixture(scope="module")
def count():
    return counting(str(POCKET))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny model with the tokenizer of a pocket model, which has tokens of parts of words."""
    place = tmp_path_factory.mktemp("long") / "tiny"
    tokenizer = AutoTokenizer.from_pretrained(POCKET)
    torch.manual_seed(0)
    LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer), hidden_size=16, intermediate_size=24, num_hidden_layers=2,
            num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=512,
            bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
        )
    ).save_pretrained(place)  # fmt: skip
    tokenizer.save_pretrained(place)
    return place


def _prepare(folder, name, limit=4, **settings):
    chosen = Checkpoint("tiny", str(folder), "folder")
    return prepare(tasks.find(name, None, "causal"), chosen, Settings(limit=limit, **settings))


def _asked(doc):
    """Return (question, prefix, answer, depth, middle) of each question of a document."""
    keys = ("question", "prefix", "answer", "depth", "middle")
    values = [doc[key] if isinstance(doc[key], list) else [doc[key]] for key in keys]
    return list(zip(*values, strict=True))


def _sentences(text):
    return re.findall(r"[^.]+\.", text)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("length", [300, 513])
def test_prompts_have_the_length_that_is_asked_for_within_a_sentence(kind, length, count):
    found = documents(kind, count, "validation", 12, length)
    part = str.split if kind == "common-words" else _sentences
    longest = max(count(f" {unit}") for doc in found for unit in part(doc["context"]))
    for doc in found:
        most = max(count(doc["context"] + question + prefix) for question, prefix, *_ in _asked(doc))
        assert length - longest <= most <= length
    assert len({doc["context"] for doc in found}) == 12


@pytest.mark.parametrize("kind", ["needle", "needles", "two-questions"])
def test_the_number_asked_for_is_told_once_at_its_depth(kind, count):
    for number, doc in enumerate(documents(kind, count, "validation", 12, 400)):
        told = TOLD.findall(doc["context"])
        towns, values = zip(*told, strict=True)
        assert len(told) == (1 if kind == "needle" else 4) == len(set(towns)) == len(set(values))
        assert re.findall(r"\d+", doc["context"]) == list(values)  # the filler has no number
        asked = _asked(doc)
        assert len(asked) == (2 if kind == "two-questions" else 1)
        assert asked[0][3] == DEPTHS[number % 10]
        parts = _sentences(doc["context"])
        filler = [part for part in parts if "special" not in part]
        for question, prefix, answer, depth, _ in asked:
            (town,) = re.findall(r"for (\w+)\?", question)
            assert dict(told)[town] == answer.strip() and prefix.endswith(f"for {town} is")
            place = next(k for k, part in enumerate(parts) if town in part)
            before = sum("special" not in part for part in parts[:place])
            assert before / len(filler) == pytest.approx(depth, abs=0.5 / len(filler) + 1e-9)


def test_what_lies_between_sink_and_window_is_told_by_offsets(count):
    tokenizer = AutoTokenizer.from_pretrained(POCKET)
    seen = set()
    for doc in documents("needle", count, "validation", 10, 400):
        read = tokenizer(doc["context"], return_offsets_mapping=True)["offset_mapping"]
        start, end = TOLD.search(doc["context"]).span()
        inside = [k for k, (a, b) in enumerate(read) if b > start and a < end and b > a]
        assert doc["middle"] == (inside[0] >= 4 and inside[-1] < len(read) - 64)
        seen.add(doc["middle"])
    assert seen == {True, False}


@pytest.mark.parametrize("hops", [1, 3])
def test_a_variable_is_followed_to_its_value(hops, count):
    for number, doc in enumerate(documents("tracking", count, "validation", 10, 700, hops)):
        told = dict(LINK.findall(doc["context"]))
        assert len(told) == 4 * (hops + 1)
        (name,) = re.findall(r"variable (\w+)\?", doc["question"])
        parts = _sentences(doc["context"])
        place = next(k for k, part in enumerate(parts) if part.strip().startswith(f"Variable {name} is"))
        before = [sum("Variable" not in part for part in chosen) for chosen in (parts[:place], parts)]
        assert before[0] == round(DEPTHS[number % 10] * before[1])
        steps = 0
        while not name.isdigit():
            name, steps = told[name], steps + 1
        assert name == doc["answer"].strip() and steps == hops + 1


def test_the_commonest_word_is_the_commonest_by_far(count):
    for length in (200, 600):
        for doc in documents("common-words", count, "validation", 10, length):
            words = doc["context"].split()
            often = sorted(set(words), key=words.count)
            assert often[-1] == doc["answer"].strip() and words.count(often[-1]) > words.count(often[-2])


def test_documents_depend_on_seed_and_number_alone(count):
    few, many = (documents("needles", count, "validation", n, 300) for n in (3, 6))
    assert many[:3] == few and len({doc["context"] for doc in many}) == 6
    fitted = documents("needles", count, "calibration", 6, 300)
    assert not {doc["context"] for doc in fitted} & {doc["context"] for doc in many}
    told = [{each for doc in docs for each in TOLD.findall(doc["context"])} for docs in (fitted, many)]
    assert not told[0] & told[1]


# as tasks


def test_the_two_numbers_are_those_of_the_plain_model(folder):
    """Greedy decoding, and the log-likelihood of the answer after the prompt, a text at a time."""
    prepared = _prepare(folder, "needles_200")
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    found = prepared.evaluate(model)
    docs = documents("needles", counting(tokenizer), "validation", 4, 200)
    for number, doc in enumerate(docs):
        prompt = tokenizer(doc["context"] + doc["question"] + doc["prefix"])["input_ids"]
        whole = tokenizer(doc["context"] + doc["question"] + doc["prefix"] + doc["answer"])["input_ids"]
        answer = whole[len(prompt) :]
        with torch.no_grad():
            logs = model(torch.tensor([whole])).logits[0].log_softmax(-1)
            made = model.generate(torch.tensor([prompt]), max_new_tokens=len(answer), do_sample=False)
        own = sum(float(logs[len(prompt) - 1 + k, token]) for k, token in enumerate(answer))
        assert found.scores["logp"][number] == pytest.approx(own, rel=1e-4)
        right = made[0, len(prompt) :].tolist() == answer
        assert found.scores["acc"][number] == right
        assert found.scores["acc_middle"][number].tolist() == [right and doc["middle"], doc["middle"]]
    assert found.metrics["acc_middle"]["aggregate"] == "ratio"


def test_what_greedy_decoding_writes_is_right(folder):
    """An answer that is what the model writes: a task whose target is its own greedy text."""
    prepared = _prepare(folder, "needle_150", limit=2)
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for request in prepared.task.instances:
        prompt = tokenizer(request.args[0], return_tensors="pt")["input_ids"]
        answer = tokenizer.decode(model.generate(prompt, max_new_tokens=3, do_sample=False)[0])
        whole = tokenizer.decode(prompt[0])
        if tokenizer(answer)["input_ids"][: prompt.shape[1]] == prompt[0].tolist():
            request.arguments = (request.args[0], answer[len(whole) :])
    found = prepared.evaluate(model)
    assert found.scores["acc"].tolist() == [1.0, 1.0]


def test_two_questions_are_one_sample_with_one_context(folder):
    prepared = _prepare(folder, "two-questions_200")
    assert prepared.samples == 4 and len(prepared.task.instances) == 8
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    found = prepared.evaluate(model)
    values = iter(request.resps[0] for request in prepared.task.instances)
    for number, requests in enumerate(prepared.task.documents().values()):
        first, second = (request.args[0] for request in requests)
        context = requests[0].doc["context"]
        assert first.startswith(context) and second.startswith(context) and first != second
        assert [first[len(context) :], second[len(context) :]] == [
            question + prefix for question, prefix, *_ in _asked(requests[0].doc)
        ]
        pair = [next(values)[0], next(values)[0]]
        assert found.scores["logp"][number] == pytest.approx(sum(pair) / 2)


def test_a_length_is_part_of_the_name_and_of_the_definition(folder):
    assert tasks.find("needles_1024", None, "causal").length == 1024
    assert tasks.recorded("needles_1024") == "needles_1024"
    one, other = (_prepare(folder, name) for name in ("needles_200", "needles_210"))
    again = _prepare(folder, "needles_200")
    assert one.fingerprints == again.fingerprints  # no temporary folder is in it
    assert one.fingerprints["task"] != other.fingerprints["task"]
    assert {request.task_name for request in one.task.instances} == {"needles_200"}
    for wrong in ("needles_", "needles_0", "needles_long", "cola_100"):
        with pytest.raises(UserError, match="unknown task"):
            tasks.find(wrong, None, "causal")


def test_a_length_that_nothing_fits_in_is_one_line(folder):
    with pytest.raises(UserError, match=r"a length of 20 tokens is too short: the shortest prompt has \d+"):
        _prepare(folder, "needle_20")


def test_what_methods_learn_from_is_apart_and_ends_with_the_answer(folder):
    prepared = _prepare(folder, "needles_200", calibration_samples=4)
    texts = prepared.calibration_documents()
    assert len(texts) == 4 and all(re.search(r"Answer: The special number for \w+ is$", a) for a, _ in texts)
    assert not {a for a, _ in texts} & {request.args[0] for request in prepared.task.instances}
    assert {len(batch["input_ids"]) for batch in prepared.calibration(batch_size=2)} == {2}


def test_ours_bear_no_name_of_lm_evals_own():
    ruler = {"niah_single_1", "niah_multikey_1", "ruler_vt", "ruler_cwe", "ruler_fwe", "vt", "cwe", "fwe"}
    for name in KINDS:
        assert name in tasks.available() and name not in ruler and tasks.stock(name) is None


def test_a_task_of_the_users_may_include_ours(folder, tmp_path):
    ours = tasks.find("tracking", None, "causal").path
    (tmp_path / "far.yaml").write_text(
        f"include: {ours}\ntask: far\ndataset_kwargs: {{kind: tracking, hops: 2, length: 400}}\n"
        "metadata: {version: 1, samples: 3}\n"
    )
    chosen = Checkpoint("tiny", str(folder), "folder")
    prepared = prepare(tasks.find("far", str(tmp_path), "causal"), chosen, Settings())
    assert prepared.samples == 3
    for requests in prepared.task.documents().values():
        assert len(LINK.findall(requests[0].doc["context"])) == 12


def test_lm_evals_command_line_takes_a_length(folder, tmp_path, monkeypatch):
    """It tells the task the tokenizer by the model's arguments."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    model = ["--model", "attnbench", "--model_args", f"pretrained={folder}", "--device", "cpu"]
    asked = ["--tasks", "needle_150", "--limit", "3", "--output_path", str(tmp_path)]
    assert lm_eval_cli.main(["run", *model, *asked]) == 0
    (results,) = tmp_path.rglob("results_*.json")
    found = json.loads(results.read_text())["results"]["needle_150"]
    own = _prepare(folder, "needle_150", limit=3).evaluate(
        AutoModelForCausalLM.from_pretrained(folder).eval()
    )
    for metric in ("acc", "logp"):
        assert own.metrics[metric]["value"] == pytest.approx(found[f"{metric},none"], rel=1e-4)


def test_rulers_aggregation_is_known_whatever_module_a_yaml_makes_of_it():
    from lm_eval.tasks.ruler import common_utils

    loader = importlib.util.spec_from_file_location("another", common_utils.__file__)
    module = importlib.util.module_from_spec(loader)
    loader.loader.exec_module(module)
    assert module.aggregate_metrics is not common_utils.aggregate_metrics
    name, statistic = aggregation.known(module.aggregate_metrics)
    items = [0.5, -1, 1.0, 0.0, -1]  # -1: of another length
    rows = np.array([statistic(item) for item in items])
    assert aggregates.aggregate(name, rows) == pytest.approx(module.aggregate_metrics(items))
    assert not aggregation.is_known(common_utils.string_match_all) and not aggregation.is_known(None)
