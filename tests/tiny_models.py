"""Tiny random models of every architecture the engine serves: sharp attention, no dropout."""

from __future__ import annotations

import functools
from typing import Any

import torch
import transformers
from transformers import PreTrainedModel

ENCODER = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 48}
CAUSAL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
PAIR = {"encoder_attention_heads": 4, "decoder_attention_heads": 4, "encoder_ffn_dim": 48}
PAIR |= {"d_model": 32, "encoder_layers": 3, "decoder_layers": 2, "decoder_ffn_dim": 48}
DISTIL = {"dim": 32, "n_layers": 3, "n_heads": 4, "hidden_dim": 48}
OPT = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "ffn_dim": 48,
    "word_embed_proj_dim": 32,
}
T5 = {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 3, "num_decoder_layers": 2, "num_heads": 4}
WINDOW = {"num_key_value_heads": 2, "sliding_window": 5}
E3, D2 = ("encoder 0", "encoder 1", "encoder 2"), ("decoder 0", "decoder 1")
BOTH = (*E3, "decoder 0", "cross 0", "decoder 1", "cross 1")

# name -> (class, config, sites in order)
ZOO: dict[str, tuple[str, dict[str, Any], tuple[str, ...]]] = {
    "bert": ("BertForSequenceClassification", ENCODER, E3),
    "roberta": ("RobertaForSequenceClassification", ENCODER, E3),
    "electra": ("ElectraForSequenceClassification", ENCODER | {"embedding_size": 16}, E3),
    "distilbert": ("DistilBertForSequenceClassification", DISTIL, E3),
    "albert": ("AlbertForSequenceClassification", ENCODER | {"embedding_size": 16}, E3),
    "modernbert": ("ModernBertForSequenceClassification", ENCODER | {"local_attention": 4}, E3),
    "gpt2": ("GPT2LMHeadModel", {"n_embd": 32, "n_layer": 2, "n_head": 4}, D2),
    "llama": ("LlamaForCausalLM", CAUSAL | {"num_key_value_heads": 2}, D2),
    "qwen": ("Qwen3ForCausalLM", CAUSAL | {"num_key_value_heads": 2, "head_dim": 8}, D2),
    "mistral": ("MistralForCausalLM", CAUSAL | WINDOW, D2),
    "gemma": ("Gemma2ForCausalLM", CAUSAL | WINDOW | {"head_dim": 8}, D2),
    "opt": ("OPTForCausalLM", OPT, D2),
    "t5": ("T5ForConditionalGeneration", T5, BOTH),
    "bart": ("BartForConditionalGeneration", PAIR, BOTH),
    "marian": ("MarianMTModel", PAIR, BOTH),
}  # fmt: skip
ENCODERS = tuple(name for name, (_, _, sites) in ZOO.items() if sites == E3)
DECODERS = tuple(name for name, (_, _, sites) in ZOO.items() if sites == D2)
PAIRS = tuple(name for name, (_, _, sites) in ZOO.items() if sites == BOTH)
SHARP = ("query", "key", "q_", "k_", ".q.", ".k.")
SPECIAL = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 0}


@functools.cache
def tiny(name: str) -> PreTrainedModel:
    """Build a model once per process; tests must leave it as they found it."""
    kind, settings, _ = ZOO[name]
    factory = getattr(transformers, kind)
    torch.manual_seed(0)
    config = factory.config_class(vocab_size=97, **settings, **SPECIAL)
    model = factory._from_config(config, attn_implementation="eager" if name == "gemma" else "sdpa").eval()
    with torch.no_grad():
        for path, weight in model.named_parameters():
            if weight.dim() == 2:
                weight.normal_(std=0.3 if any(part in path for part in SHARP) else 0.2)
    return model


def padded(
    model: PreTrainedModel, side: str = "right", examples: int = 8, tokens: int = 14, seed: int = 1
) -> dict[str, torch.Tensor]:
    """Make random ids of lengths 3 to `tokens`, padded on one side; a decoder beside an encoder gets 5."""
    draw = torch.Generator().manual_seed(seed)
    ids = torch.randint(3, 97, (examples, tokens), generator=draw)
    lengths = torch.linspace(3, tokens, examples).long()
    places = torch.arange(tokens)
    mask = places < lengths[:, None] if side == "right" else places >= tokens - lengths[:, None]
    batch = {"input_ids": ids * mask, "attention_mask": mask.long()}
    if model.config.is_encoder_decoder:
        batch["decoder_input_ids"] = torch.randint(3, 97, (examples, 5), generator=draw)
    return batch
