"""What outsiders may use: it is listed, lazy, documented and enough for every kind of method."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import attnbench
from attnbench.cli.main import main

ROOT = Path(attnbench.__file__).parent.parent
OUTSIDE = Path(__file__).parent / "outside"
PUBLIC = [
    "HardConcrete", "Heads", "Kept", "Method", "NotApplicable", "Prompt", "Removal", "Site", "Study",
    "UserError", "View", "apply", "attention", "by_head", "checkpoint", "contributions", "discover",
    "expand", "final_gate", "format", "head_sensitivity", "hookimpl", "importance", "kernels",
    "layer_of", "look", "openness", "own_weights", "parse", "plugins", "probing", "prompts",
    "rank_agreement", "realize", "relevance", "run", "sidecar", "sites", "testing", "top_logit",
    "train", "transform", "watch", "with_weights", "without_heads",
]  # fmt: skip
HEAVY = ("torch", "transformers", "datasets", "lm_eval", "pandas")


def _generator():
    spec = importlib.util.spec_from_file_location("surface", ROOT / "docs" / "surface.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_what_is_public_is_one_list():
    assert sorted(attnbench.__all__) == PUBLIC
    assert [name for name in dir(attnbench) if not name.startswith("__")] == PUBLIC
    assert {"__all__", "__doc__", "__version__"} <= set(dir(attnbench))
    space: dict[str, object] = {}
    exec("from attnbench import *", space)
    assert set(PUBLIC) <= set(space)


@pytest.mark.parametrize("name", PUBLIC)
def test_a_name_is_what_it_says(name):
    thing = getattr(attnbench, name)
    assert (inspect.getdoc(thing) or "").strip()
    where, _, inner = attnbench._PUBLIC[name].partition(":")
    assert inner == name or (not inner and where.endswith(f".{name}"))
    home = importlib.import_module(where)
    assert thing is (vars(home)[name] if inner else home)
    if inspect.isclass(thing) or inspect.isfunction(thing):
        assert thing.__module__ == where  # where it is defined, not where it is passed on
    for each in thing.__all__ if inspect.ismodule(thing) else ():
        assert (inspect.getdoc(getattr(thing, each)) or "").strip()


def test_type_checkers_are_told_the_same():
    tree = ast.parse(Path(attnbench.__file__).read_text(encoding="utf-8"))
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    told = {}
    for node in block.body:
        for alias in node.names:
            assert alias.asname == alias.name  # what is passed on for others to import
            told[alias.name] = (node.module, alias.name)
    for name, (where, inner) in told.items():
        assert attnbench._PUBLIC[name] in (f"{where}:{inner}", f"{where}.{inner}")
    assert sorted(told) == PUBLIC


def test_a_look_at_it_imports_nothing_heavy():
    program = (
        "import sys, attnbench; dir(attnbench); attnbench.__all__; attnbench.hookimpl, attnbench.Heads\n"
        "from attnbench import HardConcrete, Method, NotApplicable, Site, kernels, parse\n"
        f"print([name for name in {HEAVY} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


WRONG = {
    "aply": "module 'attnbench' has no attribute 'aply'. Did you mean apply?",
    "Sites": "module 'attnbench' has no attribute 'Sites'. Did you mean sites or Site?",
    "zzz": "module 'attnbench' has no attribute 'zzz'.",
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_name_is_answered_by_the_near_one(name):
    with pytest.raises(AttributeError) as caught:
        getattr(attnbench, name)
    assert str(caught.value) == WRONG[name]
    assert not hasattr(attnbench, name)


def test_python_adds_no_second_suggestion():
    done = subprocess.run(
        [sys.executable, "-c", "import attnbench; attnbench.aply"], capture_output=True, text=True
    )
    assert done.stderr.splitlines()[-1] == f"AttributeError: {WRONG['aply']}"


def test_a_plugin_with_a_wrong_name_is_told_the_near_one(fresh_registry, tmp_path, capsys):
    path = tmp_path / "wrong.py"
    path.write_text("from attnbench import Method, hookimp\n", encoding="utf-8")
    fresh_registry.load([str(path)])
    assert "cannot import name 'hookimp' from 'attnbench'. Did you mean hookimpl?" in capsys.readouterr().err


def test_the_document_is_up_to_date():
    generator = _generator()
    grouped = [name for names in generator.GROUPS.values() for name in names]
    assert sorted(grouped) == PUBLIC
    text = generator.DOCUMENT.read_text(encoding="utf-8")
    assert text.partition(generator.MARK)[2] == generator.render(), "run: python docs/surface.py"


def test_the_document_has_the_signatures_that_inspect_tells():
    text = (ROOT / "docs" / "plugins.md").read_text(encoding="utf-8")
    for name in PUBLIC:
        thing = getattr(attnbench, name)
        if inspect.isfunction(thing):
            (shown,) = re.findall(rf"^\* `(?:with )?{name}(\(.*)`<br>$", text, re.M)
            told = str(inspect.signature(thing))
            assert re.sub("['\"]", "", shown) == re.sub("['\"]", "", told)


KINDS = {  # file -> its specs
    "cache": ("seen50",),
    "transform": ("crop0.2",),
    "calibrated": ("peak0.1",),
    "criterion": ("heads50:reach", "heads50:slope", "heads50:carried"),
    "trained": ("warm5", "retouch5", "closed30"),
    "realised": ("first-heads2",),
}


STUDY = "study"  # its file


def test_every_kind_is_there_and_imports_attnbench_alone():
    assert {path.stem for path in OUTSIDE.glob("*.py")} == {*KINDS, STUDY}
    ours = {"attnbench", "torch", "__future__", "typing", "dataclasses", "contextlib"}
    text = (ROOT / "docs" / "plugins.md").read_text(encoding="utf-8")
    used = set()
    for kind in (*KINDS, STUDY):
        assert f"(../tests/plugins/outside/{kind}.py)" in text
        for node in ast.walk(ast.parse((OUTSIDE / f"{kind}.py").read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                assert node.module in ours and not node.level
                used |= {alias.name for alias in node.names if node.module == "attnbench"}
            elif isinstance(node, ast.Import):
                assert {alias.name for alias in node.names} <= ours
    wanted = set()
    for path in (ROOT / "plugins").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module == "attnbench":
                wanted |= {alias.name for alias in node.names}
    assert wanted <= used  # what the built-ins need, an outsider has used here


@pytest.fixture
def plugin(fresh_registry, tmp_path):
    """Copy a file out of the checkout."""

    def copied(kind):
        return shutil.copy(OUTSIDE / f"{kind}.py", tmp_path / f"{kind}.py")

    return copied


@pytest.mark.parametrize("kind", KINDS)
def test_it_keeps_its_promises(kind, plugin, capsys):
    from attnbench.testing import check_method

    attnbench.plugins.load([plugin(kind)])
    for spec in KINDS[kind]:
        families = ("bert", "bart") if spec == KINDS[kind][0] else ("bert",)
        report = check_method(spec, families=("gpt2", "llama") if kind == "cache" else families)
        assert report.ok, str(report)


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_measured(kind, plugin, tmp_path, capsys):
    methods, records = ",".join(KINDS[kind]), tmp_path / "records"
    model, task = ("gpt", "pocket-perplexity@prompt8") if kind == "cache" else ("bert", "pocket-sentiment")
    arguments = ["--models", model, "--tasks", task, "--methods", methods, "--limit", "8"]
    arguments += ["--repeats", "1"]
    assert main(["run", *arguments, "--plugin", str(plugin(kind)), "--records", str(records)]) == 0
    capsys.readouterr()
    cells = [json.loads(path.read_text(encoding="utf-8")) for path in records.rglob("*.json")]
    found = {each["cell"]["method"].partition(":seed=")[0]: each for each in cells}
    assert set(KINDS[kind]) <= set(found)
    for spec in KINDS[kind]:
        assert found[spec]["status"] == "measured", found[spec]["error"]
        receipt = found[spec]["receipt"]
        assert receipt["sites_hit"] == receipt["sites_expected"]
        assert bool(receipt["sites_hit"]) == (spec != "retouch5")  # it changes weights, no attention
        assert bool(found[spec]["fitted"]) == (kind not in ("cache", "transform", "realised"))


@pytest.mark.parametrize(("kind", "spec"), [("realised", "first-heads2"), ("criterion", "heads50:reach")])
def test_it_is_realised(kind, spec, plugin):
    import torch
    from tiny_models import tiny

    attnbench.plugins.load([plugin(kind)])
    model = tiny("bert")
    batch = {
        "input_ids": torch.arange(2, 14).view(2, 6),
        "attention_mask": torch.ones(2, 6, dtype=torch.long),
    }
    (method,) = attnbench.parse(spec)
    method.fit(model, [batch])
    heads = [site.heads for site in attnbench.discover(model)]
    with torch.no_grad():
        with attnbench.apply(model, method):
            masked = model(**batch)[0]
        with attnbench.realize(model, method):
            left = [site.heads for site in attnbench.discover(model)]
            torch.testing.assert_close(model(**batch)[0], masked, atol=1e-5, rtol=1e-5)
    assert sum(left) == sum(heads) // 2
    assert [site.heads for site in attnbench.discover(model)] == heads


def _kept(folder):
    return ["--output", str(folder / "out"), "--records", str(folder / "records")]


def test_a_study_from_outside_keeps_its_promises_and_is_looked_with(plugin, tmp_path, capsys):
    import torch
    from tiny_models import padded, tiny

    path = str(plugin(STUDY))
    assert main(["check", "distance", "--plugin", path]) == 0
    asked = ["look", "--models", "bert", "--text", "a good day", "--studies", "distance"]
    for _ in range(2):  # measured, and from its record
        assert main([*asked, "--methods", "prune80", "--plugin", path, *_kept(tmp_path)]) == 0
        assert "dense, prune80" in capsys.readouterr().out
    model = tiny("bert")
    batch = {name: each[-1:] for name, each in padded(model).items()}
    found = attnbench.look(model, batch, studies="distance").tables["distance"]["heads"]
    model.set_attn_implementation("eager")
    with torch.no_grad():
        weights = model(**batch, output_attentions=True).attentions[1][0]
    shown = batch["attention_mask"][0].bool()
    rows = [
        sum(float(weights[2, q, k]) * abs(q - k) for k in shown.nonzero().flatten().tolist())
        for q in shown.nonzero().flatten().tolist()
    ]
    assert found.loc[("dense", "encoder", 1, 2), "distance"] == pytest.approx(sum(rows) / len(rows), abs=1e-4)


def test_heads_by_a_criterion_from_outside(plugin, tmp_path, capsys):
    arguments = ["heads", "--models", "bert", "--tasks", "pocket-sentiment", "--limit", "8", "--by", "reach"]
    assert main([*arguments, "--plugin", str(plugin("criterion")), *_kept(tmp_path)]) == 0
    assert "reach" in capsys.readouterr().out


def test_a_typo_is_found_by_a_type_checker(tmp_path):
    for name, folder in (("attnbench", "attnbench"), ("attnbench_plugins", "plugins")):
        (tmp_path / name).symlink_to(ROOT / folder)
    (tmp_path / "mypy.ini").write_text(
        "[mypy]\nfollow_imports = skip\n[mypy-attnbench.*,attnbench_plugins.*]\nfollow_imports = silent\n"
    )
    program = tmp_path / "uses.py"
    program.write_text("import attnbench\n\nattnbench.aply\nreveal_type(attnbench.Heads)\n", encoding="utf-8")
    command = [sys.executable, "-m", "mypy", "--strict", str(program)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert 'Module has no attribute "aply"' in done.stdout
    assert "percent" in done.stdout and "attnbench_plugins.heads.Heads" in done.stdout
