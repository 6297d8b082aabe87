"""Plugins: built-ins, files, folders, entry points; a broken one harms nothing."""

from __future__ import annotations

import textwrap
from importlib import metadata

import pytest

from attnbench.errors import UserError

GOOD = """
from __future__ import annotations
from dataclasses import dataclass
from attnbench import Method, hookimpl

@dataclass
class Halve(Method):
    name = "{name}"
    examples = ("{name}2",)
    factor: float

    def probs(self, probs, site):
        return probs / self.factor

@hookimpl
def register_methods(register):
    register(Halve)
"""

MORE = """
class More(Halve):
    name = "more"

@hookimpl
def register_methods(register):
    register(Halve)
    register(More)
"""


def _write(folder, file, text):
    path = folder / file
    path.write_text(textwrap.dedent(text), encoding="utf-8")
    return str(path)


def test_a_file_brings_a_method(fresh_registry, tmp_path):
    from attnbench import parse

    fresh_registry.load([_write(tmp_path, "halve.py", GOOD.format(name="halve"))])
    (method,) = parse("halve2")
    assert type(method).__name__ == "Halve" and method.factor == 2


def test_a_folder_brings_every_file_but_private_ones(fresh_registry, tmp_path):
    _write(tmp_path, "one.py", GOOD.format(name="one"))
    _write(tmp_path, "two.py", GOOD.format(name="two"))
    _write(tmp_path, "_three.py", GOOD.format(name="three"))
    fresh_registry.load([], [str(tmp_path)])
    assert {"one", "two"} <= set(fresh_registry.registry().methods)
    assert "three" not in fresh_registry.registry().methods


