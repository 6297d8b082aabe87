"""The kit finds planted faults: each faulty method fails exactly the checks that are about its fault."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from attnbench.errors import UserError

HERE = Path(__file__).parent
RUNS = {"runs"}
WHOLE = {"restored"}

# fault: architectures, checks that have to fail (all others pass), words of the report
CAUGHT = {
    "faulty-good": ("bert gpt2 bart", set(), ""),
    "faulty-sees-all-rows": ("bert gpt2 bart", set(), "faulty-sees-all-rows needs all query rows"),
    # with a cache there is no future to see
    "faulty-looks-ahead": ("gpt2", {"causal", "generation"}, "tokens after"),
    "faulty-looks-far-ahead": ("gpt2 t5", {"causal"}, "tokens after 64 change outputs up to 64"),
    "faulty-mixes-many-examples": ("bert gpt2 bart", {"batch"}, "in a batch padded on the"),
    "faulty-mixes-examples": ("bert gpt2 bart", {"batch"}, "in a batch padded on the"),
    "faulty-mixes-tokens": ("bert", {"batch"}, "in a batch padded on the"),
    "faulty-mixes-rows": ("bert", {"tiles"}, "in tiles of one query row"),
    "faulty-adds-the-last": ("bert gpt2", {"stateless"}, "the same sample after others"),
    "faulty-caps-by-the-first-ever": ("bert", {"stateless"}, "the first that its file ever sees: differs by"),
    "faulty-caps-by-its-first-sample": ("bert", {"batch", "tiles", "stateless"}, "sample 0 in a batch"),
    "faulty-caps-by-its-class": ("bert", {"stateless"}, "the first that its file ever sees: differs by"),
    "faulty-keeps-a-reference": ("bert", RUNS, "keeps a stage's tensor in .kept.0"),
    "faulty-keeps-its-context": ("bert", RUNS, "faulty-keeps-its-context.context's tensor is kept"),
    "faulty-keeps-for-everybody": ("bert", RUNS, "faulty-keeps-for-everybody.scores's tensor is kept"),
    "faulty-keeps-a-hidden-state": ("bert", {"stateless"}, "(encoder layer 1): its tensor is kept"),
    "faulty-keeps-an-array": ("bert", {"stateless"}, "its tensor is kept, or an array that shares"),
    "faulty-keeps-a-view": ("bert", {"stateless"}, "faulty-keeps-a-view.context at bert.encoder.layer.0"),
    "faulty-edits-a-weight": ("bert", WHOLE, "after fit: weight "),
    "faulty-freezes-the-model": ("bert", WHOLE, "after fit: requires_grad of "),
    "faulty-flushes-denormals": ("bert", WHOLE, "after fit: torch's denormal numbers changed"),
    "faulty-leaves-autocast": ("bert", WHOLE, "after fit: torch's autocast changed"),
    "faulty-counts-padding": ("bert gpt2 bart", {"rebatched"}, "same samples in other batches: differs"),
    "faulty-weighs-batches": ("bert gpt2 bart", {"rebatched"}, "same samples in other batches: differs"),
    "faulty-trains-by-batches": ("bert bart", set(), "trains with an optimizer"),
    "faulty-leaves-training-mode": ("bert", WHOLE, "after fit: training mode of the model"),
    "faulty-leaves-a-hook": ("bert", WHOLE, "after fit: forward hooks of the model"),
    "faulty-leaves-a-hook-on-all-modules": ("bert", WHOLE, "after fit: torch's global forward hooks changed"),
    "faulty-patches-a-function": ("bert gpt2", WHOLE, "after fit: function torch.nn.functional.gelu changed"),
    "faulty-patches-the-models-class": ("bert", WHOLE, "BertForSequenceClassification.forward changed"),
    "faulty-leaves-a-gradient": ("bert", WHOLE, "after fit: gradient of "),
    "faulty-reconfigures": ("bert", WHOLE, "after fit: configuration of the model"),
    "faulty-registers-attention": ("bert", WHOLE, "AttentionInterface"),
    "faulty-restores-only-on-success": ("bert", WHOLE, "after KeyboardInterrupt in fit: requires_grad"),
    "faulty-draws-unseeded": ("bert", {"deterministic"}, "a second method of the same spec"),
    "faulty-draws-by-the-shape": ("bert", {"batch", "tiles"}, "in a batch padded on the"),
    "faulty-draws-when-made": ("bert", {"deterministic"}, "a second method of the same spec"),
    "faulty-sets-the-seed-when-made": ("bert", {"deterministic"}, "sets the seed of torch"),
    "faulty-sets-the-seed": ("bert", {"deterministic"}, "sets the seed of torch, which is everybody's"),
    "faulty-hashes-a-string": ("bert", {"deterministic"}, "faulty.py:"),
    "faulty-hashes-a-string-in-fit": ("bert", {"deterministic"}, "would get another hash()"),
    "faulty-hashes-numbers": ("bert", set(), ""),
    "faulty-ignores-its-seed": ("bert gpt2", {"seeds"}, "seeds of faulty-ignores-its-seed change nothing"),
    "faulty-ignores-its-seed-in-fit": ("bert", {"seeds"}, "change nothing"),
    "faulty-acts-everywhere": ("bert", {"sites"}, "layers=0 faulty-acts-everywhere selects encoder layer 1"),
    "faulty-forgets-its-layers": ("bert", {"sites"}, "with layers=0 faulty-forgets-its-layers selects"),
    "faulty-realizes-nothing": ("bert bart", {"realized"}, "what `realize` computes: differs by"),
    "faulty-realizes-for-good": ("bert", {"realized"}, "after `realize`: weight bert.encoder.layer.0."),
    "faulty-fits-without-underscore": ("bert", RUNS, "ends in an underscore, where what it learned belongs"),
    "faulty-fits-on-and-on": ("bert", {"deterministic"}, "the same method fitted again"),
    "faulty-learns-infinity": ("bert", {"recorded"}, "ValueError: cut_ is inf"),
    "faulty-learns-an-object": ("bert", {"recorded"}, "TypeError: order_.layers is a set"),
    "faulty-makes-nan": ("bert", {"finite"}, "faulty-makes-nan.probs at bert.encoder.layer.1"),
    "faulty-makes-nan-late": ("gpt2", {"generation", "tiles"}, "with a cache: differs by inf"),
    "faulty-makes-nan-far-out": ("bert gpt2", {"finite"}, "float32, at 512 tokens: faulty-makes-nan-far"),
    "faulty-overflows-in-float-sixteen": ("bert", {"finite"}, "float16, at 12 tokens: faulty-overflows-in"),
    "faulty-acts-in-single-precision": ("bert gpt2 t5", {"dtypes"}, "in bfloat16, by "),
    "faulty-overflows-in-half": ("bert", {"finite"}, "bfloat16, at 12 tokens: "),
    "faulty-returns-another-shape": ("bert gpt2", RUNS, "returned shape (2, 1, 12, 12) for (2, 4, 12, 12)"),
    "faulty-returns-another-dtype": ("bert", RUNS, "returned torch.float64 for torch.float32"),
    "faulty-returns-nothing": ("bert", RUNS, "returned NoneType, not a tensor"),
    "faulty-raises-in-a-stage": ("bert", RUNS, "KeyError: 'layer one' (faulty-raises-in-a-stage."),
    "faulty-exits-in-a-stage": ("bert", RUNS, "SystemExit: 0 (faulty-exits-in-a-stage.probs at bert."),
    "faulty-exits-in-fit": ("bert", RUNS, "SystemExit: 3 (faulty-exits-in-fit.fit)"),
    "faulty-moves-its-site": ("bert", RUNS, "cannot assign to field 'kind' (faulty-moves-its-site.hidden"),
    "faulty-refuses-in-a-stage": ("bert", RUNS, "no such stage"),
    "faulty-refuses-in-fit": ("bert", RUNS, "no such fit"),
    "faulty-raises-in-fit": ("bert", RUNS, "ZeroDivisionError: no heads"),
    "faulty-edits-in-place": ("bert", {"gradients"}, "in place although it requires a gradient"),
    "faulty-edits-its-data": ("bert", {"gradients"}, "in place although it requires a gradient"),
    "faulty-is-another-function-under-autograd": ("bert", {"gradients"}, "outputs with gradients enabled"),
    "faulty-knows-no-cache": ("gpt2 bart", {"generation", "tiles"}, "with a cache: differs"),
    "faulty-knows-no-window": ("llama", {"generation"}, "with a sliding window's cache: differs"),
    "faulty-drops-a-site": ("bert", {"sites"}, "(encoder layer 1) was never called"),
    "faulty-changes-nothing": ("bert gpt2", {"effect"}, "changes nothing"),
    "faulty-misspells-its-stage": ("bert", {"stages", "runs"}, "'prob' looks like probs"),
    "faulty-has-no-link": ("bert", {"docstring"}, "no link"),
    "faulty-describes-itself": ("bert", {"docstring"}, "begins with 'this'"),
    "faulty-changes-its-amount50": ("bert", {"spec"}, "reads back as"),
    "faulty-has-no-example": ("bert", {"spec"}, "has no `examples`"),
    "faulty-acts-at-zero50": ("bert", {"zero"}, "faulty-acts-at-zero0: differs by"),
    "faulty-mixes-keys": ("gpt2", {"causal", "generation"}, "tokens after"),
    "faulty-keeps-a-prompt": ("gpt2", RUNS, "faulty-keeps-a-prompt.cache's tensor is kept"),
    "faulty-cuts-by-its-first-prompt": ("gpt2", {"batch", "stateless"}, "first that its file ever sees"),
    "faulty-cuts-by-the-length-of-a-pass": (
        "gpt2", {"batch", "caches", "generation"}, "read in 2 pieces on a DynamicCache",
    ),
    "faulty-grows-denser80": ("bert", {"growth"}, "sparsity "),
}  # fmt: skip


@pytest.fixture(scope="module")
def faults():
    """The faulty methods, for this module only."""
    from transformers import AttentionInterface

    from attnbench.methods import plugins

    before = plugins._registry
    plugins._registry = None
    plugins.load([str(HERE / "faulty.py")])
    yield plugins.registry()
    plugins._registry = before
    for name in [name for name in AttentionInterface._global_mapping if name.startswith("faulty-")]:
        del AttentionInterface._global_mapping[name]


def test_the_table_has_every_faulty_method(faults):
    from attnbench.conformance.kit import expand

    named = {name for name in faults.methods if name.startswith("faulty-")}
    examples = {example for name in named for example in expand(name)}
    assert examples == set(CAUGHT)


@pytest.mark.parametrize("spec", CAUGHT)
def test_exactly_the_checks_about_a_fault_fail(spec, faults):
    from attnbench.testing import check_method

    families, failing, words = CAUGHT[spec]
    report = check_method(spec, families=families.split())
    assert set(report.failed) == failing, str(report)
    assert words in str(report)


def test_torch_at_the_top_of_a_plugin_is_found(fresh_registry, tmp_path):
    from attnbench.testing import check_method

    text = (HERE / "faulty.py").read_text(encoding="utf-8")
    heavy = tmp_path / "heavy.py"
    heavy.write_text(text.replace("from dataclasses", "import torch\nfrom dataclasses"), encoding="utf-8")
    fresh_registry.load([str(heavy)])
    report = check_method("faulty-good", families=["bert"])
    assert report.failed == ("imports",) and "heavy.py imports torch at its top" in str(report)


SCRIPT = """
from attnbench import Method
from attnbench.testing import check_method

