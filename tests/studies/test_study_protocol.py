"""Studies are found as methods are, and are shown whose tensor it is, in any batch, on every architecture."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import tapped_models
import torch
from studied import Everything, Words, looked
from tiny_models import PAIRS, ZOO, padded, tiny

from attnbench import NotApplicable, Study, by_head
from attnbench.methods import spec
from attnbench.methods.plugins import registry
from attnbench.methods.study import OBSERVERS
from attnbench.studies.passes import conduct
from attnbench.studies.reading import Reading

CASES = [*((name, "right") for name in ZOO), ("llama", "left"), ("t5", "left")]


@pytest.mark.parametrize("name, side", CASES)
def test_an_observer_sees_what_eager_attention_has_for_each_example_alone(name, side):
    model = tiny(name)
    batch = padded(model, side)
    found = looked(model, batch).twins["dense"].found
    model.set_attn_implementation("eager")
    try:
        for k in (0, 3, 7):
            shown = batch["attention_mask"][k].bool()
            alone = {key: value[k : k + 1] for key, value in batch.items()}
            alone = {
                key: value if key.startswith("decoder") else value[:, shown] for key, value in alone.items()
            }
            with torch.no_grad():
                output = model(**alone, output_attentions=True)
            kinds = {ZOO[name][2][0].split()[0]: "attentions"}
            if name in PAIRS:
                kinds = {kind: f"{kind}_attentions" for kind in ("encoder", "decoder", "cross")}
            ids = tuple(batch["input_ids"][k][shown].tolist())
            for kind, where in kinds.items():
                for layer, expected in enumerate(getattr(output, where)):
                    tiles = found["probs", kind, layer, ids]
                    rows = np.concatenate([_wide(tile, expected.shape[-1]) for tile in tiles], axis=1)
                    np.testing.assert_allclose(rows, expected[0].numpy(), atol=2e-5)
    finally:
        model.set_attn_implementation("sdpa" if name != "gemma" else "eager")


def _wide(tile, keys):
    return np.pad(tile, ((0, 0), (0, 0), (0, keys - tile.shape[-1])))


@pytest.mark.parametrize("name", ["bert", "llama", "marian"])
def test_hidden_states_come_without_padding(name):
    model = tiny(name)
    batch = padded(model)
    found = looked(model, batch).twins["dense"].found
    kind = ZOO[name][2][0].split()[0]
    for k in (0, 7):
        ids = tuple(batch["input_ids"][k][batch["attention_mask"][k].bool()].tolist())
        for layer in range(2):
            (hidden,) = found["hidden", kind, layer, ids]
            assert hidden.shape == (len(ids), 32)


@pytest.mark.parametrize("name", tapped_models.ZOO)
def test_a_tapped_model_shows_probabilities_alone(name):
    model = tapped_models.tiny(name)
    found = looked(model, tapped_models.padded(name)).twins["dense"].found
    assert {what for what, *_ in found} == {"probs"}


def test_each_method_has_a_twin_and_the_dense_one_saw_the_batch_first():
    @dataclass
    class Lockstep(Study):
        name = "lockstep"

        def begin(self, model, sites):
            self.calls = []

        def context(self, context, site):
            if self.dense is not None:
                assert len(self.dense.calls) > len(self.calls)
            self.calls.append(float(context.abs().sum()))

    model = tiny("bert")
    reading = Reading(model, Words())
    batches = [reading.taken(padded(model, seed=seed)) for seed in (1, 2)]
    methods = {"prune80": spec.parse("prune80"), "uniform": spec.parse("uniform")}
    (seen,) = conduct(model, [Lockstep()], reading, methods, batches)
    assert not seen.failed
    dense, pruned, uniform = (seen.twins[name].calls for name in ("dense", "prune80", "uniform"))
    assert len(dense) == len(pruned) == len(uniform) and dense[0] != pruned[0] != uniform[0]


def test_a_study_may_bring_its_own_texts_or_do_all_by_itself():
    @dataclass
    class Own(Study):
        name, data = "own", ("twice", "none")

        def begin(self, model, sites):
            self.seen = []

        def samples(self, name, data):
            return [data.tokens([5, 6, 7, 5, 6, 7], half=3)] if name == "twice" else ()

        def probs(self, probs, site):
            self.seen.append((site.data, site.samples[0].about["half"], probs.shape[-1]))

    @dataclass
    class Gradient(Study):
        name, data = "gradient", ("text",)

        def run(self, model, data):
            (batch,) = data.batches(data.given)
            loss = model(**batch.inputs).logits.sum()
            (slope,) = torch.autograd.grad(loss, model.get_input_embeddings().weight)
            self.size = float(slope.abs().sum())

    model = tiny("bert")
    reading = Reading(model, Words())
    reading.given = [reading.tokens([3, 4, 5])]
    own, gradient = conduct(model, [Own(), Gradient()], reading, {"prune80": spec.parse("prune80")})
    assert own.twins["dense"].seen == [("twice", 3, 6)] * 3 == own.twins["prune80"].seen
    assert gradient.twins["dense"].size > 0 and not gradient.failed


def test_one_study_that_fails_or_does_not_apply_leaves_the_others():
    @dataclass
    class Fails(Study):
        name = "fails"

        def probs(self, probs, site):
            raise RuntimeError("no luck")

    @dataclass
    class NotHere(Study):
        name = "not-here"

        def begin(self, model, sites):
            raise NotApplicable("not for BERT")

        def probs(self, probs, site):
            raise AssertionError

    model = tiny("bert")
    reading = Reading(model, Words())
    batches = [reading.taken(padded(model))]
    fails, absent, whole = conduct(model, [Fails(), NotHere(), Everything()], reading, batches=batches)
    assert "no luck" in fails.failed and absent.absent == "not for BERT"
    assert whole.twins["dense"].found and not whole.failed


def test_studies_are_registered_as_methods_are_and_share_their_grammar():
    known = registry().studies
    assert all(cls.__module__.startswith("attnbench_plugins.studies") for cls in known.values())
    for name, cls in known.items():
        for example in cls.examples:
            assert (
                spec.format([spec.parse_study(example)]) == example and spec.parse_study(example).name == name
            )
        stages = [getattr(cls, stage) is not getattr(Study, stage) for stage in OBSERVERS]
        assert any(stages) or cls.run is not Study.run
        assert len(cls.shown) <= 3


def test_by_head_makes_a_row_of_each_head():
    table = by_head({"a": {("encoder", 1): [1, 2], ("decoder", 0): [3]}, "b": {("encoder", 1): [5, 6]}})
    assert table.index.names == ["kind", "layer", "head"]
    assert table["a"].tolist() == [3, 1, 2] and np.isnan(table["b"].iloc[0])
