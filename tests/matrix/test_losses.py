"""Nothing that was measured is lost, and one cell ends no run: processes that are killed, hang or leave."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import attnbench
from attnbench.cli.main import main
from attnbench.cli.screen import stdout
from attnbench.errors import UserError, described
from attnbench.matrix import started
from attnbench.matrix.request import Request
from attnbench.matrix.sharing import leases
from attnbench.records import provenance, record, whereabouts

ROOT = Path(__file__).parents[2]
PLUGIN = """
import ctypes, os, re, time
from attnbench import Method, hookimpl

print("the plugin prints")

class Unsaid(Exception):
    def __str__(self):
        raise ValueError("no words")

class Base(BaseException):
    pass

def unsaid():
    raise Unsaid

def surrogate():
    raise RuntimeError("half \\ud800 of" + chr(10) + "a pair")

def base():
    raise Base("of all")

def generator():
    raise GeneratorExit("closed")

def leaves():
    os._exit(3)

def crashes():
    ctypes.string_at(0)

def hangs():
    re.match("(a+)+$", "a" * 60 + "b")  # holds Python's lock

def sleeps():
    open("sleeping", "w").close()
    time.sleep(60)

def prints():
    print("in Python")
    os.write(1, b"past Python" + bytes([10]))
    ctypes.CDLL(None).puts(b"in C")

def moves():
    os.chdir("/")

def made(act):
    def probs(self, probs, site):
        act()
        return probs * 0.5

    members = {"name": act.__name__, "examples": (act.__name__,), "probs": probs, "__module__": __name__}
    return type(act.__name__.title(), (Method,), members)

@hookimpl
def register_methods(register):
    for act in (unsaid, surrogate, base, generator, leaves, crashes, hangs, sleeps, prints, moves):
        register(made(act))
