"""lm-eval's command line with our model: the numbers of its own `--model hf`, whatever it makes of a task."""

from __future__ import annotations

import json
import logging

import numpy as np
import pytest
import tiny_causal
import tiny_tasks
from closeness import close

from attnbench.cli.main import main
from attnbench.doors import lm_eval_cli
from attnbench.errors import UserError

TEMPLATE = (
    "{{ bos_token }}{% for message in messages %} w1 {{ message['content'] }} w2{% endfor %}"
    "{% if add_generation_prompt %} w3 {% endif %}"
)
PLAIN: tuple[str, ...] = ()
SHOTS = ("--num_fewshot", "2")
CHAT = ("--apply_chat_template",)
TOLD = ("--apply_chat_template", "--system_instruction", "w9 w8")
TURNS = ("--apply_chat_template", "--fewshot_as_multiturn", "True", "--num_fewshot", "2")
LONGER = ("--gen_kwargs", "max_gen_toks=9")
ASKED = [
    *((form, PLAIN) for form in tiny_causal.FORMS),
    *((form, flags) for form in ("choices", "last", "written") for flags in (SHOTS, CHAT, TURNS)),
    ("written", LONGER), ("written", TOLD),
]  # fmt: skip


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


@pytest.mark.parametrize("form, flags", ASKED, ids=str)
def test_dense_numbers_are_those_of_lm_evals_own_model(form, flags, checkpoint, tmp_path, quick):
    path = checkpoint("llama", positions=128, chat_template=TEMPLATE).path
    folder = tiny_causal.write(tmp_path, form, fewshot_split="train")
    arguments = ["--tasks", "made", "--include_path", folder, *flags]
    own = asked("attnbench", ["--model_args", f"pretrained={path}", *arguments], tmp_path / "ours")
    theirs = asked(
        "hf",
        [
            "--model_args",
            f"pretrained={path},dtype=float32",
            "--device",
            "cpu",
            "--batch_size",
            "1",
            *arguments,
        ],
        tmp_path / "hf",
    )
    for name, value in theirs[0].items():
        if isinstance(value, float):
            close(own[0][name], value, layers=2, says=name)
    assert len(own[1]) == len(theirs[1]) == 12
    for ours, expected in zip(own[1], theirs[1], strict=True):
        assert ours["arguments"] == expected["arguments"]  # the very prompts
        if form == "written":
            assert ours["resps"] == expected["resps"]
            continue
        found, wanted = (
            np.ravel([np.ravel(each[0])[:1] for each in line["resps"]]) for line in (ours, expected)
        )
        np.testing.assert_allclose(found.astype(float), wanted.astype(float), rtol=1e-4)


def test_a_method_is_applied_and_fitted_on_a_task_of_the_users(checkpoint, tmp_path, quick):
    path = checkpoint("llama", positions=128, chat_template=TEMPLATE).path
    folder = tiny_causal.write(tmp_path, "choices", fewshot_split="train")
    arguments = ["--tasks", "made", "--include_path", folder, *CHAT, "--batch_size", "auto"]
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
        (CHAT, "without a chat template in its tokenizer: leave --apply_chat_template out"),
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
