"""lighteval's command line with our model, against lm-eval on the same lines of the same file."""

from __future__ import annotations

import importlib.util
import itertools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from closeness import close

from attnbench.backends import lm_eval
from attnbench.doors import lighteval_cli
from attnbench.engine.learning.fit import fit
from attnbench.engine.serving.attention import apply
from attnbench.errors import UserError
from attnbench.inputs.models import find
from attnbench.inputs.settings import Settings
from attnbench.methods import spec
from attnbench.pocket.text import documents

needs_lighteval = pytest.mark.skipif(
    importlib.util.find_spec("lighteval") is None, reason='pip install "attnbench[test]" brings lighteval'
)
METHODS = {
    "dense": "method=dense",
    "prune80": "method=prune80,batch_size=7",
    "heads50:gradient": "method=heads50:gradient,task=pocket-agreement",
}
SAMPLES = 40
READ = """
import json
from datasets import Dataset, DatasetDict

def lines(**ignored):
    with open({path!r}) as file:
        return DatasetDict({{"validation": Dataset.from_list([json.loads(line) for line in file])}})
"""
COMMON = "validation_split: validation\nnum_fewshot: 0\ncustom_dataset: !function read.lines\n"
ACC = "metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]\n"
FORMS = {
    "pairs": 'output_type: multiple_choice\ndoc_to_text: ""\ndoc_to_target: 0\n'
    'doc_to_choice: "{{[good, bad]}}"\n' + ACC,
    "endings": 'output_type: multiple_choice\ndoc_to_text: start\ndoc_to_target: 1\ntarget_delimiter: ""\n'
    'doc_to_choice: "{{[bad_end, good_end]}}"\n' + ACC,
    "pages": 'output_type: loglikelihood_rolling\ndoc_to_text: ""\ndoc_to_target: page\n'
    "metric_list: [{metric: word_perplexity}]\n",
    "written": "output_type: generate_until\ndoc_to_text: begun\ndoc_to_target: last\n"
    'generation_kwargs: {until: ["."], max_gen_toks: 8, do_sample: false}\n'
    "filter_list: [{name: bare, filter: [{function: remove_whitespace}, {function: take_first}]}]\n"
    "metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]\n",
}
NAMES = {"pairs": "acc", "endings": "acc", "pages": "word_perplexity", "written": "em"}
TASKS = """
from lighteval.metrics.metrics import Metrics
from lighteval.tasks.lighteval_task import LightevalTaskConfig
from lighteval.tasks.requests import Doc

def task(name, metric, make, folder={folder!r}, **options):
    return LightevalTaskConfig(
        name=name, metrics=[metric], hf_repo=folder, hf_subset="default", hf_avail_splits=["validation"],
        prompt_function=lambda line, task_name: Doc(task_name=task_name, **make(line)), **options,
    )

def pair(line):
    return dict(query="", choices=[line["good"], line["bad"]], gold_index=0)

def ending(line):
    return dict(query=line["start"], choices=[line["bad_end"], line["good_end"]], gold_index=1)

def page(line):
    return dict(query=line["page"], choices=None, gold_index=None)

def last(line):
    return dict(query=line["begun"], choices=[line["last"]], gold_index=0)

TASKS_TABLE = [
    task("pairs", Metrics.loglikelihood_acc, pair),
    task("endings", Metrics.loglikelihood_acc, ending),
    task("pages", Metrics.word_perplexity, page),
    task("written", Metrics.exact_match, last, generation_size=8, stop_sequence=["."]),
    task("learnt", Metrics.loglikelihood_acc, pair, folder={learnt!r}),
    task("absent", Metrics.loglikelihood_acc, pair, folder="no-one/nothing"),
    task("sampled", Metrics.avg_at_n(sample_params={{"n": 2}}), last, generation_size=8),
]
"""
DRIVER = """
import json, sys
from attnbench.cli.main import main

for command in json.loads(sys.argv[1]):
    print("\\nstatus", main(command), file=sys.stderr, flush=True)
"""


