"""Every command of docs/language-models.md, run on a tiny model, with stand-ins for the Hub."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import tiny_causal

from attnbench.cli.main import main

TEXT = (Path(__file__).parents[2] / "docs" / "language-models.md").read_text(encoding="utf-8")
COMMANDS = [
    line
    for block in re.findall(r"```bash\n(.*?)```", TEXT, re.DOTALL)
    for line in block.splitlines()
    if line.startswith("attnbench")
]
# data of the Hub and the published model have stand-ins here; tests of their own cover a GGUF file
STAND_INS = {
    "lambada_openai,wikitext": "my-task,my-texts",
    "lambada_openai": "my-task",
    "wikitext": "my-texts",
    "smol=./SmolLM2-135M-Instruct.Q4_1.gguf": "smol=./my-model",
    "smol=./SmolLM2-135M-Instruct": "smol=./my-model",
}
METHOD = '''
from dataclasses import dataclass
from attnbench import Method, hookimpl

@dataclass
class Mine(Method):
    """Leave probabilities as they are."""
    name = "mine"
    examples = ("mine",)
    def probs(self, probs, site):
        return probs * 0.5

@hookimpl
def register_methods(register):
    register(Mine)
'''
CHAT = "{% for m in messages %}w39 {{ m['content'] | trim }} w38 {% endfor %}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Make what the commands name: a model, tasks and a method of one's own."""
    folder = tmp_path_factory.mktemp("own")
    tiny_causal.build(folder / "my-model", "llama", positions=2048, chat_template=CHAT)
    (folder / "my-tasks").mkdir()
    tiny_causal.write(folder / "my-tasks", "last", "my-task", fewshot_split="train", num_fewshot=None)
    tiny_causal.write(folder / "my-tasks", "pages", "my-texts", doc_to_target="\"{{(page + ' ') * 700}}\"")
    (folder / "mine.py").write_text(METHOD, encoding="utf-8")
    return folder


def stood_in(line: str) -> list[str]:
    """Return a command's words with stand-ins, on two samples."""
    words = [STAND_INS.get(word, word) for word in shlex.split(line)[1:]]
    if words[0] != "run":
        return [*words, "--limit", "2"]
    words += ["--include-path", "./my-tasks"] * ("--include-path" not in words)
    if "--limit" in words:
        words[words.index("--limit") + 1] = "2"
        return words
    return [*words, "--limit", "2"]


def test_the_text_has_commands():
    assert len(COMMANDS) >= 9 and all(name in TEXT for name in STAND_INS)


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_of_the_text_runs(line, folder, tmp_path, monkeypatch, capsys, fresh_registry):
    for name in ("my-model", "my-tasks", "mine.py"):
        (tmp_path / name).symlink_to(folder / name)
    monkeypatch.chdir(tmp_path)
    words = stood_in(line)
    assert main(words) == 0, capsys.readouterr().err
    shown = capsys.readouterr().out
    if words[0] == "run":
        methods = re.split(r"[,{}]", words[words.index("--methods") + 1])
        assert "dense" in shown and all(part in shown for part in methods if part[:1].isalpha())
        assert "failed" not in shown
    else:
        assert "|" in shown  # lm-eval's own table
