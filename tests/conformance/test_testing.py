"""The kit on the built-in methods, its report, and what `attnbench methods NAME` tells from a class."""

from __future__ import annotations

import math
import re

import pytest

from attnbench.cli import main
from attnbench.conformance.kit import expand
from attnbench.conformance.report import summary
from attnbench.errors import PARAGRAPH
from attnbench.methods import spec
from attnbench.methods.describe import describe
from attnbench.methods.plugins import registry
from attnbench.testing import Outcome, Report, check_method

BUILT_IN = [example for cls in registry().methods.values() for example in cls.examples]
ARCHITECTURES = ("bert", "gpt2", "llama", "t5", "bart")


@pytest.mark.parametrize(
    "example", sorted(dict.fromkeys(cls.examples[0] for cls in registry().methods.values()))
)
def test_a_built_in_method_keeps_its_promises(example):
    report = check_method(example)
    assert report.ok, str(report)
    ran = {outcome.where for outcome in report.outcomes if outcome.check == "runs" and outcome.status == "ok"}
    assert ran <= set(ARCHITECTURES) and ran, str(report)


def test_a_composition_is_fitted_in_order():
    report = check_method("prune50:on=decoder+heads50:random+logquant3", families=["bert", "t5"])
    assert report.ok, str(report)
    assert "no attention at on=decoder" in str(report)


def test_a_mask_that_leaves_queries_without_keys_still_hides_more_with_more():
    report = check_method("mask90", families=["gpt2"])
    assert report.ok, str(report)


@pytest.mark.parametrize("name", ["bert", "gpt2", "llama", "t5", "bart"])
def test_the_tiny_models_attend_neither_flat_nor_hard(name):
    import torch

    from attnbench import watch
    from attnbench.conformance import tiny

    found: dict[tuple[str, int], list[float]] = {}

    def see(probs, site):
        last = probs[:, :, -1]  # the last query of a causal site sees all keys
        entropy = torch.special.entr(last).sum(-1) / math.log(last.shape[-1])
        found.setdefault((site.kind, site.layer), []).append(float(entropy.mean()))

    model = tiny.build(name)
    with torch.no_grad(), watch(model, probs=see):
        tiny.outputs(model, tiny.batch(name, tiny.samples(name, (12,) * 8)))
    means = [sum(values) / len(values) for values in found.values()]
    assert len(means) == (6 if tiny.FAMILIES[name].seq2seq else 2)
    assert all(0.3 < mean < 0.85 for mean in means)