class Own(Method):
    name = "own"

    def probs(self, probs, site):
        return probs * 0.5

print(check_method(Own(), families=["bert"]))
"""


def test_a_script_may_check_its_own_class(tmp_path):
    (tmp_path / "own.py").write_text(SCRIPT, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "own.py"], cwd=tmp_path, capture_output=True, text=True, timeout=300,
        env={**os.environ, "PYTHONPATH": str(HERE.parents[1])},
    )  # fmt: skip
    assert done.stdout.count("stateless") == 1 and "Own is no registered plugin's" in done.stdout, done.stderr


def test_a_method_that_applies_nowhere_fails(faults):
    from attnbench.testing import check_method

    report = check_method("faulty-edits-in-place:on=cross", families=["bert", "gpt2"])
    assert report.failed == ("runs",) and "applies to none" in str(report)


def test_dense_has_nothing_to_check(faults):
    from attnbench.testing import check_method

    with pytest.raises(UserError, match="nothing to check"):
        check_method("dense")


# a cell of the matrix: status, words of its error, share of sites hit
CELLS = {
    "faulty-good": ("measured", "", 2),
    "faulty-changes-nothing": ("measured", "", 2),
    "faulty-misspells-its-stage": ("failed", "overrides no stage", 0),
    "faulty-drops-a-site": ("failed", "ran at 1 of 2 sites", 1),
    "faulty-returns-another-shape": ("failed", "faulty-returns-another-shape.probs at bert.", 0),
    "faulty-returns-another-dtype": ("failed", "faulty-returns-another-dtype.scores at bert.", 0),
    "faulty-returns-nothing": ("failed", "faulty-returns-nothing.context at bert.", 0),
    "faulty-edits-a-weight": ("failed", "not restored: weight bert.", 2),
    "faulty-leaves-a-hook": ("failed", "not restored: forward hooks of the model changed", 2),
    "faulty-leaves-training-mode": ("failed", "not restored: training mode of the model changed and", 0),
    "faulty-patches-the-models-class": (
        "failed", "not restored: class attribute BertForSequenceClassification.forward changed", 2,
    ),
    "faulty-patches-a-function": ("failed", "not restored: function torch.nn.functional.gelu changed", 2),
    "faulty-leaves-a-hook-on-all-modules": ("failed", "not restored: torch's global forward hooks", 2),
    "faulty-exits-in-a-stage": ("failed", "SystemExit: 0 (faulty-exits-in-a-stage.probs at bert.enc", 0),
    "faulty-exits-in-fit": ("failed", "SystemExit: 3 (faulty-exits-in-fit.fit)", 0),
    "faulty-fits-without-underscore": ("failed", "what it learned belongs; it set mean", 0),
    "faulty-learns-infinity": ("failed", "ValueError: cut_ is inf: a record holds finite numbers", 2),
    "faulty-learns-an-object": ("failed", "TypeError: order_.layers is a set: a record holds", 2),
    "faulty-makes-nan": ("failed", "faulty-makes-nan.probs at bert.encoder.layer.1", 0),
    "faulty-raises-in-a-stage": ("failed", "faulty-raises-in-a-stage.probs at bert.encoder.layer.1", 0),
    "faulty-raises-in-fit": ("failed", "no heads (faulty-raises-in-fit.fit)", 0),
    "faulty-moves-its-site": ("failed", "cannot assign to field 'kind' (faulty-moves-its-site.", 0),
    "faulty-refuses-in-a-stage": ("failed", "no such stage (faulty-refuses-in-a-stage.scores at bert.enc", 0),
    "faulty-refuses-in-fit": ("failed", "no such fit (faulty-refuses-in-fit.fit)", 0),
    "twice": ("failed", "method 'twice' is registered twice: Twice in ", 0),
    "faulty-keeps-a-reference": ("failed", "keeps a stage's tensor", 0),
    "faulty-edits-in-place+heads50:gradient": ("failed", "faulty-edits-in-place.probs at bert.", 0),
    "prune80": ("measured", "", 2),
}  # fmt: skip


TWICE = """
from attnbench import Method, hookimpl

