"""Parity over every architecture: bfloat16, padding on both sides, and a sample alone as in a batch."""

from __future__ import annotations

import copy

import pytest
import tapped_models
import torch
from closeness import clear_of_jumps, close, rounded
from tiny_models import DECODERS, ENCODERS, PAIRS, ZOO, padded, tiny

from attnbench import Method, apply
from attnbench.engine.places.routing import implementation
from attnbench.engine.serving.soundness import compare_with_eager

SIDES = [(name, "right") for name in ZOO] + [(name, "left") for name in DECODERS]
REST = [
    (name, side) for name, side in SIDES if name not in ("bert", "albert", "gpt2", "llama", "t5", "marian")
]


class Identity(Method):
    name = "identity"

    def probs(self, probs, site):
        return probs


def real(logits, batch):
    """Keep the outputs of real tokens."""
    whole = logits.dim() == 2 or "decoder_input_ids" in batch
    return logits if whole else logits[batch["attention_mask"].bool()]


def worst(found, expected):
    """Return the largest difference, relative to the largest output where that exceeds 1."""
    return float((found - expected).abs().max() / expected.abs().max().clamp(min=1))


def halved(model):
    """Return a model in bfloat16 with attention as sharp as a trained one's: more of it is rounding alone."""
    model = copy.deepcopy(model)
    for weight in model.parameters():
        if weight.dim() >= 2:
            weight.mul_(0.5)
    return model.bfloat16()


@pytest.mark.numeric
@torch.no_grad()
@pytest.mark.parametrize("name, side", SIDES)
def test_bfloat16_is_eager_bfloat16(name, side):
    model = halved(tiny(name))
    batch = padded(model, side)
    with implementation(model, "eager"):
        expected = real(model(**batch).logits, batch)
    with apply(model, Identity()) as applied:
        found = real(model(**batch).logits, batch)
    assert found.dtype == torch.bfloat16 and applied.hit == len(ZOO[name][2])
    most = rounded(len(ZOO[name][2]), torch.bfloat16)
    assert worst(found.float(), expected.float()) <= most
    assert compare_with_eager(model) <= most


@pytest.mark.numeric
@torch.no_grad()
@pytest.mark.parametrize("name", tapped_models.ZOO)
def test_bfloat16_through_a_tap(name):
    model, batch = halved(tapped_models.tiny(name)), tapped_models.padded(name)
    expected = real(model(**batch).logits, batch)
    with apply(model, Identity()):
        found = real(model(**batch).logits, batch)
    assert worst(found.float(), expected.float()) <= rounded(2, torch.bfloat16)


@pytest.mark.numeric
@torch.no_grad()
@pytest.mark.parametrize("spec", ["prune80", "logquant3", "threshold0.5:row"])
@pytest.mark.parametrize("name, side", REST)
def test_a_sample_alone_is_a_sample_in_a_batch(name, side, spec):
    model = tiny(name)
    batch = clear_of_jumps(model, spec, lambda seed: padded(model, side, seed=seed))
    with apply(model, spec):
        together = model(**batch).logits
        for example, mask in enumerate(batch["attention_mask"].bool()):
            alone = {key: value[example : example + 1] for key, value in batch.items()}
            for key in ("input_ids", "attention_mask"):
                alone[key] = alone[key][:, mask]
            row = together[example, mask] if name in DECODERS else together[example]
            close(row, model(**alone).logits[0], layers=len(ZOO[name][2]))


@torch.no_grad()
@pytest.mark.parametrize("name", [*DECODERS, *PAIRS])
def test_beams_under_a_method_do_not_depend_on_the_cache(name):
    model = tiny(name)
    batch = padded(model, "right" if name in PAIRS else "left", examples=3)
    batch.pop("decoder_input_ids", None)
    settings = {"max_new_tokens": 5, "min_new_tokens": 5, "do_sample": False, "num_beams": 3}
    with apply(model, "prune50+logquant3"):
        cached = model.generate(**batch, **settings)
        assert torch.equal(model.generate(**batch, use_cache=False, **settings), cached)


def test_every_kind_of_model_is_here():
    assert set(ENCODERS) | set(DECODERS) | set(PAIRS) == set(ZOO)