def _line(pair, page):
    good, bad = (pair[f"sentence_{name}"].split() for name in ("good", "bad"))
    same = next(k for k, (one, other) in enumerate(zip(good, bad, strict=True)) if one != other)
    begun, _, last = page["text"].removesuffix(".").rpartition(" ")
    return {
        "good": " ".join(good), "bad": " ".join(bad), "page": page["text"], "begun": begun, "last": last,
        "start": " ".join(good[:same]), "good_end": " " + " ".join(good[same:]),
        "bad_end": " " + " ".join(bad[same:]),
    }  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Write lines for both frameworks, and the tasks of both over them."""
    made = tmp_path_factory.mktemp("lighteval")
    for name, split in {"lines": "validation", "learnt": "calibration"}.items():
        rows = [documents(kind, split, SAMPLES) for kind in ("agreement", "perplexity")]
        (made / name).mkdir()
        text = "".join(json.dumps(_line(*row)) + "\n" for row in zip(*rows, strict=True))
        (made / name / "validation.jsonl").write_text(text, encoding="utf-8")
    (made / "read.py").write_text(READ.format(path=str(made / "lines" / "validation.jsonl")))
    for name, form in FORMS.items():
        (made / f"{name}.yaml").write_text(f"task: {name}\n{COMMON}{form}")
    tasks = TASKS.format(folder=str(made / "lines"), learnt=str(made / "learnt"))
    (made / "tasks.py").write_text(tasks)
    return made


@pytest.fixture(scope="module")
def said(folder):
    """Run all of lighteval that is tested in one process: importing it takes long."""

    def command(arguments, name, tasks):
        where = ["--custom-tasks", str(folder / "tasks.py"), "--output-dir", str(folder / "out" / name)]
        return ["lighteval", "custom", arguments, "attnbench", tasks, *where, "--save-details"]

    commands = [
        command(f"pretrained=gpt,{given}", method.replace(":", "-"), ",".join(FORMS))
        for method, given in METHODS.items()
    ]
    fitted = f"pretrained=gpt,{METHODS['heads50:gradient']}"
    commands += [command(fitted, "no", "learnt|0"), command("pretrained=gpt", "no", "sampled|0")]
    commands += [command("pretrained=gpt", "no", "no-such-task"), command("pretrained=gpt", "no", "absent|0")]
    commands += [["lighteval", "custom", "pretrained=gpt", "attnbench", "x", "--custom-tasks", "gone.py"]]
    # lighteval's own model keeps its samples inside the checkpoint's folder
    copy = shutil.copytree(find("gpt", "pocket-agreement").path, folder / "gpt")
    own = f"model_name={copy},dtype=float32,batch_size=8"
    commands += [["lighteval", "accelerate", own, *command("", "own", "endings|0,written|0")[4:]]]
    shipped = [
        "--custom-tasks",
        str(Path(__file__).parents[2] / "docs" / "lighteval_tasks.py"),
        "--output-dir",
        str(folder / "out"),
    ]
    commands += [["lighteval", "custom", "pretrained=gpt,method=prune80", "attnbench", "agreement", *shipped]]
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, json.dumps(commands)], capture_output=True, text=True, cwd=folder,
        env={**os.environ, "HF_HOME": str(folder / "home"), "HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    parts = done.stderr.split("\nstatus ")
    return [(int(after.split()[0]), before) for before, after in itertools.pairwise(parts)]


def _by_lighteval(folder, method, task):
    """Return lighteval's score and what the model answered to each line, in the file's order."""
    out = folder / "out" / method.replace(":", "-")
    (results,) = out.rglob("results_*.json")
    (details,) = out.rglob(f"details_{task}|0_*.parquet")
    frame = pd.read_parquet(details)
    ids = [int(doc["id"]) for doc in frame["doc"]]
    assert sorted(ids) == list(range(SAMPLES))
    answers = [frame["model_response"][k] for k in np.argsort(ids)]
    return json.loads(results.read_text())["results"][f"{task}|0"][NAMES[task]], answers


@pytest.fixture(scope="module")
def gpt():
    """Return the pocket GPT's checkpoint and weights, and every method, fitted where it has to be."""
    checkpoint = find("gpt", "pocket-agreement")
    model = checkpoint.load("causal-lm")
    made = {method: spec.parse(method) for method in METHODS}
    fit(
        model,
        made["heads50:gradient"],
        lm_eval.prepare("pocket-agreement", checkpoint, Settings()).calibration(),
    )
    return checkpoint, model, made


def _by_lm_eval(folder, gpt, method, task):
    checkpoint, model, methods = gpt
    prepared = lm_eval.prepare(task, checkpoint, Settings(include_path=str(folder)))
    with apply(model, *methods[method]):
        found = prepared.evaluate(model)
    (metric,) = found.metrics.values()
    responses = [[each.resps[0] for each in requests] for requests in prepared._documents.values()]
    return metric["value"], responses


