"""Checkpoints with quantised weights: a line where they cannot be read, and what does not apply to them."""

from __future__ import annotations

import json
import shutil
from types import SimpleNamespace

import pytest
import torch
from tiny_models import tiny

import attnbench
from attnbench import NotApplicable, parse
from attnbench.engine.learning.fit import fit
from attnbench.errors import UserError
from attnbench.inputs.models import Checkpoint


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ({"quant_method": "gptq", "bits": 4}, "optimum|gptqmodel|GPU"),
        ({"quant_method": "awq", "bits": 4}, "gptqmodel|autoawq|GPU"),
        ({"quant_method": "made-up"}, r"is quantised \(made-up\), which transformers does not read"),
    ],
)
def test_what_cannot_be_read_is_one_line(kind, told, tiny_folder, tmp_path):
    folder = tmp_path / "quantised"
    shutil.copytree(tiny_folder, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "quantization_config": kind}))
    with pytest.raises(UserError, match=told):
        Checkpoint("quantised", str(folder), "folder").load("classification")


@pytest.fixture
def quantised():
    """A model that says of itself that its weights are quantised, as one of bitsandbytes does."""
    model = tiny("llama")
    model.is_quantized, model.config.quantization_config = True, SimpleNamespace(quant_method="bitsandbytes")
    yield model
    model.is_quantized = False
    del model.config.quantization_config


def test_training_and_cutting_do_not_apply(quantised):
    ids = torch.arange(3, 23)[None]
    batches = [{"input_ids": ids, "labels": ids, "attention_mask": torch.ones_like(ids)}]
    for spec in ("gates:l0:steps=2", "duo50:longest=40:shortest=20:sink=2:steps=2:window=3"):
        with pytest.raises(NotApplicable, match=r"is trained: .* quantised \(bitsandbytes\)"):
            fit(quantised, parse(spec), batches)
    with (
        pytest.raises(NotApplicable, match="cut out of weights"),
        attnbench.realize(quantised, "heads:fixed:off=0.0"),
    ):
        pass
    fit(quantised, parse("prune50:global"), batches)
