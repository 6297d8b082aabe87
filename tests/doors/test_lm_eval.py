"""lm-eval's command line with our model: the numbers of its own `--model hf`, whatever it makes of a task."""

from __future__ import annotations

import json
import logging

import numpy as np
import pytest
import tiny_causal
import tiny_tasks
from closeness import close

from attnbench.backends import lm_eval
from attnbench.cli.main import main
from attnbench.doors import lm_eval_cli
from attnbench.errors import UserError
from attnbench.inputs.prompting import Prompting
from attnbench.inputs.settings import Settings

TEMPLATE = (
    "{{ bos_token }}{% for message in messages %} w1 {{ message['content'] }} w2{% endfor %}"
    "{% if add_generation_prompt %} w3 {% endif %}"
)
PLAIN, CHAT = Prompting(), Prompting(apply_chat_template=True)
SHOTS = Prompting(num_fewshot=2)
TOLD = Prompting(apply_chat_template=True, system_instruction="w9 w8")
TURNS = Prompting(apply_chat_template=True, fewshot_as_multiturn=True, num_fewshot=2)
LONGER = Prompting(gen_kwargs="max_gen_toks=9")
ASKED = [
    *((form, PLAIN) for form in tiny_causal.FORMS),
    *((form, prompting) for form in ("choices", "last", "written") for prompting in (SHOTS, CHAT, TURNS)),
    ("written", LONGER), ("written", TOLD), ("choices", TOLD),
]  # fmt: skip


def flags(prompting):
    """Write it as lm-eval's command line has it."""
    found = []
    for name, value in prompting.given().items():
        found += [f"--{name}", *([] if name == "apply_chat_template" else [str(value)])]
    return found


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """Build a tiny causal model with a chat template once."""
    return tiny_tasks.built_once(tmp_path_factory, tiny_causal.build)


@pytest.fixture(autouse=True)
def quiet_lm_eval(monkeypatch):
    """Undo lm-eval's set-up of its logging, whose handler would keep this test's captured stderr."""
    monkeypatch.setattr("lm_eval.utils._LOGGING_CONFIGURED", True)
    monkeypatch.setattr(logging.getLogger("lm_eval"), "level", logging.WARNING)


@pytest.fixture
def quick(monkeypatch):
    """Keep lm-eval from scanning its own 14,000 files, where it would for a model of its own."""
    from lm_eval.tasks import TaskManager

    class Small(TaskManager):
        def __init__(self, *args, include_defaults=True, **options):
            super().__init__(*args, include_defaults=False, **options)

    monkeypatch.setattr("lm_eval.tasks.TaskManager", Small)


def asked(model, arguments, out):
    """Return lm-eval's metrics and what it logs of every sample."""
    command = ["run", "--model", model, "--output_path", str(out), "--log_samples", *arguments]
    assert lm_eval_cli.main(command) == 0
    (results,) = out.rglob("results_*.json")
    (samples,) = out.rglob("samples_*.jsonl")
    lines = [json.loads(line) for line in samples.read_text().splitlines()]
    lines.sort(key=lambda line: line["doc_id"])
    return json.loads(results.read_text())["results"]["made"], lines


