"""Adapters: merged into the weights that they change, part of what a record is of, or refused in one line."""

from __future__ import annotations

import importlib.util
import json

import pytest
import tiny_tasks
import torch
from safetensors.torch import load_file, save_file

from attnbench.errors import UserError
from attnbench.inputs import hub
from attnbench.inputs.models import Checkpoint

QUERY = "bert.encoder.layer.{}.attention.self.query"
RANK, ALPHA = 4, 8
with_peft = pytest.mark.skipif(importlib.util.find_spec("peft") is None, reason="peft is not installed")


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """A checkpoint in base/, and an adapter of it in tuned/, of which the classifier has three labels."""
    monkeypatch.chdir(tmp_path)
    tiny_tasks.checkpoint(tmp_path / "base")
    draw = torch.Generator().manual_seed(3)
    held = {
        "classifier.weight": torch.randn(3, 16, generator=draw),
        "classifier.bias": torch.randn(3, generator=draw),
    }
    for layer in (0, 1):
        held[QUERY.format(layer) + ".lora_A.weight"] = torch.randn(RANK, 16, generator=draw)
        held[QUERY.format(layer) + ".lora_B.weight"] = torch.randn(16, RANK, generator=draw)
    _adapter(tmp_path / "tuned", held)
    return tmp_path


def _adapter(folder, held, **settings):
    folder.mkdir(exist_ok=True)
    save_file(
        {f"base_model.model.{name}": value for name, value in held.items()},
        folder / "adapter_model.safetensors",
    )
    content = {
        "peft_type": "LORA", "base_model_name_or_path": "./base", "task_type": "SEQ_CLS", "r": RANK,
        "lora_alpha": ALPHA, "target_modules": ["query"], "modules_to_save": ["classifier"], **settings,
    }  # fmt: skip
    (folder / "adapter_config.json").write_text(json.dumps(content))


def _by_hand(model, held):
    """Return what the adapter means: W + alpha / r · B A, and the classifier that it holds."""
    names = dict(model.named_parameters())
    for layer in (0, 1):
        name = QUERY.format(layer)
        change = held[f"{name}.lora_B.weight"] @ held[f"{name}.lora_A.weight"]
        names[f"{name}.weight"].data += ALPHA / RANK * change
    return model


def _held(folder):
    return {
        k.removeprefix("base_model.model."): v
        for k, v in load_file(folder / "adapter_model.safetensors").items()
    }


def _hidden(model):
    ids = torch.tensor([[1, 9, 30, 12, 40, 2]])
    with torch.no_grad():
        return model.bert(input_ids=ids)[1]


@with_peft
def test_an_adapter_alone_is_merged_into_the_weights_that_it_names(folders):
    import transformers

    held = _held(folders / "tuned")
    base = transformers.AutoModelForSequenceClassification.from_pretrained(folders / "base").eval()
    expected = _hidden(_by_hand(base, held)) @ held["classifier.weight"].T + held["classifier.bias"]
    checkpoint = Checkpoint("tuned", str(folders / "tuned"), "folder")
    assert checkpoint.config().num_labels == 3 and len(checkpoint.tokenizer()) == 65
    model = checkpoint.load("classification")
    with torch.no_grad():
        found = model(input_ids=torch.tensor([[1, 9, 30, 12, 40, 2]])).logits
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert type(model) is transformers.BertForSequenceClassification and not hasattr(model, "peft_config")


@with_peft
def test_an_adapter_beside_the_weights_that_it_changes_is_merged_into_them(folders):
    import transformers

    held = {k: v for k, v in _held(folders / "tuned").items() if "classifier" not in k}
    _adapter(folders / "base", held, task_type=None, modules_to_save=None)
    checkpoint = Checkpoint("base", str(folders / "base"), "folder")
    found = checkpoint.load("classification")
    config = transformers.AutoConfig.from_pretrained(folders / "base")
    plain = transformers.BertForSequenceClassification(config).eval()
    plain.load_state_dict(load_file(folders / "base" / "model.safetensors"))
    torch.testing.assert_close(_hidden(found), _hidden(_by_hand(plain, held)), rtol=1e-4, atol=1e-4)


