"""The command line: what it imports, what it prints where, what each mistake says and returns."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from attnbench.cli.main import COMMANDS, main
from attnbench.methods.spec import parse

HEAVY = {"torch", "transformers", "lm_eval", "pandas", "numpy", "datasets"}

INSTANT = [
    ["--help"],
    ["--version"],
    ["methods"],
    ["methods", "--examples"],
    ["run", "--help"],
    ["run", "--models", "bert,roberta", "--methods", "logquant3,prune80", "--dry-run"],
    ["run", "--models", "./any", "--tasks", "sst2", "--methods", "heads50:random", "--dry-run"],
]


@pytest.mark.parametrize("arguments", INSTANT, ids=" ".join)
def test_what_answers_at_once_imports_nothing_heavy(arguments):
    code = f"""
import sys
from attnbench.cli.main import main
try:
    status = main({arguments!r})
except SystemExit as stop:
    status = stop.code
print("LOADED", sorted({HEAVY!r} & set(sys.modules)), status)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] in ("LOADED [] 0", "LOADED [] None"), done.stdout + done.stderr
    assert len(done.stdout.splitlines()) > 1


MISTAKES = {
    "run": "no model",
    "run --models brt --methods uniform": "unknown model 'brt'. Did you mean bert",
    "run --models bert --methods prone80": "unknown method 'prone'. Did you mean prune",
    "run --models bert --tasks pocket-sentimnt": "Did you mean pocket-sentiment",
    "run --models bert --method uniform": "unknown argument '--method'. Did you mean --methods",
    "run --models bert --limt=3": "unknown argument '--limt'. Did you mean --limit? `attnbench run --help`",
    "run --models bert --limit 0": "0 is not a whole number of at least 1",
    "run --models bert --limit 1e3": "1e3 is not a whole number of at least 1",
    "export --models bert --task sst2 --method heads50:l2 out": "'--models'. Did you mean --model?",
    "export --model bert --task sst2 --method heads50:l2 --output out": "unknown argument '--output'",
    "export --model bert --task sst2": "the following arguments are required: OUT, --method",
    "compare prune80 prune80": "'prune80' beside itself: give two methods",
    "run --models bert --limit x": "--limit: x is not a whole number of at least 1",
    "run --models bert --tasks lambada_openi": "'lambada_openi'. Did you mean lambada_openai? Known: blimp",
    "run --models bert --tasks gsm8k-cot": "unknown task 'gsm8k-cot'. Did you mean gsm8k_cot",
    "run --models bert --tasks ~nobody/a.csv": "no file '~nobody/a.csv'.",
    "run --models ~nobody/a": "model '~nobody/a': no such folder.",
    "run --models bert --methods FOO80": "spec such as prune80 or heads50:entropy. `attnbench methods` lists",
    "run --models bert --tasks mine.cvs": "unknown task 'mine.cvs'. Did you mean mine.csv?",
    "run --models bert --methods PRUNE80": "spec such as prune80 or heads50:entropy. Did you mean prune80?",
    "run --models bert --dtype fp16": "unknown dtype 'fp16'. Known: float32, float64, bfloat16, float16.",
    "run --models bert --device cudaa": "no device 'cudaa' here. --device takes cpu",
    "heads --models bert --device cudaa": "no device 'cudaa' here",
    "check prune80 --device cudaa": "no device 'cudaa' here",
    "run --models here --tasks sst2": "A folder of that name is here: write ./here",
    "run --models bert --tasks notes.txt": "your own data are a .csv or .jsonl file",
    "run --models ./here --tasks sst2": "no config.json",
    "run --models ./zzz --tasks sst2": "model './zzz': no such folder. Give a folder saved",
    "run --models ./nowhere": "no such folder",
    "run --models ./hare/ --tasks sst2": "model './hare/': no such folder. Did you mean ./here? Give",
    "run --models bert --tasks pocket-sentiment --records notes.txt": "--records notes.txt: is a file",
    "run --models bert --tasks mine": "unknown task 'mine'. A file mine.csv is here: write mine.csv",
    "run --models bert --tasks min.csv": "no file 'min.csv'. Did you mean mine.csv? A file of your own has",
    "run --models bert --tasks own-task": "A file own-task.yaml is here: write own-task.yaml",
    "run --models bert --tasks ./own-tsk.yaml": "no file './own-tsk.yaml'. Did you mean ./own-task.yaml?",
    "run --models bert --tasks table": "A file table.tsv is here, but your own data are a .csv or",
    "run --models bert --tasks ./here": "task './here' is a folder: your own data are a .csv or",
    "run --models ./mine.csv --tasks sst2": "model './mine.csv': is a file. Give a folder saved by",
    "run --models bert --methods prune80 + logquant3": "no method on one side of +. Write a + b as a+b",
    "leaderboard min.toml": "suite min.toml: no such file. Did you mean mine.toml? A suite is a TOML file.",
    "run notes.txt": "not TOML: Expected '=' after a key in a key/value pair",
    "run --model bert": "unknown argument '--model'. Did you mean --models? `attnbench run --help`",
    "heads --models bert --ablate --output notes.txt": "--output notes.txt: is a file; give a folder",
    "heads --models bert --output notes.txt/deep": "--output notes.txt/deep: cannot be written: Not a dir",
    "leaderboard --records notes.txt": "--records notes.txt: is a file; give a folder",
    "leaderboard --check --records notes.txt": "--records notes.txt: is a file; give a folder",
    "leaderboard --check --records hare": "--records hare: no such folder. Did you mean here?",
    "leaderboard --records hare": "--records hare: no such folder. Did you mean here? `attnbench run`",
    "leaderboard --records here --output LICENCE": "--output LICENCE: is a file; give a folder",
    "compare a b --records notes.txt": "--records notes.txt: is a file; give a folder",
    "new-method mine --output notes.txt": "--output notes.txt: is a file; give a folder",
    "new-method top3": "single dashes, no digits. Did you mean top?",
    "new-method My_Top:K": "single dashes, no digits. Did you mean my-top:k?",
    "new-method 3": "single dashes, no digits.",
    "run --models ./here": "give --tasks",
    "run --models bert --plugin none.py": "no such file",
    "run --models bert --dtype float23": "unknown dtype 'float23'. Did you mean float32",
    "leaderboard --records nowhere": "no such folder",
    "methods prone": "Did you mean prune",
    "methods prone80": "Did you mean prune",
    "rum": "unknown command 'rum'. Did you mean run? `attnbench --help`",
}


