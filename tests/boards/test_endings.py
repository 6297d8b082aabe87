"""Names that say where prompts end, wherever a task's name is used: options, suites, records, tables."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import asked_contexts
import pytest
import tiny_causal
import transformers
from sample_records import board

import attnbench
from attnbench.backends.causal.model import CausalLM
from attnbench.boards.tables import leaderboard
from attnbench.cli.main import main
from attnbench.engine.serving.attention import apply
from attnbench.errors import NotApplicable, UserError
from attnbench.inputs import endings, tasks
from attnbench.inputs.endings import Ending
from attnbench.matrix.request import Request
from attnbench.records import record

METHOD = "evict50:streamingllm"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "tiny-llama"
    tiny_causal.build(folder, "llama", 64)
    return folder


@pytest.fixture
def here(model, tmp_path, monkeypatch):
    """A folder with the tasks asked, marked, and made, unmarked, from which commands are run."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ATTNBENCH_MODELS", str(model.parent))
    asked_contexts.write(tmp_path)
    tiny_causal.write(tmp_path, "last")
    return tmp_path


NAMES = {
    "needles": ("needles", Ending(), "needles"),
    "needles@context": ("needles", Ending("context"), "needles"),
    "needles@question": ("needles", Ending("question"), "needles@question"),
    "wikitext@prompt512": ("wikitext", Ending(prompt=512), "wikitext@prompt512"),
    "wikitext@prompt0512": ("wikitext", Ending(prompt=512), "wikitext@prompt512"),
    "./a@b/my.yaml@question": ("./a@b/my.yaml", Ending("question"), None),
    "./me@home.csv": ("./me@home.csv", Ending(), "me@home"),
    "./mine.csv@question": ("./mine.csv", Ending("question"), "mine@question"),
}


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_parted_from_its_ending(name):
    plain, ending, recorded = NAMES[name]
    assert endings.parted(name) == (plain, ending) and endings.plain(name) == plain
    assert recorded is None or tasks.recorded(name) == recorded