@needs_lighteval
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("task", FORMS)
def test_lighteval_and_lm_eval_agree(task, method, folder, said, gpt):
    score, answers = _by_lighteval(folder, method, task)
    expected, responses = _by_lm_eval(folder, gpt, method, task)
    close(score, expected, layers=4)
    for answer, response in zip(answers, responses, strict=True):
        if task == "written":
            assert list(answer["text"]) == response
        else:
            values = [value[0] if isinstance(value, tuple) else value for value in response]
            close(answer["logprobs"], values, layers=4)
        if task in ("pairs", "endings"):
            assert answer["argmax_logits_eq_gold"].tolist() == [greedy for _, greedy in response]


@needs_lighteval
@pytest.mark.parametrize("task", ["endings", "written"])  # its own model takes no empty context
def test_dense_numbers_are_those_of_lightevals_own_model(task, folder, said):
    (score, answers), (expected, own) = (_by_lighteval(folder, name, task) for name in ("dense", "own"))
    assert score == expected
    for answer, other in zip(answers, own, strict=True):
        assert list(answer["text"]) == list(other["text"])
        values = [np.array(each["logprobs"], dtype=float) for each in (answer, other)]
        close(*values, layers=4)


@needs_lighteval
def test_a_method_changes_what_lighteval_measures(folder, said):
    found = {
        method: [_by_lighteval(folder, method, task)[0] for task in ("pairs", "pages", "written")]
        for method in METHODS
    }
    assert len({tuple(scores) for scores in found.values()}) == len(METHODS)
    assert found["dense"][0] > 0.8


@needs_lighteval
def test_what_goes_wrong_within_lighteval_is_one_line(said):
    assert [status for status, _ in said] == [0, 0, 0, 2, 2, 2, 2, 2, 0, 0]
    lines = [text.strip().splitlines()[-1] for _, text in said[3:8]]
    assert lines[0].startswith(
        f"attnbench: {SAMPLES} of {2 * SAMPLES} requests are calibration samples of task 'pocket-agreement'"
    )
    assert lines[1].startswith("attnbench: task 'sampled|0' asks for 2 samples of an answer")
    assert lines[2].startswith("attnbench: Cannot find task no-such-task")
    assert lines[3].startswith("attnbench: lighteval: ") and "no-one/nothing" in lines[3]
    assert lines[4].startswith("attnbench: lighteval: No module named 'gone")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("", "names no model: give pretrained=MODEL"),
        ("pretrained=gtp", "unknown model 'gtp'. Did you mean"),
        ("pretrained=bert", r"model 'bert' is a BertForSequenceClassification, no causal language model"),
        ("pretrained=marian", "model 'marian' is a MarianMTModel, no causal"),
        ("pretrained=gpt,methd=dense", "unknown model argument 'methd'. Did you mean method"),
        ("pretrained=gpt,method=prun80", "unknown method 'prun'. Did you mean prune"),
        ("pretrained=gpt,method=mask50", "'mask50' is fitted: name a task whose calibration split"),
        ("pretrained=gpt,task=sst2", "pocket-gpt is trained for .*, not for sst2"),
        ("pretrained=gpt,batch_size=auto", "batch_size=auto is no whole number, as batch_size=32 is"),
        ("pretrained=gpt,dtype=float8", "unknown dtype 'float8'"),
        ("pretrained=gpt,device=gpu", "no device 'gpu' here. --device takes cpu"),
        ("pretrained=gpt,batch_size=0", "batch_size=0 is not a whole number of at least 1"),
        ("pretrained=gpt,trust_remote_code=yes", "trust_remote_code=yes is neither True nor False"),
    ],
)
def test_a_model_argument_that_is_wrong(arguments, message, monkeypatch):
    monkeypatch.setattr(lighteval_cli.importlib.util, "find_spec", lambda name: name)
    with pytest.raises(UserError, match=message):
        lighteval_cli.main(["custom", arguments, "attnbench", "pairs|0"])
    assert "lighteval" not in sys.modules


@pytest.mark.parametrize(("text", "trusted"), [("true", True), ("True", True), ("false", False)])
def test_a_flag_is_read_as_lm_eval_reads_it(text, trusted):
    from attnbench.doors.causal_server import CausalServer

    assert CausalServer.of(f"pretrained=gpt,trust_remote_code={text}").settings.trust_remote_code is trusted
    assert CausalServer.of("pretrained=gpt").settings.trust_remote_code is False


def test_lighteval_that_is_not_installed_is_one_line(monkeypatch):
    monkeypatch.setattr(lighteval_cli.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r'pip install "attnbench\[lighteval\]"'):
        lighteval_cli.main(["tasks", "list"])