@pytest.mark.parametrize(("line", "says"), MISTAKES.items())
def test_a_mistake_is_one_line_and_status_2(line, says, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    for name in ("notes.txt", "mine.csv", "own-task.yaml", "table.tsv", "LICENCE", "mine.toml"):
        (tmp_path / name).touch()
    (tmp_path / "notes.txt").write_text("text\n", encoding="utf-8")
    assert main(line.split()) == 2
    captured = capsys.readouterr()
    assert says in captured.err and captured.out == ""
    assert captured.err.count("\n") == 1 and captured.err.startswith("attnbench: ")
    assert not any(tmp_path.rglob("*.json"))


def test_a_name_in_the_folder_of_suites_is_said_to_be_there(capsys, tmp_path, monkeypatch):
    (tmp_path / "mine").mkdir()
    monkeypatch.setenv("ATTNBENCH_MODELS", str(tmp_path))
    assert main(["run", "--models", "mine", "--tasks", "sst2"]) == 2
    assert f"write {tmp_path / 'mine'}" in capsys.readouterr().err


def test_dry_run_prints_the_cells(capsys):
    assert (
        main(
            [
                "run",
                "--models",
                "bert",
                "--tasks",
                "pocket-sentiment",
                "--methods",
                "prune80",
                "heads50:random",
                "--dry-run",
            ]
        )
        == 0
    )
    assert capsys.readouterr().out.splitlines() == [
        f"pocket-bert pocket-sentiment {method}"
        for method in [
            "dense",
            "uniform",
            "prune80",
            "heads50:random",
            "heads50:random:seed=1",
            "heads50:random:seed=2",
        ]
    ]


@pytest.mark.parametrize("text", ["prune80", "heads50:entropy:per-layer", "mask90+logquant3", "dense"])
def test_methods_takes_what_it_lists(text, capsys):
    assert main(["methods", text]) == 0
    shown = capsys.readouterr().out
    named = [method.name for method in parse(text)]
    assert all(f"{name}    e.g. " in shown for name in named) if named else "unmodified" in shown


@pytest.mark.parametrize("text, first", [
    ("voita story-of-heads", "gates:l0"), ("2309.17453", "evict:streamingllm"), ("KIVI", "kvint:kivi"),
    ("threshold fixed value", "threshold"),
])  # fmt: skip
def test_methods_are_found_by_any_word_of_theirs(text, first, capsys):
    assert main(["methods", text]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"{first} ") and all(len(line) < 140 for line in lines)


def test_methods_shows_fields_and_source(capsys):
    assert main(["methods", "heads:entropy"]) == 0
    shown = capsys.readouterr().out
    assert "percent: float  (the amount)" in shown and "fit, then context" in shown and "https://" in shown


def test_a_run_in_which_nothing_applies_shows_why_and_ends_with_status_2(capfd, tmp_path):
    line = f"run --models bert --tasks sst2 --methods prune80 --records {tmp_path}"
    assert main(line.split()) == 2
    out, err = capfd.readouterr()
    told = " ".join(out.split())
    assert "n/a: pocket-bert is trained for pocket-qa, pocket-sentiment, not for sst2" in told
    assert err.splitlines()[-1].startswith("attnbench: nothing was measured: no cell is applicable.")


def test_a_run_prints_its_table_on_stdout_and_all_else_on_stderr(capfd, tmp_path):
    arguments = [
        "run",
        "--models",
        "bert",
        "--tasks",
        "pocket-sentiment",
        "--methods",
        "prune80",
        "--limit",
        "20",
    ]
    assert main([*arguments, "--records", str(tmp_path)]) == 0
    first = capfd.readouterr()
    assert "prune80" in first.out and "pocket-bert" in first.out and "next:" not in first.out
    assert first.err.splitlines()[0].startswith("bert → pocket-bert: ")
    assert main([*arguments, "--records", str(tmp_path)]) == 0
    again = capfd.readouterr()
    assert "Δ dense: the difference" in first.out and "--legend" not in first.out
    assert "Δ dense: the difference" not in again.out and "--legend" in again.out
    assert again.out.partition("\n\n")[2].partition("\n\n")[0] in first.out
    assert again.err.count("as recorded") == 3
    assert main([*arguments, "--records", str(tmp_path), "--json"]) == 0
    cells = json.loads(capfd.readouterr().out)
    assert [cell["cell"]["method"] for cell in cells] == ["dense", "uniform", "prune80"]
    assert main(["leaderboard", "--records", str(tmp_path)]) == 0
    assert "| " in capfd.readouterr().out


def test_layers_that_no_model_has_are_a_mistake_and_a_share_is_asked_after(capfd, tmp_path):
    arguments = ["run", "--models", "bert", "--tasks", "pocket-sentiment", "--limit", "4"]
    assert main([*arguments, "--methods", "prune0.8,prune80:layers=9", "--records", str(tmp_path)]) == 2
    out, err = capfd.readouterr()
    assert "n/a: no attention at layers=9. It attends at encoder 0-3" in out
    assert err.splitlines()[-1].startswith("attnbench: prune80:layers=9: no attention at layers=9.")
    assert "warning: prune0.8 is 0.8 %: did you mean prune80?" in err


LEFT = {
    "run --models bert": "; what is recorded stays, the same command goes on from there",
    "check prune80": "; nothing was written",
    "verify a.json": "; nothing was written",
    "compare a b": "; nothing was written",
    "methods": "; nothing was written",
    "leaderboard": "; nothing was written",
    "leaderboard --output=a.md": "; each file that is there is whole, the same command writes the rest",
    "heads --models bert": "; the tables that were said to be written stay",
    "export out --model b --task t --method m": "; the folder, where it is there, is unfinished: delete it",
    "new-method mine": "",
}


@pytest.mark.parametrize("line", LEFT)
def test_ctrl_c_says_what_the_command_leaves(line, monkeypatch, capsys):
    def stop(options):
        raise KeyboardInterrupt

    monkeypatch.setattr(COMMANDS[line.partition(" ")[0]], "execute", stop)
    assert main(line.split()) == 130
    assert capsys.readouterr().err == f"attnbench: stopped{LEFT[line]}\n"


EARLY = """
import importlib.abc, sys

class Stop(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "attnbench.cli.run":
            raise KeyboardInterrupt

sys.meta_path.insert(0, Stop())
from attnbench.__main__ import main
sys.exit(main())
"""


def test_ctrl_c_before_the_command_line_is_there_is_one_line():
    done = subprocess.run([sys.executable, "-c", EARLY], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (130, "attnbench: stopped; nothing was written\n")
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))
    assert project["project"]["scripts"] == {"attnbench": "attnbench.__main__:main"}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