"""


@pytest.fixture
def command(tiny_folder, tmp_path):
    """Start `attnbench run` of methods as a process of its own, in a folder of its own."""
    (tmp_path / "acts.py").write_text(PLUGIN, encoding="utf-8")

    def start(methods, *more):
        asked = ["run", "--models", tiny_folder, "--tasks", "pocket-sentiment", "--limit", "6"]
        asked += ["--methods", methods, "--records", "r", "--plugin", "acts.py", *more]
        return subprocess.Popen(
            [sys.executable, "-m", "attnbench", *asked],
            cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip

    return start


def _ended(process):
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err


def _statuses(folder):
    found = [json.loads(path.read_text(encoding="utf-8")) for path in folder.rglob("*.json")]
    return {each["cell"]["method"]: (each["status"], each["error"] or "") for each in found}


def _notes(folder):
    return [path.name for path in folder.rglob(".*") if path.name != leases.FOLDER]


def test_what_a_method_raises_moves_or_prints_harms_no_other_cell(command, tmp_path):
    status, out, err = _ended(command("unsaid,surrogate,base,generator,prints,moves,prune80", "--json"))
    found = {each["cell"]["method"]: each for each in json.loads(out)}
    told = {
        "unsaid": "unsaid: Unsaid: its __str__ raises ValueError (unsaid.probs at bert.",
        "surrogate": "surrogate: RuntimeError: half of a pair (surrogate.probs at bert.",
        "base": "base: Base: of all (base.probs at bert.",
        "generator": "generator: GeneratorExit: closed (generator.probs at bert.",
    }
    for method, words in told.items():
        assert found[method]["status"] == "failed" and found[method]["error"].startswith(words)
    assert {found[name]["status"] for name in ("prints", "moves", "prune80")} == {"measured"}
    assert status == 1 and all(
        words in err for words in ("the plugin prints", "in Python", "past Python", "in C")
    )
    assert set(_statuses(tmp_path / "r")) == set(found) and not _notes(tmp_path / "r")


ENDS = {
    "leaves": (3, "leaves: ended its process: by a kill from outside, for want of memory or by os._exit"),
    "crashes": (-signal.SIGSEGV, "crashes: crashed its process: Segmentation fault; --force tries it again"),
    "hangs": (-signal.SIGKILL, "hangs: took longer than --cell-timeout 15; --force tries it again"),
}


@pytest.mark.parametrize("method", ENDS)
def test_a_cell_that_ends_its_process_has_failed_for_the_next_run(method, command, tmp_path):
    status, words = ENDS[method]
    asked = (f"{method},prune80", "--cell-timeout", "15")
    first, _, err = _ended(command(*asked))
    assert first == status and set(_statuses(tmp_path / "r")) == {"dense", "uniform"}
    assert len(_notes(tmp_path / "r")) == 1
    if method == "hangs":
        last = err.splitlines()[-1]
        assert re.fullmatch(
            r"attnbench: stopped: tiny · \S+ · hangs took longer than --cell-timeout 15; .*", last
        )
    assert _ended(command(*asked))[0] == 1
    found = _statuses(tmp_path / "r")
    assert found["prune80"][0] == "measured" and not _notes(tmp_path / "r")
    assert found[method][0] == "failed" and found[method][1].startswith(words)
    if method == "leaves":  # a kill from outside comes but once: it is tried again, the others first
        assert _ended(command(f"{method},prune80,prune50"))[0] == status
        assert _statuses(tmp_path / "r")["prune50"][0] == "measured"
        assert _ended(command(f"{method},prune80,prune50"))[0] == 1
    assert _ended(command(*asked))[0] == 1  # for good


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_a_signal_leaves_nothing_torn(number, command, tmp_path):
    process = command("sleeps,prune80")
    for _ in range(600):
        if (tmp_path / "sleeping").exists():
            break
        time.sleep(0.1)
    process.send_signal(number)
    status, _, err = _ended(process)
    files = {path.suffix for path in (tmp_path / "r").rglob("*") if path.is_file()}
    if number == signal.SIGKILL:
        assert status == -number and len(_notes(tmp_path / "r")) == 1
    else:
        assert status == 128 + number and files == {".json", ".npz"} and not _notes(tmp_path / "r")
        assert err.splitlines()[-1] == (
            "attnbench: stopped; what is recorded stays, the same command goes on from there"
        )
    assert len(list(record.read_all(tmp_path / "r"))) == 2


def test_a_note_of_a_run_at_work_is_not_taken_for_a_dead_ones(tmp_path):
    path = tmp_path / "m" / "t" / "prune80.json"
    with started.noted(path, "a" * 64):
        assert started.place(path).exists() and started.left(path, "a" * 64) is None
        with started.noted(path, "a" * 64):  # another run at the same cell
            pass
        assert started.place(path).exists()
    assert not started.place(path).exists()
    started.place(path).write_text("a" * 64 + "\n", encoding="utf-8")
    assert started.left(path, "b" * 64) is None  # the method is another by now
    assert not started.place(path).exists()


def _run(model, records, methods="prune80", **options):
    options = {"limit": 6, **options}
    found = attnbench.run(model, methods, "pocket-sentiment", records=str(records), **options).records
    return {item.cell["method"]: item for item in found}


def _contents(folder):
    return {str(path): path.read_bytes() for path in sorted(Path(folder).rglob("*")) if path.is_file()}


@pytest.fixture
def twin(tiny_folder, tmp_path):
    """Copy the checkpoint to another folder of the same name, with other weights."""
    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(tiny_folder, tmp_path / "other" / "tiny")
    _change(folder, load_file, save_file)
    return str(folder)


def _change(folder, load_file, save_file):
    weights = load_file(folder / "model.safetensors")
    weights["classifier.bias"] += 0.5
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


OTHERWISE = {
    "fewer samples": ({"limit": 4}, "limit 6, not 4"),
    "another seed": ({"seed": 3}, "seed 0, not 3"),
    "another dtype": ({"dtype": "float64"}, "dtype float32, not float64"),
    "by force": ({"seed": 3, "force": True}, "seed 0, not 3"),
    "more, but another seed": ({"limit": 8, "seed": 3}, "seed 0, not 3"),
}


@pytest.mark.parametrize("name", OTHERWISE)
def test_measurements_of_other_settings_do_not_give_way(name, tiny_folder, tmp_path):
    options, words = OTHERWISE[name]
    _run(tiny_folder, tmp_path / "r", "prune50")
    before = _contents(tmp_path / "r")
    with pytest.raises(UserError, match=re.escape(words)) as caught:
        _run(tiny_folder, tmp_path / "r", **options)
    told = str(caught.value)
    assert told.startswith("2 of 3 cells are recorded otherwise in ") and "--records DIR" in told
    assert "--replace" in told and "\n" not in told and _contents(tmp_path / "r") == before
    if name == "another seed":
        assert _run(tiny_folder, tmp_path / "r", replace=True, **options)["dense"].settings["seed"] == 3


def test_more_samples_replace_fewer_and_one_line_says_so(tiny_folder, tmp_path, capsys):
    asked = ["run", "--models", tiny_folder, "--tasks", "pocket-sentiment", "--records", str(tmp_path / "r")]
    assert main([*asked, "--limit", "4"]) == 0
    capsys.readouterr()
    assert main([*asked, "--limit", "6"]) == 0
    err = capsys.readouterr().err
    told = [line for line in err.splitlines() if "replaced" in line]
    assert told == ["tiny · pocket-sentiment: 2 records are replaced: more samples, limit 4 before, 6 now"]


def test_another_checkpoint_of_the_same_folder_name_needs_a_name(tiny_folder, twin, tmp_path):
    _run(tiny_folder, tmp_path / "r")
    before = _contents(tmp_path / "r")
    with pytest.raises(
        UserError, match=r"3 of 3 cells .* was measured on another checkpoint: other weights.*NAME=PATH"
    ):
        _run(twin, tmp_path / "r")
    assert _contents(tmp_path / "r") == before
    _run([f"second={twin}"], tmp_path / "r")
    found = list(record.read_all(tmp_path / "r"))
    assert sorted({item.cell["model"] for item in found}) == ["second", "tiny"] and len(found) == 6
    folders = [tiny_folder, twin, str(tmp_path)]
    assert not any(place in text.decode() for place in folders for text in _contents(tmp_path / "r").values()
                   if text.startswith(b"{"))  # fmt: skip


def test_the_same_weights_elsewhere_are_believed_and_changed_ones_in_place_measured(
    tiny_folder, tmp_path, capsys
):
    from safetensors.torch import load_file, save_file

    from attnbench.matrix.console import Console

    first = _run(tiny_folder, tmp_path / "r")
    folder = shutil.copytree(tiny_folder, tmp_path / "moved" / "tiny")
    assert _run(str(folder), tmp_path / "r")["dense"].date == first["dense"].date
    mine = _run(str(folder), tmp_path / "s")
    _change(folder, load_file, save_file)
    again = _run(str(folder), tmp_path / "s", listener=Console())
    assert again["dense"].scores["outputs"].tolist() != mine["dense"].scores["outputs"].tolist()
    err = capsys.readouterr().err
    assert "tiny · pocket-sentiment: 3 records are replaced: its weights have changed\n" in err


def test_records_from_before_places_were_kept(tiny_folder, twin, tmp_path):
    first = _run(tiny_folder, tmp_path / "r")
    for path in (tmp_path / "r").rglob("*.json"):
        body = json.loads(path.read_text(encoding="utf-8"))
        del body["provenance"]["places"]
        path.write_text(json.dumps(body), encoding="utf-8")
    assert _run(tiny_folder, tmp_path / "r")["prune80"].date == first["prune80"].date
    with pytest.raises(UserError, match="another checkpoint"):
        _run(twin, tmp_path / "r")


def test_another_data_file_of_the_same_name_is_refused(tiny_folder, tmp_path, capsys):
    files = []
    for place, words in (("a", "good"), ("b", "bad")):
        (tmp_path / place).mkdir()
        files.append(tmp_path / place / "mine.csv")
        files[-1].write_text(f"text,label\n{words},positive\nso {words},negative\n", encoding="utf-8")
    records = str(tmp_path / "r")
    attnbench.run(tiny_folder, "prune80", str(files[0]), records=records)
    before = _contents(records)
    with pytest.raises(UserError, match="was measured on another task or data file of that name") as caught:
        attnbench.run(tiny_folder, "prune80", str(files[1]), records=records)
    told = capsys.readouterr().err
    assert "3 of 3 cells are recorded otherwise in r: there" in str(caught.value) and "replaced" not in told
    assert _contents(records) == before
    files[0].write_text(files[1].read_text(encoding="utf-8"), encoding="utf-8")  # edited where it lies
    assert attnbench.run(tiny_folder, "prune80", str(files[0]), records=records).failed == []
    assert _contents(records) != before


def test_a_digest_names_no_folder_and_tells_places_apart(tmp_path, monkeypatch):
    (tmp_path / "a").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "a")
    one = whereabouts.digest(tmp_path / "a")
    monkeypatch.chdir(tmp_path)
    assert one == whereabouts.digest("./a") == whereabouts.digest("link") != whereabouts.digest(tmp_path)
    assert re.fullmatch("[0-9a-f]{64}", one)
    assert provenance._without_folders("run1=/home/me/my,model/x") == "run1=./x"


NAMES = {
    "run1=./a,b": ("run1=./a,b",),
    "bert,run1=./a": ("bert", "run1=./a"),
    "a=./x b=./x,y": ("a=./x", "b=./x,y"),
    "./a=b,gpt": ("./a=b", "gpt"),
}


@pytest.mark.parametrize("text", NAMES)
def test_a_word_with_a_name_is_not_parted_at_commas(text):
    assert Request.of(text.split()).models == NAMES[text]


@pytest.mark.parametrize(
    ("given", "words"),
    {
        "bert=./x": "'bert' is a model of ours",
        "pocket-x=./x": "is a model of ours",
        "mine=bert": "a name is for a folder, a GGUF file or a Hub id: mine=./FOLDER",
        "mine=./x,./y": "NAME=PATH is not parted at commas: give several words",
    }.items(),
)
def test_a_name_that_does_not_do(given, words, capsys, tmp_path):
    assert main(["run", "--models", given, "--tasks", "sst2", "--records", str(tmp_path / "r")]) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert words in said and len(said) < 400


def test_a_comma_in_a_name_is_said_with_the_way_on(tiny_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(tiny_folder, "my,model")
    (tmp_path / "my,data.csv").write_text("text,label\ngood,positive\n", encoding="utf-8")
    assert main(["run", "--models", "./my,model", "--tasks", "pocket-sentiment"]) == 2
    assert "write NAME=./my,model" in capsys.readouterr().err
    assert main(["run", "--models", "bert", "--tasks", "my,data.csv"]) == 2
    assert "rename it" in capsys.readouterr().err
    assert main(["run", "--models", "ours=./my,model", "--tasks", "pocket-sentiment", "--limit", "4"]) == 0
    assert (tmp_path / "attnbench-records" / "ours" / "pocket-sentiment" / "dense.json").is_file()


def test_a_suite_takes_a_named_model(tiny_folder, tmp_path, capsys):
    suite = tmp_path / "s.toml"
    suite.write_text('models = ["run1"]\ntasks = ["pocket-sentiment"]\nlimit = 4\nmethods = ["prune80"]\n')
    assert main(["run", str(suite), "--models", f"run1={tiny_folder}"]) == 0
    assert (tmp_path / "records" / "s" / "run1" / "pocket-sentiment" / "prune80.json").is_file()


def test_two_runs_on_one_folder_do_not_overwrite_each_other(tiny_folder, tmp_path, monkeypatch):
    """The second began when nothing was there; the first has recorded other settings meanwhile."""
    from attnbench.matrix.column import Column

    _run(tiny_folder, tmp_path / "first")

    def meanwhile(*_):
        monkeypatch.undo()
        shutil.copytree(tmp_path / "first", tmp_path / "r", dirs_exist_ok=True)

    monkeypatch.setattr(Column, "announce", meanwhile)
    with pytest.raises(UserError, match=r"recorded it meanwhile: it was measured with limit 6, not 4"):
        _run(tiny_folder, tmp_path / "r", limit=4)
    assert {item.settings["limit"] for item in record.read_all(tmp_path / "r")} == {6}


def test_merge_brings_two_folders_together_and_overwrites_nothing(tiny_folder, twin, tmp_path, capsys):
    a, b, c = (str(tmp_path / name) for name in "abc")
    _run(tiny_folder, a, "prune80")
    _run(tiny_folder, b, "prune50")
    assert main(["merge", a, b, "--into", c]) == 0
    assert capsys.readouterr().out == f"{c}: 4 written, 0 there already\n"
    for folder, method in ((a, "prune80"), (b, "prune50")):
        for ending in (".json", ".npz"):
            file = Path("tiny", "pocket-sentiment", method + ending)
            assert Path(c, file).read_bytes() == Path(folder, file).read_bytes()
    before = _contents(c)
    other = str(tmp_path / "d")
    _run(twin, other, "prune80,prune90")
    capsys.readouterr()
    assert main(["merge", a, other, "--into", c]) == 1
    out, err = capsys.readouterr()
    assert out == f"{c}: 0 written, 0 there already, 4 left where they are\n"
    lines = err.splitlines()
    assert len(lines) == 4 and sum("its weights have changed" in line for line in lines) == 3
    assert any(
        "prune90: " in line and "is of other weights, or in another dtype, than" in line for line in lines
    )
    assert any(line.startswith("attnbench: tiny · pocket-sentiment · prune80: ") for line in lines)
    assert before.items() <= _contents(c).items()
    assert main(["merge", a, other, "--into", str(tmp_path / "e")]) == 1  # none of two that differ is chosen
    assert not [*(tmp_path / "e").rglob("*.json")]
    assert main(["merge", a, str(tmp_path / "nothing"), "--into", c]) == 2


@pytest.mark.parametrize("line", ["run --models bert", "leaderboard", "compare dense uniform"])
def test_two_folders_of_records_are_a_mistake(line, capsys):
    assert main([*line.split(), "--records", "a", "--records", "b"]) == 2
    assert "--records is given twice" in capsys.readouterr().err


def test_what_is_printed_aside_comes_to_stderr_and_stdout_is_back(capfd):
    with stdout.aside():
        print("aside")
        os.write(1, b"aside too\n")
    print("back")
    out, err = capfd.readouterr()
    assert out == "back\n" and err.splitlines() == ["aside", "aside too"]


def test_an_exception_is_described_whatever_it_is():
    class Silent(Exception):
        def __str__(self):
            raise RecursionError

    error = Silent()
    error.add_note("first")
    assert described(error) == "Silent: its __str__ raises RecursionError (first)"
    assert described(ValueError("a\n\x1b[31m\ud800b")) == "ValueError: a [31m b"
    assert len(described(ValueError("x" * 10**6))) <= 2000


def test_what_no_record_can_hold_fails_its_cell(tiny_folder, tmp_path, monkeypatch):
    from attnbench.matrix import column

    real = column.Column._evaluate

    def strange(self, item, model, methods):
        real(self, item, model, methods)
        item.fitted = {"prune80": "\ud800"} if methods else {}

    monkeypatch.setattr(column.Column, "_evaluate", strange)
    found = _run(tiny_folder, tmp_path / "r")
    assert found["dense"].status == "measured" and found["prune80"].status == "failed"
    assert "no record can hold it" in found["prune80"].error