OPTIONS = {
    "asked@questoin": ({}, "task 'asked@questoin': unknown ending 'questoin'. Did you mean question?"),
    "asked@prompt1": ({}, "prompt=1 is not a whole number of at least 2 tokens"),
    "asked": ({"cache_after": "answer"}, "unknown cache_after 'answer'. It is context or question."),
    "asked,made": ({"cache_after": "question", "prompt": 9}, "--tasks needles@question,wikitext@prompt512"),
    "asked@question": ({"cache_after": "context"}, "says itself where its prompts end: leave --cache-after"),
    "": ({"prompt": 9}, "--prompt: name the tasks that it is for: --tasks"),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_what_makes_no_sense_is_one_line(name, here):
    options, says = OPTIONS[name]
    with pytest.raises(UserError) as found:
        attnbench.run("tiny-llama=./m", METHOD, name, include_path=".", **options)
    assert says in str(found.value) and "\n" not in str(found.value)


def test_options_become_names():
    asked = Request.of("bert", (), "needles,./my.yaml", cache_after="question")
    assert asked.tasks == ("needles@question", "./my.yaml@question")
    assert Request.of("bert", (), "wikitext", prompt=9).tasks == ("wikitext@prompt9",)
    assert Request.of("bert", (), "needles@question,sst2").tasks == ("needles@question", "sst2")


SUITE = """
title = "Tiny"
methods = ["evict50:streamingllm", "evict50:knorm"]
claims = [
  "evict50:knorm > evict50:streamingllm on asked@question", "evict50:knorm within 100 of dense on asked",
]

[[part]]
models = ["tiny-llama"]
tasks = ["asked"]

[[part]]
models = ["tiny-llama"]
tasks = ["asked"]
cache_after = "question"
"""


def told(capsys):
    out, err = capsys.readouterr()
    return out + err


def test_one_suite_measures_a_task_both_ways(here, capsys):
    (here / "both.toml").write_text(SUITE)
    include = ["--include-path", "."]
    assert main(["run", "both.toml", *include, "--tasks", "asked@question"]) == 0
    assert "asked@question" in told(capsys)
    folder = here / "records" / "both" / "tiny-llama"
    assert [each.name for each in folder.iterdir()] == ["asked@question"]
    assert main(["status", "both.toml"]) == 1
    assert main(["status", "both.toml", "--missing"]) == 1
    line = next(line for line in told(capsys).splitlines() if line.startswith("attnbench run"))
    assert line == "attnbench run both.toml --models tiny-llama --tasks asked"
    assert main([*line.split()[1:], *include]) == 0
    assert sorted(each.name for each in folder.iterdir()) == ["asked", "asked@question"]
    stamps = {path: path.stat().st_mtime_ns for path in folder.glob("*/*.json")}
    assert main(["run", "both.toml", *include]) == 0  # nothing is measured again
    assert {path: path.stat().st_mtime_ns for path in folder.glob("*/*.json")} == stamps
    assert main(["status", "both.toml"]) == 0
    told(capsys)
    found = {path: record.read(path) for path in stamps}
    assert {item.status for item in found.values()} == {"measured"}
    assert all(item.receipt.get("cut", 1) == 1 for item in found.values())
    shares = {
        ending: record.read(folder / f"asked{ending}" / "dense.json").scores["outputs"]
        for ending in ("", "@question")
    }
    assert (shares[""] == shares["@question"]).all()
    assert main(["leaderboard", "both.toml", "--output", "out", "--format", "md,html,csv,plots"]) == 0
    text = (here / "out" / "both.md").read_text()
    assert "asked@question" in text and "on asked@question" in text
    assert main(["leaderboard", "both.toml", "--check"]) == 1  # the board itself stands in out
    assert "asked" not in told(capsys).replace("asked_", "")
    among = ["--records", "records/both", "--task", "asked@question"]
    assert main(["compare", "evict50:knorm", METHOD, *among]) == 0
    assert "asked@question" in told(capsys)
    where = str(folder / "asked@question" / "evict50,streamingllm.json")
    assert main(["verify", where, *include]) == 0
    assert "agrees" in told(capsys)
    assert main(["verify", where, "--task", "asked.yaml"]) == 0


def test_a_shell_may_name_the_ending_or_give_the_option(here, model, capsys):
    run = ["run", "--models", str(model), "--methods", METHOD, "--include-path", ".", "--dry-run"]
    assert main([*run, "--tasks", "asked,asked@question"]) == 0
    cells = [line.split()[1] for line in told(capsys).splitlines()[:-1]]
    assert cells == ["asked"] * 3 + ["asked@question"] * 3
    assert main([*run, "--tasks", "./asked.yaml", "--cache-after", "question"]) == 0
    assert "./asked.yaml@question" in told(capsys)


WRONG = {
    "made@question": (
        {}, "task 'made' marks no context that caches could be cut after: leave --cache-after out"
    ),
    "made@context": ({}, "task 'made' marks no context that caches could be cut after"),
    "asked@prompt9": ({}, "task 'asked' scores no texts as a whole: leave --prompt out"),
    "asked": (
        {"metadata": "{context: page, question: ask}"}, "line 7: task 'asked': context: page: document 0 has"
    ),
    "asked@question": (
        {"metadata": "{question: ask}"}, "context names a column, and question one that comes after it"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_a_task_that_has_no_such_ending_is_one_line(name, here, model):
    changes, says = WRONG[name]
    asked_contexts.write(here, **changes)
    with pytest.raises(UserError) as found:
        attnbench.run(str(model), METHOD, name, include_path=".")
    assert says in str(found.value) and "\n" not in str(found.value)
    assert not list(Path(record.RECORDS).glob("*/*/*.json"))


def test_an_encoder_has_no_such_ending(here):
    for ending, option in (("question", "--cache-after"), ("prompt9", "--prompt")):
        with pytest.raises(UserError, match=f"{option} is for lm-eval's own tasks of causal language models"):
            attnbench.run("bert", METHOD, f"pocket-sentiment@{ending}")


LOST = {
    "a context that is not there": (
        {"custom_dataset": "!function asked_data.lost", "doc_to_text": '"{{passage.lower()}} {{ask}}"'},
        "task 'asked', document 3: its context ('passage') is not in its request",
    ),
    "a question before it": (
        {"doc_to_text": '"{{ask}} {{passage}}"'},
        "task 'asked', document 0: its question ('ask') does not come after its context",
    ),
}


@pytest.mark.parametrize("case", LOST)
@pytest.mark.parametrize("form", ["chosen", "written"])
def test_a_context_that_is_not_found_fails_the_cells_that_need_it(form, case, here, model):
    changes, says = LOST[case]
    asked_contexts.write(here, form, **changes)
    names = ["asked", "asked@question"]
    found = attnbench.run(str(model), [METHOD, "prune80"], names, include_path=".").records
    assert [item.status for item in found] == ["measured"] * 2 + ["not applicable"] + ["measured"] * 5
    assert found[2].cell["method"] == METHOD and found[2].error.startswith(says)


class Slow(transformers.PreTrainedTokenizer):
    """Words w0 to w39, without offsets."""

    vocab_size = 44

    def get_vocab(self):
        return {token: k for k, token in enumerate(["<pad>", "<s>", "</s>", "[UNK]", *tiny_causal.WORDS])}

    def _tokenize(self, text, **ignored):
        return text.split()

    def _convert_token_to_id(self, token):
        return self.get_vocab().get(token, 3)

    def _convert_id_to_token(self, index):
        return list(self.get_vocab())[index]


def test_a_tokenizer_without_offsets_finds_no_context(model):
    loaded = transformers.AutoModelForCausalLM.from_pretrained(model).eval()
    lm = CausalLM(loaded.config, Slow(pad_token="<pad>", bos_token="<s>", eos_token="</s>"))
    lm.ends.border = lambda request: 5
    pair = SimpleNamespace(
        request_type="loglikelihood", args=("w1 w2 w3 w4", " w5"), task_name="made", doc_id=0, idx=0
    )
    with lm.serving(loaded) as served:
        assert served.loglikelihood([pair])[0][0] < 0
        with apply(loaded, METHOD), pytest.raises(NotApplicable, match="Slow does not tell which characters"):
            served.loglikelihood([pair])


def test_what_a_method_notes_of_prompts_stands_under_the_table():
    found = board()
    found[-1].receipt = {"notes": {"fewer tokens than its 4 first ones are kept": 3}}
    text = leaderboard.render(found, format="md")
    name = " ".join(found[-1].cell.values()).partition(":seed=")[0]
    assert f"{name}: fewer tokens than its 4 first ones are kept on 3 samples." in text.replace("`", "")