@pytest.mark.parametrize("line", ["methods", "models", "--help", "methods prune80"])
def test_a_full_disk_under_stdout_is_one_line(line):
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "attnbench", *line.split()]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    told = "attnbench: stdout cannot be written: No space left on device\n"
    assert (done.returncode, done.stderr) == (2, told)


@pytest.mark.parametrize("line", ["methods", "tasks", "--version"])
def test_a_reader_that_has_left_is_no_mistake(line):
    command = [sys.executable, "-m", "attnbench", *line.split()]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        process.stdout.close()
        assert process.stderr.read() == "" and process.wait() == 0


FORKS = """
import os, signal, time
from attnbench.cli import main

with main._ending_alike():
    for _ in range(300):
        child = os.fork()
        if child == 0:
            time.sleep(600)
            os._exit(0)
        os.kill(child, signal.SIGTERM)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGTERM
    try:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(600)
    except main.Stopped as stopped:
        print("stopped by", stopped.signal)
"""


@pytest.mark.skipif(not hasattr(os, "register_at_fork"), reason="no forks here")
def test_a_process_that_somebody_forks_ends_by_a_signal_however_young():
    done = subprocess.run([sys.executable, "-c", FORKS], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, f"stopped by {int(signal.SIGTERM)}\n"), done.stderr