@pytest.mark.parametrize("form, prompting", ASKED, ids=str)
def test_dense_numbers_are_those_of_lm_evals_own_model(form, prompting, checkpoint, tmp_path, quick):
    chosen = checkpoint("llama", positions=128, chat_template=TEMPLATE)
    folder = tiny_causal.write(tmp_path, form, fewshot_split="train", num_fewshot=None)
    arguments = ["--tasks", "made", "--include_path", folder, *flags(prompting)]
    stock = ["--model_args", f"pretrained={chosen.path},dtype=float32", "--device", "cpu"]
    theirs = asked("hf", [*stock, "--batch_size", "1", *arguments], tmp_path / "hf")
    own = asked("attnbench", ["--model_args", f"pretrained={chosen.path}", *arguments], tmp_path / "ours")
    prepared = lm_eval.prepare("made", chosen, Settings(include_path=folder, prompting=prompting))
    ran = prepared.evaluate(chosen.load("causal-lm"), batch_size=5).metrics  # as `attnbench run` does
    numbers = {name: value for name, value in theirs[0].items() if isinstance(value, float)}
    for name, value in numbers.items():
        close(own[0][name], value, layers=2, says=name)
        if (metric := name.partition(",")[0]) in ran:
            close(ran[metric]["value"], value, layers=2, says=name)
    assert ran.keys() & {name.partition(",")[0] for name in numbers}
    assert len(own[1]) == len(theirs[1]) == 12
    requests = list(prepared._documents.values())
    for ours, expected, built in zip(own[1], theirs[1], requests, strict=True):
        assert ours["arguments"] == expected["arguments"]  # the very prompts
        told = [next(iter(each.values())) for each in expected["arguments"].values()]
        assert told == [request.args[0] for request in built]
        if form == "written":
            assert ours["resps"] == expected["resps"] == [[request.resps[0]] for request in built]
            continue
        found, wanted = (
            np.ravel([np.ravel(each[0])[:1] for each in line["resps"]]).astype(float)
            for line in (ours, expected)
        )
        np.testing.assert_allclose(found, wanted, rtol=1e-4)


def test_a_method_is_applied_and_fitted_on_a_task_of_the_users(checkpoint, tmp_path, quick):
    path = checkpoint("llama", positions=128, chat_template=TEMPLATE).path
    folder = tiny_causal.write(tmp_path, "choices", fewshot_split="train")
    arguments = ["--tasks", "made", "--include_path", folder, *flags(CHAT), "--batch_size", "auto"]
    found = {
        method: asked(
            "attnbench", ["--model_args", f"pretrained={path},method={method}", *arguments], tmp_path / method
        )[1]
        for method in ("dense", "uniform", "heads50:gradient")
    }
    texts = [json.dumps([line["resps"] for line in lines]) for lines in found.values()]
    assert len(set(texts)) == 3


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--use_cache", "kept"], "--use_cache: lm-eval keeps answers by the request alone"),
        (["--include_path", "nowhere"], "--include_path nowhere: no such folder."),
        (flags(CHAT), "cannot be asked task 'made' as a chat. Leave --apply_chat_template out"),
    ],
)
def test_what_would_be_wrong_is_refused(arguments, words, checkpoint, tmp_path, quick):
    path = checkpoint("llama", positions=128).path
    folder = tiny_causal.write(tmp_path, "choices")
    command = ["run", "--model", "attnbench", "--model_args", f"pretrained={path}", "--tasks", "made"]
    with pytest.raises(UserError, match=words):
        lm_eval_cli.main([*command, "--include_path", folder, *arguments])


def test_a_request_that_a_method_learnt_from_is_refused(checkpoint, tmp_path, quick):
    path = checkpoint("llama", positions=128).path
    folder = tiny_causal.write(tmp_path, "choices", custom_dataset="!function made.same")
    command = ["--model_args", f"pretrained={path},method=heads50:gradient", "--tasks", "made"]
    with pytest.raises(UserError, match=r"are calibration samples of task 'made'|are evaluated too"):
        asked("attnbench", [*command, "--include_path", folder], tmp_path / "out")


@pytest.mark.parametrize("form", ["choices", "written"])
@pytest.mark.parametrize("prompting", [SHOTS, CHAT], ids=["shots", "chat"])
def test_a_document_that_a_method_learnt_from_is_known_in_any_prompt(
    form, prompting, checkpoint, tmp_path, quick
):
    chosen = checkpoint("llama", positions=128, chat_template=TEMPLATE)
    folder = tiny_causal.write(
        tmp_path, form, custom_dataset="!function made.same", num_fewshot=None, fewshot_split="train"
    )
    settings = Settings(include_path=folder, prompting=prompting)
    with pytest.raises(UserError, match="calibration samples of task 'made' are evaluated too"):
        lm_eval.prepare("made", chosen, settings).calibration()
    command = ["--model_args", f"pretrained={chosen.path},method=heads50:gradient", "--tasks", "made"]
    with pytest.raises(UserError, match=r"calibration samples of task 'made'"):
        asked("attnbench", [*command, "--include_path", folder, *flags(prompting)], tmp_path / "out")


