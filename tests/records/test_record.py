"""Records: what is written is read back, a kill never leaves half of one, identity is what changes it."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from attnbench import parse
from attnbench.errors import UserError
from attnbench.methods.code import code_of
from attnbench.records import record
from attnbench.records.record import Record

ROOT = Path(__file__).parents[2]


def _record(method="prune80", value=0.5):
    return Record(
        {"model": "pocket-bert", "task": "pocket-sentiment", "method": method},
        "measured",
        metrics={"acc": {"value": value, "stderr": 0.01, "higher_is_better": True}},
        provenance={"identity": "x"},
        date="2026-01-01T00:00:00+00:00",
        scores={"doc_id": np.arange(4), "acc": np.array([1.0, 0.0, 1.0, 1.0])},
    )


def test_round_trip(tmp_path):
    path = record.write(tmp_path, _record("heads50:entropy"))
    assert path == tmp_path / "pocket-bert" / "pocket-sentiment" / "heads50,entropy.json"
    back = record.read(path)
    assert back.cell["method"] == "heads50:entropy" and back.metrics == _record().metrics
    np.testing.assert_array_equal(back.scores["acc"], [1, 0, 1, 1])
    assert list(json.loads(path.read_text()))[:4] == ["schema", "cell", "status", "error"]


@pytest.mark.parametrize("name", ["file", "allow_pickle", "acc/none", "a.npy", "self"])
def test_a_metric_may_have_any_name(name, tmp_path):
    item = _record()
    item.metrics = {name: item.metrics["acc"]}
    item.scores[name] = item.scores.pop("acc")
    back = record.read(record.write(tmp_path, item))
    assert list(back.scores) == ["doc_id", name] and back.scores[name].tolist() == [1, 0, 1, 1]


@given(st.text(min_size=1, max_size=300))
def test_any_name_is_a_safe_file_name(text):
    name = record.file_name(text)
    assert 0 < len(name) <= 110 and "/" not in name and ":" not in name and not name.startswith(".")


def test_long_names_stay_apart():
    assert record.file_name("x" * 101) != record.file_name("x" * 102)


DAMAGE = {
    "half": lambda path: path.write_text(path.read_text()[:50]),
    "schema": lambda path: path.write_text(path.read_text().replace('"schema": 1', '"schema": 2')),
    "keys": lambda path: path.write_text(path.read_text().replace('"status"', '"state"')),
    "no arrays": lambda path: path.with_suffix(".npz").unlink(),
    "other arrays": lambda path: path.with_suffix(".npz").write_bytes(b"PK"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_record_is_set_aside(damage, tmp_path, capsys):
    path = record.write(tmp_path, _record())
    DAMAGE[damage](path)
    with pytest.raises(ValueError, match="prune80"):
        record.read(path)
    assert list(record.read_all(tmp_path)) == []
    assert record.existing(tmp_path, _record().cell) is None
    assert not path.exists() and path.with_suffix(".json.damaged").exists()
    assert "set aside" in capsys.readouterr().err


@pytest.mark.parametrize("stop_at", range(1, 3))
def test_a_write_cut_short_leaves_the_old_record(stop_at, tmp_path, monkeypatch):
    path = record.write(tmp_path, _record(value=0.1))
    replace, calls = os.replace, []

    def cut(*arguments):
        calls.append(arguments)
        if len(calls) == stop_at:
            raise KeyboardInterrupt
        return replace(*arguments)

    monkeypatch.setattr(os, "replace", cut)
    changed = _record(value=0.2)
    changed.scores["acc"] = np.zeros(4)
    with pytest.raises(KeyboardInterrupt):
        record.write(tmp_path, changed)
    monkeypatch.undo()
    assert [file.suffix for file in sorted(path.parent.iterdir())] == [".json", ".npz"]
    if stop_at == 1:
        assert record.read(path).metrics["acc"]["value"] == 0.1
    else:
        # the arrays are new and the JSON old: their hash tells, and the cell is measured again
        assert record.existing(tmp_path, changed.cell) is None


def test_a_record_that_another_run_is_writing_is_read_when_it_is_whole(tmp_path, monkeypatch, capsys):
    cell = _record().cell
    path = record.write(tmp_path, _record(value=0.1))
    changed = _record(value=0.2)
    changed.scores["acc"] = np.zeros(4)
    record.write(tmp_path / "new", changed)
    new = record.path_of(tmp_path / "new", cell)
    path.with_suffix(".npz").write_bytes(new.with_suffix(".npz").read_bytes())  # the first of two renames
    monkeypatch.setattr(record.time, "sleep", lambda _: path.write_bytes(new.read_bytes()))  # the second
    assert record.existing(tmp_path, cell).metrics["acc"]["value"] == 0.2
    assert not list(tmp_path.rglob("*.damaged")) and not capsys.readouterr().err


@pytest.mark.parametrize("reads", [1, 2])
def test_a_damaged_record_that_another_run_sets_aside_is_gone(reads, tmp_path, monkeypatch, capsys):
    path = record.write(tmp_path, _record())
    path.write_text("{")
    aside, read, seen = path.with_suffix(".json.damaged"), record.read, []

    def slow(path):
        try:
            return read(path)
        except ValueError:
            seen.append(path)
            if len(seen) == reads:
                path.rename(aside)
            raise

    monkeypatch.setattr(record, "read", slow)
    monkeypatch.setattr(record, "MEANWHILE_S", 0)
    assert record.existing(tmp_path, _record().cell) is None
    assert len(seen) == 2 and aside.exists() and not path.exists() and not capsys.readouterr().err


def test_not_a_number_is_no_record(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        record.write(tmp_path, _record(value=float("nan")))


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        record.check_writable(tmp_path / "file" / "records")
    with pytest.raises(UserError, match="cannot be written"):
        record.write(tmp_path / "file", _record())


def test_a_run_that_begins_meanwhile_spoils_no_write(tmp_path, monkeypatch):
    replace, cleared = os.replace, []

    def begin_another(source, target):
        if not cleared:
            cleared.append(source)
            record.clear_partial(tmp_path)
        replace(source, target)

    monkeypatch.setattr(os, "replace", begin_another)
    path = record.write(tmp_path, _record())
    assert cleared and record.read(path).metrics == _record().metrics


def _method_file(tmp_path, name, body, doc="One."):
    text = f'''
from dataclasses import dataclass
from attnbench import Method, hookimpl

SCALE = 2

@dataclass
class Some(Method):
    """{doc}"""
    name = "some-{name}"
    examples = ("some-{name}",)

    def probs(self, probs, site):
        # a comment
        return {body}

@hookimpl
def register_methods(register):
    register(Some)
'''
    path = tmp_path / f"{name}.py"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_code_hash_ignores_words_and_sees_code(fresh_registry, tmp_path):
    def code(name, *arguments, **words):
        fresh_registry.load([_method_file(tmp_path, name, *arguments, **words)])
        return code_of(parse(f"some-{name}"))

    assert code("a", "probs * SCALE") != code("b", "probs * SCALE * SCALE")
    text = (
        (tmp_path / "a.py").read_text().replace("a comment", "another").replace("One.", "Two.\n\n    More.")
    )
    (tmp_path / "c.py").write_text(text.replace("some-a", "some-c"))
    fresh_registry.load([str(tmp_path / "c.py")])
    # the name is code too: compare with the same name written differently
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "c.py").write_text((tmp_path / "a.py").read_text().replace("some-a", "some-c"))
    first = code_of(parse("some-c"))
    fresh_registry._registry = None
    fresh_registry.load([str(tmp_path / "d" / "c.py")])
    assert code_of(parse("some-c")) == first


def test_code_beside_what_type_checkers_read_counts(fresh_registry, tmp_path):
    codes = []
    for scale in (2, 4):
        (tmp_path / str(scale)).mkdir()
        path = Path(_method_file(tmp_path / str(scale), "e", "probs * SCALE"))
        block = f"if TYPE_CHECKING:\n    from torch import Tensor\nelse:\n    SCALE = {scale}\n"
        text = path.read_text().replace("SCALE = 2\n", block)
        path.write_text(f"from typing import TYPE_CHECKING\n{text}")
        fresh_registry._registry = None
        fresh_registry.load([str(path)])
        codes.append(code_of(parse("some-e")))
    assert codes[0] != codes[1]


def test_what_the_roof_hands_out_is_found_without_importing_it():
    program = (
        "import sys; from attnbench.methods.code import _definer\n"
        "print(*[_definer('attnbench', name) for name in ('train', 'HardConcrete', 'kernels', 'Method')])\n"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [
        "attnbench.engine.learning.training",
        "attnbench.engine.learning.gates",
        "attnbench.engine.serving.kernels",
        "attnbench.methods.protocol",
    ]


PACKAGE = {
    "helpers.py": "SCALE = 2\n\ndef scaled(x):\n    return x * SCALE\n",
    "methods.py": """