class Twice(Method):
    name = "twice"

    def probs(self, probs, site):
        return probs * 0.5

@hookimpl
def register_methods(register):
    register(Twice)
"""


def test_a_faulty_method_fails_its_own_cell_alone(faults, tiny_folder, tmp_path, capsys):
    import attnbench
    from attnbench.methods import plugins

    for name in ("first", "second"):
        (tmp_path / f"{name}.py").write_text(TWICE, encoding="utf-8")
    plugins.load([str(tmp_path / "first.py"), str(tmp_path / "second.py")])
    said = capsys.readouterr().err
    assert "first.py" in said and "second.py" in said

    result = attnbench.run(tiny_folder, list(CELLS), "pocket-sentiment", limit=16, records=str(tmp_path))
    found = {record.cell["method"]: record for record in result.records}
    for spec, (status, words, hit) in CELLS.items():
        record = found[spec]
        assert (record.status, record.receipt.get("sites_hit", 0)) == (status, hit), (spec, record.error)
        assert words in (record.error or "") and bool(record.error) == (status == "failed"), record.error
    assert found["faulty-changes-nothing"].receipt["effect"] == "no effect"
    assert found["faulty-good"].receipt["effect"] == found["prune80"].receipt["effect"] == "applied"
    # what the faults left behind changes no other cell
    alone = attnbench.run(
        tiny_folder, ["prune80"], "pocket-sentiment", limit=16, records=str(tmp_path / "alone")
    )
    by_method = {record.cell["method"]: record.metrics for record in alone.records}
    assert by_method["prune80"] == found["prune80"].metrics and by_method["dense"] == found["dense"].metrics


def test_nan_in_generated_text_fails_its_cell_alone(faults, tmp_path):
    import attnbench

    specs = ["faulty-makes-nan-late", "prune80"]
    result = attnbench.run("marian", specs, "pocket-translation", limit=6, records=str(tmp_path))
    found = {record.cell["method"]: record for record in result.records}
    words = (
        "faulty-makes-nan-late at model.decoder.layers.0.self_attn (decoder layer 0) made values that are not"
    )
    assert words in found["faulty-makes-nan-late"].error and found["prune80"].status == "measured"


def test_a_plugin_that_exits_is_left_out(fresh_registry, tmp_path, capsys):
    (tmp_path / "leaves.py").write_text("raise SystemExit(0)", encoding="utf-8")
    fresh_registry.load([str(tmp_path / "leaves.py")])
    assert "leaves.py is left out: SystemExit: 0" in capsys.readouterr().err