@with_peft
def test_a_fingerprint_covers_the_adapter_and_what_it_changes(folders):
    def prints():
        return [Checkpoint("x", str(folders / name), "folder").fingerprint for name in ("base", "tuned")]

    before = prints()
    assert before[0] != before[1]
    path = folders / "tuned" / "adapter_config.json"
    kept = path.read_text()
    path.write_text(kept.replace('"lora_alpha": 8', '"lora_alpha": 4'))
    changed = prints()
    assert changed[0] == before[0] and changed[1] != before[1]
    path.write_text(kept)
    weights = load_file(folders / "base" / "model.safetensors")
    weights["bert.pooler.dense.bias"] += 1
    save_file(weights, folders / "base" / "model.safetensors", metadata={"format": "pt"})
    assert all(new != old for new, old in zip(prints(), before, strict=True))


def test_a_checkpoint_without_an_adapter_keeps_its_fingerprint(tmp_path):
    import hashlib

    tiny_tasks.checkpoint(tmp_path)
    digest = hashlib.sha256()
    for name in ("config.json", "model.safetensors"):
        digest.update(name.encode() + (tmp_path / name).read_bytes())
    assert Checkpoint("x", str(tmp_path), "folder").fingerprint == digest.hexdigest()


@pytest.mark.parametrize("name", ["tuned", "base"])
def test_without_peft_an_adapter_is_refused_and_not_left_out(folders, monkeypatch, name):
    seen = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda each, *rest: None if each == "peft" else seen(each, *rest)
    )
    _adapter(folders / name, _held(folders / "tuned"))
    with pytest.raises(UserError, match=r"holds an adapter .*LORA for '\./base'.*pip install peft"):
        Checkpoint(name, str(folders / name), "folder").config()


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"peft_type": "PROMPT_TUNING"}, "PROMPT_TUNING .*beside a text's own tokens"),
        ({"peft_type": "PREFIX_TUNING"}, "PREFIX_TUNING .*beside a text's own tokens"),
        ({"base_model_name_or_path": "./gone"}, r"an adapter of './gone', which is not here"),
        ({"target_modules": ["query", "value"]}, "it lacks bert.encoder.layer.0.attention.self.value.lora_A"),
        ({"target_modules": ["nothing"]}, "cannot be merged"),
    ],
)
@with_peft
def test_an_adapter_that_cannot_be_merged_is_refused(folders, settings, told):
    _adapter(folders / "tuned", _held(folders / "tuned"), **settings)
    with pytest.raises(UserError, match=told):
        Checkpoint("tuned", str(folders / "tuned"), "folder").load("classification")


@with_peft
def test_a_part_that_peft_would_leave_out_is_named(folders):
    held = _held(folders / "tuned")
    _adapter(
        folders / "tuned",
        held | {"bert.encoder.layer.7.attention.self.query.lora_A.weight": torch.ones(4, 16)},
    )
    with pytest.raises(UserError, match=r"the model has no bert\.encoder\.layer\.7"):
        Checkpoint("tuned", str(folders / "tuned"), "folder").load("classification")


@with_peft
def test_an_adapter_of_a_wider_model_is_told_so(folders):
    name = QUERY.format(0) + ".lora_A.weight"
    _adapter(folders / "tuned", _held(folders / "tuned") | {name: torch.ones(RANK, 32)})
    with pytest.raises(UserError, match=r"cannot be merged into '\./base': RuntimeError: .*size mismatch"):
        Checkpoint("tuned", str(folders / "tuned"), "folder").load("classification")


def test_an_adapter_without_its_weights_is_named(folders):
    (folders / "tuned" / "adapter_model.safetensors").unlink()
    with pytest.raises(UserError, match=r"without its weights, adapter_model\.safetensors"):
        Checkpoint("tuned", str(folders / "tuned"), "folder").config()


def test_a_repository_of_an_adapter_alone_is_whole(folders):
    assert hub.whole(folders / "tuned")
    (folders / "tuned" / "adapter_model.safetensors").unlink()
    assert not hub.whole(folders / "tuned")


@with_peft
def test_the_tokenizer_of_what_an_adapter_changes_is_noted_too(folders):
    before = Checkpoint("tuned", str(folders / "tuned"), "folder").companions
    path = folders / "base" / "tokenizer.json"
    path.write_text(path.read_text() + "\n")
    assert Checkpoint("tuned", str(folders / "tuned"), "folder").companions != before