from attnbench import Method, hookimpl

class Scale:
    factor = 3

class Packed(Method):
    name = "packed"

    def probs(self, probs, site):
        from packed_plugin.helpers import scaled

        return scaled(probs) * Scale.factor

@hookimpl
def register_methods(register):
    register(Packed)
""",
    "__init__.py": "",
}


@pytest.mark.parametrize("start", ["from packed_plugin.helpers", "from .helpers"])
@pytest.mark.parametrize(
    "file, old, new",
    [("helpers.py", "SCALE = 2", "SCALE = 4"), ("methods.py", "factor = 3", "factor = 5")],
)
def test_code_hash_covers_helpers(file, old, new, start, tmp_path, monkeypatch):
    import importlib

    from attnbench.methods import code

    def hashed(folder, texts):
        (folder / "packed_plugin").mkdir(parents=True)
        for name, text in texts.items():
            (folder / "packed_plugin" / name).write_text(text, encoding="utf-8")
        with monkeypatch.context() as patch:
            patch.syspath_prepend(str(folder))
            module = importlib.import_module("packed_plugin.methods")
            try:
                return code.code_of([module.Packed()])
            finally:
                for name in [name for name in sys.modules if name.startswith("packed_plugin")]:
                    del sys.modules[name]
                code._source.cache_clear()

    texts = {name: text.replace("from packed_plugin.helpers", start) for name, text in PACKAGE.items()}
    changed = texts | {file: texts[file].replace(old, new)}
    worded = texts | {file: "# words\n" + texts[file]}
    first = hashed(tmp_path / "a", texts)
    assert hashed(tmp_path / "b", worded) == first
    assert hashed(tmp_path / "c", changed) != first


def test_a_method_without_a_file_is_a_mistake(tmp_path):
    program = """