def test_a_tiny_model_is_the_same_every_time():
    import torch

    from attnbench.conformance import tiny

    state = torch.random.get_rng_state()
    first, second = tiny.build("t5"), tiny.build("t5")
    assert torch.equal(state, torch.random.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    next(first.parameters()).data.zero_()
    assert next(tiny.build("t5").parameters()).abs().sum() > 0


def test_the_report_prints_one_line_a_check():
    report = Report(
        "some80",
        [
            Outcome("spec", "", "ok", "some80"),
            Outcome("causal", "bert", "n/a", "sees both ways"),
            Outcome("causal", "gpt2", "ok", "bit-equal"),
            Outcome("causal", "llama", "ok", "bit-equal"),
            Outcome("batch", "bert", "ok", "0"),
            Outcome("batch", "gpt2", "FAILED", "sample 3: differs by 0.2"),
            Outcome("zero", "bert", "n/a", "declares no `zero`"),
        ],
    )
    assert not report.ok and report.failed == ("batch",)
    assert str(report).splitlines() == [
        "some80: FAILED batch",
        "  ok      spec           some80",
        "  ok      causal         gpt2, llama: bit-equal; n/a: bert: sees both ways",
        "  FAILED  batch          gpt2: sample 3: differs by 0.2",
        "  n/a     zero           bert: declares no `zero`",
    ]


def test_an_effect_at_one_architecture_is_enough():
    outcomes = [Outcome("effect", "bert", "FAILED", "changes nothing"), Outcome("effect", "t5", "ok", "9%")]
    assert Report("heads10:random", outcomes).ok
    assert not Report("heads10:random", outcomes[:1]).ok


def test_a_name_alone_is_checked_by_its_examples():
    assert expand("prune:random") == list(registry().methods["prune:random"].examples)
    assert set(expand("logquant")) == {example for example in BUILT_IN if example.startswith("logquant")}
    assert expand("prune80+logquant3") == ["prune80+logquant3"]


def test_declared_amounts_are_checked(fresh_registry, tmp_path):
    file = tmp_path / "declared.py"
    file.write_text(DECLARED, encoding="utf-8")
    fresh_registry.load([str(file)])
    report = check_method("declared80", families=["bert", "gpt2"])
    assert report.ok, str(report)
    assert "declared0: 0" in str(report)
    shares = [float(share) for share in re.findall(r"(\d+)% at (?:20|40|80)", str(report))]
    assert shares[:3] == sorted(shares[:3]) and shares[0] < shares[2]
    shown = describe("declared")
    assert "at percent 0 it changes nothing" in shown and "sparsity grows with the amount" in shown


DECLARED = '''
from __future__ import annotations
from dataclasses import dataclass
from attnbench import Method, hookimpl

@dataclass
class Declared(Method):
    """Zero what is small.

    Source: https://example.org.
    """
    name, examples = "declared", ("declared80",)
    zero, grows = 0, "sparsity"
    percent: float

    def probs(self, probs, site):
        return probs * (probs >= self.percent / 400)

@hookimpl
def register_methods(register):
    register(Declared)
'''


def test_the_command_says_what_failed_and_exits_with_1(fresh_registry, tmp_path, capsys):
    file = tmp_path / "declared.py"
    file.write_text(DECLARED.replace("https://example.org", "unknown"), encoding="utf-8")
    assert main.main(["check", "declared", "--plugin", str(file)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "declared80: FAILED docstring"
    assert [line for line in lines if line.endswith(": FAILED")] == ["docstring: FAILED"]
    assert main.main(["check", "prune8o"]) == 2


LEVELS = {
    # function 7 by hand: log2 from 0.001 to 1 in 2^b - 1 bins, their middles
    "logquant3": [0.0, *(0.001 * 1000 ** ((k + 0.5) / 7) for k in range(7))],
    "linquant3": [k / 7 for k in range(8)],
    "linquant3:mid": [0.0, *((k + 0.5) / 8 for k in range(1, 8))],
}


@pytest.mark.parametrize("example", LEVELS)
def test_the_levels_of_a_quantiser_are_shown(example):
    name = type(spec.parse(example)[0]).name
    shown = " ".join(describe(name).split())
    (listed,) = re.findall(rf"levels {re.escape(example)}: ((?:[-.e\d]+(?:, )?)+)", shown)
    assert [float(level) for level in listed.split(", ")] == pytest.approx(LEVELS[example], rel=1e-3)


@pytest.mark.parametrize("name", sorted(registry().methods))
def test_every_method_is_described_from_its_class(name):
    shown, cls = describe(name), registry().methods[name]
    assert shown.startswith(name) and all(example in shown.split("\n\n")[0] for example in cls.examples)
    assert re.search(r"^source   .*https://|^source   .*\n +.*https://", shown, re.M), shown
    for label in ("formula", "stages", "defined", "fields"):
        assert re.search(rf"^{label}", shown, re.M), label
    assert max(map(len, shown.splitlines())) <= PARAGRAPH


def test_only_functions_of_one_probability_have_a_curve():
    curves = {name for name in registry().methods if "out, log scale" in describe(name)}
    assert {"logquant", "linquant", "threshold"} <= curves
    assert not curves & {"prune", "prune:random", "prune:global", "threshold:row", "uniform", "mask"}


def test_an_error_of_several_architectures_is_told_once():
    from attnbench.testing import Outcome, Report

    def failed(family, text):
        return Outcome("runs", family, "FAILED", text)

    report = Report("mine", [
        failed("bert", "TypeError: no (mine.probs at bert.layer.0.self (encoder layer 0))"),
        failed("gpt2", "TypeError: no (mine.probs at transformer.h.0.attn (decoder layer 0))"),
        failed("t5", "TypeError: yes (mine.probs at encoder.block.0 (encoder layer 0))"),
    ])  # fmt: skip
    assert str(report).splitlines()[1].split("  ")[-1].strip() == (
        "bert, gpt2: TypeError: no (mine.probs at bert.layer.0.self (encoder layer 0)); "
        "t5: TypeError: yes (mine.probs at encoder.block.0 (encoder layer 0))"
    )


def test_what_failed_is_told_by_check_the_cause_once_and_how_to_mend_it():
    def report(spec, *outcomes):
        return Report(spec, [Outcome(*each) for each in outcomes])

    drawn = [
        report(spec, ("deterministic", "bert", "FAILED", f"a second method: differs by 0.{n}"),
               ("deterministic", "t5", "FAILED", f"a second method: differs by 0.{n}5"),
               ("tiles", "bert", "FAILED", f"in tiles: differs by 0.{n}"))
        for n, spec in enumerate(("noisy20", "noisy50"), 1)
    ]  # fmt: skip
    other = report("column50", ("tiles", "gpt2", "FAILED", "in tiles of one query row: differs by 0.2"))
    lines = summary([*drawn, other, report("prune80", ("tiles", "bert", "ok", "bit-equal"))]).splitlines()
    assert lines[:3] == [
        "deterministic: FAILED",
        "  noisy20, noisy50 on bert, t5: a second method: differs by 0.1",
        "  so these fail too; look again once it is mended: tiles",
    ]
    assert "manual_seed(self.seed)" in lines[3] and "kernels.draw(self.seed, site, pro" in lines[3]
    assert lines[4:6] == ["tiles: FAILED", "  column50 on gpt2: in tiles of one query row: differs by 0.2"]
    assert 'rows = "all"' in lines[6] and len(lines) == 7
    assert summary([report("prune80", ("tiles", "bert", "ok", ""))]) == ""


def test_who_draws_by_the_shape_of_a_tensor_is_told_of_the_public_helper():
    def report(spec, *outcomes):
        return Report(spec, [Outcome(*each) for each in outcomes])

    fault = ("tiles", "bert", "FAILED", "in tiles of one query row: differs by 0.2")
    drawn = report("mine50:random", fault, ("seeds", "bert", "ok", "another seed, another draw"))
    *_, plain, helper = summary([drawn]).splitlines()
    assert 'rows = "all"' in plain and "kernels.draw(self.seed, site, probs[0], site.offset)" in helper
    unseeded = report("mine50", fault, ("seeds", "bert", "n/a", "has no `seed`"))
    for reports in ([unseeded], [drawn, unseeded]):
        assert "kernels.draw" not in summary(reports)


@pytest.mark.parametrize(
    ("check", "words"),
    [("caches", "`prompt.start`"), ("generation", "site.offset"), ("causal", "`ahead = True`")],
)
def test_what_a_method_for_caches_fails_is_told_how_to_mend(check, words):
    (_, _, fix) = summary([Report("mine50", [Outcome(check, "llama", "FAILED", "by 0.2")])]).splitlines()
    assert fix.startswith("  to mend it: ") and words in fix