BROKEN = {
    "import": ("import nothing_of_this_name", "ModuleNotFoundError"),
    "syntax": ("def (", "SyntaxError"),
    "hook": (
        GOOD.format(name="late").replace("register(Halve)", "register(Halve); 1 / 0"),
        "ZeroDivisionError",
    ),
    "name of a hook": (
        GOOD.format(name="typo").replace("def register_methods", "def register_method"),
        "register_method",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_plugin_is_named_and_the_rest_goes_on(case, fresh_registry, tmp_path, capsys):
    text, says = BROKEN[case]
    bad = _write(tmp_path, "bad.py", text)
    fresh_registry.load([bad, _write(tmp_path, "good.py", GOOD.format(name="good"))])
    said = capsys.readouterr().err
    assert bad in said and says in said
    known = fresh_registry.registry().methods
    assert "good" in known and "uniform" in known and "late" not in known


def test_a_name_registered_twice_names_both_places(fresh_registry, tmp_path, capsys):
    from attnbench import parse
    from attnbench.engine.applicable import require_sites

    first = _write(tmp_path, "first.py", GOOD.format(name="same"))
    second = _write(tmp_path, "second.py", GOOD.format(name="same") + "\n" + MORE)
    fresh_registry.load([first, second])
    said = capsys.readouterr().err
    assert "'same' is registered twice" in said and "first.py" in said and "second.py" in said
    known = fresh_registry.registry()
    assert known.contested["same"] in said and "first" in known.methods["same"].__module__
    assert "more" in known.methods  # what else the second file brings
    with pytest.raises(UserError, match="registered twice"):
        require_sites(None, parse("same2"))


def test_a_variant_may_not_be_a_field_too(fresh_registry, tmp_path):
    text = GOOD.format(name="fold:factor").replace("fold:factor2", "fold2:factor")
    with pytest.raises(UserError, match="both a variant and a field"):
        fresh_registry.load([_write(tmp_path, "clash.py", text)])


def test_a_badly_named_method_of_a_package_stops_nothing(fresh_registry, tmp_path, monkeypatch, capsys):
    from attnbench.cli.main import main

    bad = _write(tmp_path, "badly_named.py", GOOD.format(name="Bad3"))
    monkeypatch.syspath_prepend(str(tmp_path))
    entry = metadata.EntryPoint("badly", "badly_named", "attnbench")
    monkeypatch.setattr(metadata, "entry_points", lambda group: [entry] if group == "attnbench" else [])
    assert main(["methods"]) == 0
    out, err = capsys.readouterr()
    assert "prune80" in out and "Bad3" not in out
    assert err.count("\n") == 1 and "plugin badly (badly_named) is left out" in err and "'Bad3'" in err
    assert main(["methods", "--plugins-dir", str(tmp_path)]) == 0
    assert f"plugin {bad} is left out" in capsys.readouterr().err
    assert main(["methods", "--plugin", bad]) == 2


def test_a_badly_named_method_of_a_file_that_was_asked_for_stops(fresh_registry, tmp_path):
    with pytest.raises(UserError, match="'Bad3': lower-case letters"):
        fresh_registry.load([_write(tmp_path, "bad.py", GOOD.format(name="Bad3"))])


NO_METHODS = {
    "a class of another kind": ("Method):\n    name", "object):\n    name", "Halve in {path} is no method"),
    "an instance": ("register(Halve)", "register(Halve(2))", "Halve in {path}, an instance, is no method"),
    "a name that is no text": ('"halve"\n', 'b"halve"\n', "has the name 'b'halve''"),
    "the unmodified model": ('name = "halve"', 'name = "dense"', "dense is the unmodified model"),
    "a variant of it": ('name = "halve"', 'name = "dense:halve"', "dense is the unmodified model"),
    "a field that no spec can write": (
        "factor: float",
        "factor: float\n    sizes: list[int] = ()",
        "Halve.sizes is annotated list[int], which no spec can write",
    ),
    "a field whose name no spec can write": (
        "factor: float",
        "factor: float\n    Big: bool = False",
        "Halve.Big: no spec can write this name",
    ),
    "no dataclass": (
        "@dataclass\n",
        "",
        "Halve in {path} annotates factor but is no dataclass: put @dataclass above it",
    ),
    "examples without a comma": (
        '("halve2",)',
        '("halve2")',
        'Halve.examples is one text: write examples = ("halve2",)',
    ),
    "an example of another name": (
        '("halve2",)',
        '("halve2", "half2")',
        "Halve.examples: 'half2' is no spec of halve: one begins with halve",
    ),
    "an example of another variant": (
        'name = "halve"\n    examples = ("halve2",)',
        'name = "halve:row"\n    examples = ("halve2:row", "halve2")',
        "Halve.examples: 'halve2' is no spec of halve:row: one begins with halve and has :row",
    ),
}


@pytest.mark.parametrize("case", NO_METHODS)
def test_what_is_no_method_is_left_out(case, fresh_registry, tmp_path, capsys):
    from attnbench.cli.main import main

    old, new, says = NO_METHODS[case]
    text = GOOD.format(name="halve")
    assert old in text
    path = _write(tmp_path, "bad.py", text.replace(old, new))
    assert main(["methods", "--plugins-dir", str(tmp_path)]) == 0
    out, err = capsys.readouterr()
    assert "prune80" in out and "halve" not in out
    assert f"plugin {path} is left out" in err and says.format(path=path) in err and err.count("\n") == 1
    assert main(["methods", "--plugin", path]) == 2
    assert says.format(path=path) in capsys.readouterr().err


IDLE = {
    "nothing at all": ("", "end it with @hookimpl def register_methods(register): register(METHOD)"),
    "a class alone": (
        GOOD.format(name="halve").partition("@hookimpl")[0],
        "end it with @hookimpl def register_methods(register): register(Halve)",
    ),
    "a function that is no hook": (
        GOOD.format(name="halve").replace("@hookimpl\n", ""),
        "@hookimpl is missing above its def register_methods(register)",
    ),
    "a hook that registers nothing": (
        GOOD.format(name="halve").replace("register(Halve)", "pass"),
        "its hook never calls register(Halve)",
    ),
}


@pytest.mark.parametrize("case", IDLE)
def test_a_file_that_registers_nothing_is_told(case, fresh_registry, tmp_path, capsys):
    from attnbench.cli.main import main

    text, says = IDLE[case]
    path = _write(tmp_path, "idle.py", text)
    for _ in range(2):
        assert main(["methods", "--plugin", path]) == 2
        assert capsys.readouterr().err == f"attnbench: plugin {path} registers nothing: {says}\n"
    assert main(["methods", "--plugins-dir", str(tmp_path)]) == 0  # where a test may lie beside a method
    assert capsys.readouterr().err.count("registers nothing") == ("Halve" in text)


HOOKS = {
    "name": ("def register_methods", "def register_method", "Did you mean register_methods?"),
    "argument": ("register_methods(register)", "register_methods(reg)", "def register_methods(register)"),
    "arguments": ("methods(register)", "methods(self, register)", "its argument is register"),
}


@pytest.mark.parametrize("case", HOOKS)
def test_a_wrong_hook_is_one_line(case, fresh_registry, tmp_path, capsys):
    old, new, says = HOOKS[case]
    path = _write(tmp_path, "bad.py", GOOD.format(name="halve").replace(old, new))
    fresh_registry.load([path])
    told = capsys.readouterr().err
    assert told.startswith(f"attnbench: plugin {path} is left out: ") and told.count("\n") == 1
    assert says in told and "attnbench_plugin_" not in told


NEXT = {
    "methods halvee": "unknown method 'halvee'. Did you mean halve?",
    "run --models bert --methods halve": "the amount (factor) is missing, as in halve2",
    "run --models bert --methods halve2:on": "`attnbench methods halve --plugin 'my halve.py'` shows",
    "new-method halve": "`attnbench methods halve --plugin 'my halve.py'` shows",
    "methods zzzz": "A method of your own: --plugin FILE.py.",
}


@pytest.mark.parametrize("line", NEXT)
def test_a_next_command_names_the_file_that_a_method_is_from(
    line, fresh_registry, tmp_path, monkeypatch, capsys
):
    from attnbench.cli.main import main

    monkeypatch.chdir(tmp_path)
    _write(tmp_path, "my halve.py", GOOD.format(name="halve"))
    assert main([*line.split(), "--plugin", "my halve.py"]) == 2
    told = capsys.readouterr().err
    assert NEXT[line] in told and told.count("\n") == 1
    assert ("FILE.py" in told) == ("zzzz" in line)


def test_a_method_without_a_stage_is_checked_with_its_file(fresh_registry, tmp_path):
    from attnbench.engine.applicable import require_sites
    from attnbench.methods.spec import parse

    path = _write(tmp_path, "none.py", GOOD.format(name="none").replace("def probs", "def prob"))
    fresh_registry.load([path])
    with pytest.raises(TypeError, match=f"`attnbench check none2 --plugin {path}` says more"):
        require_sites(None, parse("none2"))


def test_a_method_without_examples_is_shown(fresh_registry, tmp_path, capsys):
    from attnbench.cli.main import main

    path = _write(tmp_path, "halve.py", GOOD.format(name="halve").replace('examples = ("halve2",)', ""))
    assert main(["methods", "halve", "--plugin", path]) == 0
    assert capsys.readouterr().out.startswith("halve    examples: none yet\n")


PATHS = {
    "--plugin halvee.py": "--plugin halvee.py: no such file. Did you mean halve.py?",
    "--plugin zzz.py": "--plugin zzz.py: no such file.",
    "--plugin sub/halv.py": "--plugin sub/halv.py: no such file. Did you mean sub/Halve.py?",
    "--plugin sub": "--plugin sub: is a folder: --plugins-dir sub",
    "--plugins-dir halve.py": "--plugins-dir halve.py: is a file: --plugin halve.py",
    "--plugins-dir sup": "plugins folder sup: no such folder. Did you mean sub?",
    "--plugin none/halve.py": "--plugin none/halve.py: no such file.",
}


@pytest.mark.parametrize("line", PATHS)
def test_a_wrong_path_is_told_with_the_near_one(line, fresh_registry, tmp_path, monkeypatch, capsys):
    from attnbench.cli.main import main

    monkeypatch.chdir(tmp_path)
    (tmp_path / "sub").mkdir()
    for name in ("halve.py", "halve.txt", "sub/Halve.py"):
        _write(tmp_path, name, "")
    assert main(["methods", *line.split()]) == 2
    assert capsys.readouterr().err == f"attnbench: {PATHS[line]}\n"


def test_files_whose_names_differ_in_punctuation_are_two(fresh_registry, tmp_path):
    from attnbench import parse
    from attnbench.methods.code import code_of

    (tmp_path / "sub").mkdir()
    files = [
        _write(tmp_path, file, GOOD.format(name=name))
        for file, name in (("a-b.py", "one"), ("a_b.py", "two"), ("a b.py", "three"), ("sub/x.py", "one"))
    ]
    fresh_registry.load(files[:3])
    assert {"one", "two", "three"} <= set(fresh_registry.registry().methods)
    first = parse("one2")
    # the same text elsewhere is the same code, under another module's name
    fresh_registry._registry = None
    fresh_registry.load(files[3:])
    again = parse("one2")
    assert type(again[0]).__module__ != type(first[0]).__module__
    assert code_of(again) == code_of(first)


def test_a_file_is_loaded_once_however_often_it_is_given(fresh_registry, tmp_path, monkeypatch, capsys):
    from attnbench.cli.main import main

    path = _write(tmp_path, "halve.py", GOOD.format(name="halve"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ATTNBENCH_PLUGINS_DIR", str(tmp_path))
    given = ["--plugin", "halve.py", "--plugin", "./halve.py", "--plugin", path, "--plugins-dir", "."]
    for _ in range(2):
        assert main(["methods", "halve", *given]) == 0
        out, err = capsys.readouterr()
        assert "halve2" in out and err == ""


BACKEND = """
from attnbench import hookimpl

def main(arguments):
    print("got", arguments)
    return 3

@hookimpl
def register_backends(register):
    register("mine", "my_backend")
    register("gone", "no_such_module")
    register("empty", "textwrap")
    register("run", "my_backend")
"""


def test_a_backend_is_a_command_line(fresh_registry, tmp_path, monkeypatch, capsys):
    from attnbench.cli.main import main

    _write(tmp_path, "my_backend.py", BACKEND)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("ATTNBENCH_PLUGINS_DIR", str(tmp_path))
    assert main(["mine", "--tasks", "a", "--", "b", "--version"]) == 3
    assert capsys.readouterr().out == "got ['--tasks', 'a', '--', 'b', '--version']\n"
    for name, reason in (("gone", "No module named 'no_such_module'"), ("empty", "no attribute 'main'")):
        assert main([name]) == 2
        said = capsys.readouterr().err
        assert f"backend '{name}' cannot be had" in said and reason in said
    assert main(["run"]) == 2  # is not taken over
    assert "no model" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "Hand over to mine: my_backend." in capsys.readouterr().out


@pytest.mark.parametrize("name", ["lm-eval", "lighteval"])
def test_what_lm_eval_and_lighteval_are_asked_comes_from_the_registry(name, monkeypatch):
    from attnbench.cli.main import main
    from attnbench.methods.plugins import registry

    monkeypatch.setattr(f"{registry().backends[name]}.main", lambda arguments: len(arguments))
    assert main([name, "--help", "a"]) == 2


def test_a_missing_path_is_an_error(fresh_registry, tmp_path):
    with pytest.raises(UserError, match="no such file"):
        fresh_registry.load([str(tmp_path / "none.py")])
    with pytest.raises(UserError, match="no such folder"):
        fresh_registry.load([], [str(tmp_path / "none")])


def test_entry_points_are_loaded_one_by_one(fresh_registry, tmp_path, monkeypatch, capsys):
    _write(tmp_path, "ep_good.py", GOOD.format(name="entry"))
    _write(tmp_path, "ep_bad.py", "raise RuntimeError('no luck')")
    monkeypatch.syspath_prepend(str(tmp_path))
    entries = [metadata.EntryPoint(name, name, "attnbench") for name in ("ep_bad", "ep_good")]
    monkeypatch.setattr(metadata, "entry_points", lambda group: entries if group == "attnbench" else [])
    assert "entry" in fresh_registry.registry().methods
    assert "ep_bad" in capsys.readouterr().err


def test_built_ins_come_through_the_same_hook():
    from attnbench.methods.plugins import builtin_modules, registry

    modules = set(builtin_modules())
    assert all(
        cls.__module__ in modules for cls in registry().methods.values() if "attnbench" in cls.__module__
    )