import attnbench
from attnbench import Method, plugins

class Mine(Method):
    name = "mine"

    def probs(self, probs, site):
        return probs * 0.5

plugins.registry()._add_method(Mine)
attnbench.run("bert", "mine", "pocket-sentiment", records="r", limit=4)
"""
    done = subprocess.run([sys.executable], input=program, cwd=tmp_path, capture_output=True, text=True)
    told = done.stderr.splitlines()[-1]
    assert told.startswith("attnbench.errors.UserError: the code of __main__ stands in no file")
    assert not (tmp_path / "r").exists()


def test_code_is_parsed_once():
    code_of(parse("heads50:gradient"))
    with pytest.MonkeyPatch.context() as patch:
        for name in ("parse", "unparse"):
            patch.setattr(ast, name, None)
        code_of(parse("heads80:gradient"))


def test_code_hash_covers_what_fits_are_made_of(monkeypatch):
    from attnbench.methods import code

    before = {spec: code_of(parse(spec)) for spec in ("prune80", "heads50:gradient", "gates:l0", "finetune5")}
    real = code._source

    def edited(module):
        return real(module) + ("X = 1" if module.startswith("attnbench.") else "")

    monkeypatch.setattr(code, "_source", edited)
    changed = [spec for spec in before if code_of(parse(spec)) != before[spec]]
    assert changed == ["heads50:gradient", "gates:l0", "finetune5"]


USES = {
    "by name": "from attnbench.engine.learning.training import train as learn",
    "from the roof": "from attnbench import train as learn",
    "by a module": "from attnbench import training\n\nlearn = training.train",
    "of the whole": "import attnbench\n\nlearn = attnbench.train",
    "in a function": (
        "def learn():\n    from attnbench.engine.learning.training import train\n\n    return train"
    ),
}


@pytest.mark.parametrize("use", USES)
def test_what_fits_are_made_of_counts_however_it_is_imported(use, fresh_registry, tmp_path, monkeypatch):
    import attnbench
    from attnbench.engine.learning import training
    from attnbench.methods import code

    monkeypatch.setattr(attnbench, "training", training, raising=False)
    path = tmp_path / "learns.py"
    path.write_text(
        f"from attnbench import Method, hookimpl\n{USES[use]}\n\n\nclass Learns(Method):\n"
        '    name = "learns"\n    probs = None\n\n\n@hookimpl\ndef register_methods(register):\n'
        "    register(Learns)\n"
    )
    fresh_registry.load([str(path)])
    methods = parse("learns")
    before, real = code_of(methods), code._source
    training_file = training.__name__
    monkeypatch.setattr(code, "_source", lambda name: real(name) + ("X = 1" if name == training_file else ""))
    assert code_of(methods) != before


def test_identity_is_the_same_wherever_code_lies(tmp_path):
    """Copy the package, move what fits are made of into a folder, import it from there and from the roof."""
    for name in ("attnbench", "plugins", "tasks"):
        target = tmp_path / (name if name == "attnbench" else f"attnbench_{name}")
        shutil.copytree(ROOT / name, target, ignore=shutil.ignore_patterns("__pycache__", "weights"))
    program = (
        "import attnbench; from attnbench.methods.code import code_of; from attnbench import parse\n"
        "from attnbench.backends.measurement import code_of as task_code\n"
        "from attnbench.backends.masked import MinimalPairs\n"
        f"assert attnbench.__file__.startswith({str(tmp_path)!r})\n"
        "for spec in ('prune80', 'heads50:gradient', 'heads50:probe', 'gates:l0', 'finetune5', 'mask50'):\n"
        "    print(spec, code_of(parse(spec)))\n"
        "print(hash(task_code(MinimalPairs)))"
    )

    def hashes():
        environment = {**os.environ, "PYTHONPATH": str(tmp_path), "PYTHONHASHSEED": "0"}
        command = [sys.executable, "-c", program]
        done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    before = hashes()
    (tmp_path / "attnbench" / "deeper").mkdir()
    (tmp_path / "attnbench" / "deeper" / "__init__.py").touch()
    for name in ("gates", "training"):
        shutil.move(
            tmp_path / "attnbench" / "engine" / "learning" / f"{name}.py",
            tmp_path / "attnbench" / "deeper" / f"{name}.py",
        )
    for file in tmp_path.rglob("*.py"):
        text = file.read_text(encoding="utf-8")
        for name in ("gates", "training"):
            text = text.replace(f"attnbench.engine.learning.{name}", f"attnbench.deeper.{name}")
        file.write_text(text, encoding="utf-8")
    user = tmp_path / "attnbench_plugins" / "finetune.py"
    text = user.read_text(encoding="utf-8")
    both = "from attnbench import own_weights, train"
    apart = f"from attnbench import train\n{' ' * 8}from attnbench.deeper.training import own_weights"
    assert both in text
    user.write_text(text.replace(both, apart), encoding="utf-8")
    assert hashes() == before


def test_identity_depends_on_each_part():
    base = {"cell": {"model": "m"}, "settings": {"limit": None}}
    assert record.identity(base) == record.identity(dict(reversed(base.items())))
    assert record.identity(base) != record.identity({**base, "settings": {"limit": 1}})
