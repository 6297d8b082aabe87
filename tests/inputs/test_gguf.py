"""GGUF files: the weights and the tokenizer of the model that they were made of, or one line."""

from __future__ import annotations

import copy
import hashlib
import importlib.util
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from closeness import close, sharpness

import attnbench
from attnbench.cli.main import main
from attnbench.errors import UserError
from attnbench.inputs import names
from attnbench.inputs.models import find
from attnbench.matrix import verify
from attnbench.records import record

gguf = pytest.importorskip("gguf")
LAYERS, HEADS, GROUPS, WIDTH, INNER = 2, 4, 2, 32, 64
BATCH = {"input_ids": torch.arange(2, 40)[None]}
TASK, Q8_0 = "wikitext", gguf.GGMLQuantizationType.Q8_0
BYTES = [*range(33, 127), *range(161, 173), *range(174, 256)]  # that stand for themselves in GPT-2's alphabet
NAMES = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
}  # fmt: skip


def _tokens():
    others = [byte for byte in range(256) if byte not in BYTES]
    alphabet = {byte: chr(byte) for byte in BYTES} | {byte: chr(256 + k) for k, byte in enumerate(others)}
    return ["<s>", "</s>", *(alphabet[byte] for byte in range(256)), "th", "the"]


def _interleaved(weight, heads):
    """Order the rows of a head as the format has them: 0, d/2, 1, d/2 + 1, ..., each pair that rotates."""
    half = len(weight) // heads // 2
    order = [
        head * 2 * half + half * part + k for head in range(heads) for k in range(half) for part in (0, 1)
    ]
    return weight[order]


def _write(path, model, kind="f32", extra=(), pre="default", **metadata):
    """Write a tiny Llama as llama.cpp's converter does, in float32, float16 or with Q8_0 matrices."""
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_block_count(LAYERS)
    writer.add_context_length(128)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(GROUPS)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_vocab_size(len(_tokens()))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(_tokens())
    writer.add_token_types([3, 3, *[1] * (len(_tokens()) - 2)])
    writer.add_token_merges(["t h", "th e"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    for name, value in metadata.items():
        writer.add_string(name.replace("__", "."), value)
    held = {name: weight.numpy() for name, weight in model.state_dict().items()}
    found = {
        "token_embd.weight": held["model.embed_tokens.weight"],
        "output_norm.weight": held["model.norm.weight"],
    }
    for layer in range(LAYERS):
        for ours, theirs in NAMES.items():
            weight = held[f"model.layers.{layer}.{ours}.weight"]
            if theirs in ("attn_q", "attn_k"):
                weight = _interleaved(weight, HEADS if theirs == "attn_q" else GROUPS)
            found[f"blk.{layer}.{theirs}.weight"] = weight
    found["output.weight"] = held["lm_head.weight"]
    for name, weight in {**found, **dict(extra)}.items():
        if kind == "q8_0" and weight.ndim == 2:
            writer.add_tensor(name, gguf.quantize(weight, Q8_0), raw_dtype=Q8_0)
        else:
            writer.add_tensor(
                name, weight.astype(np.float16 if kind == "f16" and weight.ndim == 2 else np.float32)
            )
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture(scope="module")
def llama():
    import transformers

    config = transformers.LlamaConfig(
        vocab_size=len(_tokens()), hidden_size=WIDTH, intermediate_size=INNER, num_hidden_layers=LAYERS,
        num_attention_heads=HEADS, num_key_value_heads=GROUPS, max_position_embeddings=128, rms_norm_eps=1e-6,
        bos_token_id=0, eos_token_id=1,
    )  # fmt: skip
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(config).eval()
    for weight in model.parameters():
        weight.data.normal_(std=0.3) if weight.dim() == 2 else weight.data.add_(torch.rand_like(weight))
    return model


@pytest.fixture(scope="module")
def file(llama, tmp_path_factory):
    return _write(tmp_path_factory.mktemp("gguf") / "tiny.gguf", llama)


def _logits(model):
    with torch.no_grad():
        return model(**BATCH).logits


def _rounded(model, kind):
    """Return the model that a file of that kind stands for: matrices as the gguf package has them."""
    found = copy.deepcopy(model)
    for weight in found.parameters():
        if weight.dim() == 2 and kind == "f16":
            weight.data = weight.data.half().float()
        elif weight.dim() == 2 and kind == "q8_0":
            weight.data = torch.from_numpy(gguf.dequantize(gguf.quantize(weight.data.numpy(), Q8_0), Q8_0))
    return found


@pytest.mark.parametrize(("kind", "said"), [
    ("f32", "gguf, F32"), ("f16", "gguf, F16"), ("q8_0", "gguf, dequantised from Q8_0"),
])  # fmt: skip
def test_a_file_is_the_model_that_it_was_made_of(llama, tmp_path, kind, said):
    found = find(str(_write(tmp_path / "tiny.gguf", llama, kind)), TASK)
    model = found.load("causal-lm")
    wanted = _logits(_rounded(llama, kind))
    assert (found.name, found.source, found.weight_format) == ("tiny", "file", said)
    close(_logits(model), wanted, layers=LAYERS, gain=sharpness(llama, BATCH))
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}
    assert found.fingerprint == hashlib.sha256((tmp_path / "tiny.gguf").read_bytes()).hexdigest()


def test_nothing_of_the_file_is_left_in_the_model(file, tmp_path):
    import transformers

    model = find(str(file), TASK).load("causal-lm", dtype="float64")
    assert next(model.parameters()).dtype == torch.float64
    model.save_pretrained(tmp_path / "saved")
    assert "quantization_config" not in json.loads((tmp_path / "saved" / "config.json").read_text())
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "saved", dtype=torch.float64)
    assert torch.equal(_logits(again), _logits(model))
    with attnbench.realize(model, "heads:fixed:off=0.0:off=0.1"):
        assert model.model.layers[0].self_attn.q_proj.out_features < WIDTH