PLUGIN = '''
from dataclasses import dataclass
from attnbench import Method, hookimpl

@dataclass
class Even(Method):
    """Attend evenly."""
    name = "even"
    examples = ("even",)

    def probs(self, probs, site):
        return (probs > 0) / (probs > 0).sum(-1, keepdim=True)

@hookimpl
def register_methods(register):
    register(Even)
'''


@pytest.mark.parametrize("form", ["--plugin", "--plugins-dir"])
def test_a_method_of_ones_own_runs_through_lm_eval(form, checkpoint, tmp_path, quick, fresh_registry, capsys):
    (tmp_path / "plugins").mkdir()
    file = tmp_path / "plugins" / "even.py"
    file.write_text(PLUGIN)
    path = checkpoint("llama", positions=128).path
    folder = tiny_causal.write(tmp_path, "choices")
    given = [form, str(file if form == "--plugin" else file.parent)]
    command = ["--model_args", f"pretrained={path},method=even", "--tasks", "made", "--include_path", folder]
    assert main(["lm-eval", "run", *given, "--model", "attnbench", *command]) == 0
    assert "made" in capsys.readouterr().out


@pytest.mark.parametrize(
    "options, words",
    [
        (["--num-fewshot", "2"], "says num_fewshot: 0, which lm-eval lets nothing overrule"),
        (["--num-fewshot", "-1"], "num_fewshot=-1 is not a whole number of at least 0"),
        (["--apply-chat-template"], "has no chat template in its tokenizer: it cannot be asked task 'made'"),
        (["--fewshot-as-multiturn"], "makes turns of a chat: add --apply-chat-template"),
        (["--gen-kwargs", "max_gen_toks=9"], "task 'made' generates nothing: leave --gen-kwargs out"),
        (["--gen-kwargs", "max_gen_toks"], "'max_gen_toks' is no NAME=VALUE"),
    ],
)
def test_prompts_that_a_task_cannot_have_are_one_line(options, words, checkpoint, tmp_path, capsys):
    path = checkpoint("llama", positions=128).path
    folder = tiny_causal.write(tmp_path, "choices")
    command = ["run", "--models", path, "--tasks", "made", "--include-path", folder]
    assert main([*command, "--records", str(tmp_path / "records"), *options]) == 2
    (line,) = [each for each in capsys.readouterr().err.splitlines() if each.startswith("attnbench: ")]
    assert words in line


def test_prompts_of_an_encoders_task_are_refused(tiny_folder, tmp_path, capsys):
    command = ["run", "--models", tiny_folder, "--tasks", "pocket-sentiment", "--num-fewshot", "1"]
    assert main([*command, "--records", str(tmp_path)]) == 2
    assert "--num-fewshot is for lm-eval's own tasks of causal language models" in capsys.readouterr().err


def test_prompts_are_part_of_a_record_and_of_its_identity(checkpoint, tmp_path, capsys):
    path = checkpoint("llama", positions=128, chat_template=TEMPLATE).path
    folder = tiny_causal.write(tmp_path, "choices", fewshot_split="train", num_fewshot=None)
    command = ["run", "--models", path, "--tasks", "made", "--include-path", folder, "--methods", "prune50"]
    command += ["--records", str(tmp_path / "records")]
    assert main([*command, "--num-fewshot", "1", "--apply-chat-template"]) == 0
    (file,) = (tmp_path / "records").rglob("prune50.json")
    settings = json.loads(file.read_text())["settings"]
    assert settings["num_fewshot"] == 1 and settings["apply_chat_template"] is True
    assert "system_instruction" not in settings
    capsys.readouterr()
    assert main(command) == 2  # what was measured otherwise gives way only where it is said
    assert "num_fewshot 1, not none" in capsys.readouterr().err
    assert main([*command, "--num-fewshot", "1", "--apply-chat-template"]) == 0