def test_the_tokenizer_is_that_of_the_file_and_not_one_beside_it(file, tmp_path, tiny_folder):
    copied = tmp_path / "tiny.gguf"
    shutil.copy(file, copied)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(Path(tiny_folder, name), tmp_path / name)
    tokenizer = find(str(copied), TASK).tokenizer()
    words = ["<s>", "</s>", "the", "t", "h"]
    assert [tokenizer.convert_tokens_to_ids(word) for word in words] == [
        _tokens().index(word) for word in words
    ]
    assert tokenizer("the", add_special_tokens=False).input_ids == [_tokens().index("the")]
    assert tokenizer.decode(tokenizer("a thé\n", add_special_tokens=False).input_ids) == "a thé\n"


@pytest.mark.parametrize(
    "pre, pieces",
    [
        ("default", ["a", "Ġ", "Ġ12"]),
        ("smollm", ["a", "ĠĠ", "1", "2"]),
        ("llama-bpe", ["a", "Ġ", "Ġ", "12"]),
    ],
)
def test_texts_are_split_as_the_file_says(llama, tmp_path, pre, pieces):
    tokenizer = find(str(_write(tmp_path / "tiny.gguf", llama, pre=pre)), TASK).tokenizer()
    found = tokenizer.backend_tokenizer.pre_tokenizer.pre_tokenize_str("a  12")
    assert [piece for piece, _ in found] == pieces


def test_a_split_that_would_not_be_read_is_refused(llama, tmp_path):
    found = find(str(_write(tmp_path / "tiny.gguf", llama, pre="deepseek-coder")), TASK)
    with pytest.raises(UserError, match=r"tokenizer\.ggml\.pre=deepseek-coder does, which transformers"):
        found.tokenizer()


def test_a_run_names_it_and_its_record_can_be_verified(file, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(file.parent)
    texts = tmp_path / "texts"
    texts.mkdir()
    (texts / "made.py").write_text(
        "from datasets import Dataset, DatasetDict\n"
        "def made(**ignored):\n"
        "    return DatasetDict({'test': Dataset.from_list([{'text': 'the cat sat there'}] * 2)})\n"
    )
    (texts / "made.yaml").write_text(
        "task: made\ncustom_dataset: !function made.made\ntest_split: test\n"
        "output_type: loglikelihood_rolling\n"
        "doc_to_text: ''\ndoc_to_target: text\n"
        "metric_list:\n- {metric: word_perplexity, aggregation: weighted_perplexity}\n"
    )
    command = ["run", "--models", "mine=tiny.gguf", "--tasks", "made", "--methods", "prune50",
               "--include-path", str(texts), "--records", str(tmp_path / "records")]  # fmt: skip
    assert main(command) == 0
    assert all(words not in capfd.readouterr().err for words in ("GGUF", "it/s"))  # no bar of transformers
    path = next((tmp_path / "records").rglob("prune50.json"))
    found = record.read(path)
    assert (found.cell["model"], found.provenance["source"]) == ("mine", "file")
    assert found.provenance["weights"] == "gguf, F32"
    assert str(file.parent) not in path.read_text()
    monkeypatch.delenv(names.PLACES, raising=False)
    with pytest.raises(UserError, match=r"'mine' was a file: say where it is: --model PATH/mine\.gguf"):
        verify.model_of(found)
    monkeypatch.setenv(names.PLACES, str(tmp_path))
    shutil.copy(file, tmp_path / "mine.gguf")
    assert verify.model_of(found) == str(tmp_path / "mine.gguf")


def test_what_cannot_be_read_is_said_in_one_line(llama, file, tmp_path, monkeypatch):
    def said(path):
        with pytest.raises(UserError) as told:
            find(str(path), TASK).load("causal-lm")
        return str(told.value)

    assert "no such file. Did you mean" in said(file.parent / "tinny.gguf")
    other = tmp_path / "other.gguf"
    other.write_bytes(b"PK\x03\x04")
    assert "is no GGUF file" in said(other)
    other.write_bytes(file.read_bytes()[:3000])
    assert "cannot be read" in said(other)
    other.write_bytes(file.read_bytes().replace(b"llama", b"lamma"))
    assert "lamma" in said(other) and "not supported" in said(other)
    turned = [("rope_freqs.weight", np.ones(WIDTH // HEADS // 2, dtype=np.float32))]
    assert "rotates positions by rope_freqs.weight" in said(_write(other, llama, extra=turned))
    assert "llama.rope.scaling.type=linear" in said(_write(other, llama, llama__rope__scaling__type="linear"))
    bias = [("blk.0.attn_q.bias", np.ones(WIDTH, dtype=np.float32))]
    assert "would be left out" in said(_write(other, llama, extra=bias))
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "gguf" else real(name))
    assert 'needs gguf: pip install "attnbench[gguf]"' in said(file)
