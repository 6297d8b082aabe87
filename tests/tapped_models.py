"""Tiny random models that keep their attention to themselves, and padded inputs for each."""

from __future__ import annotations

import functools

import torch
import transformers

ENCODER = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
DEBERTA = ENCODER | {
    "relative_attention": True,
    "pos_att_type": ["p2c", "c2p"],
    "position_biased_input": False,
}
XLNET = {"d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 48}
NEO = {"hidden_size": 32, "num_layers": 2, "num_heads": 4, "attention_types": [[["global", "local"], 1]]}
GPTJ = {"n_embd": 32, "n_layer": 2, "n_head": 4, "rotary_dim": 4}
BLOOM = {"hidden_size": 32, "n_layer": 2, "n_head": 4}
FALCON = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
ZOO = {
    "deberta": ("DebertaForSequenceClassification", DEBERTA, "encoder", "right"),
    "deberta-v2": ("DebertaV2ForSequenceClassification", DEBERTA, "encoder", "right"),
    "mpnet": ("MPNetForSequenceClassification", ENCODER, "encoder", "right"),
    "xlnet": ("XLNetForSequenceClassification", XLNET, "encoder", "left"),
    "gpt-j": ("GPTJForCausalLM", GPTJ, "decoder", "left"),
    "gpt-neo": ("GPTNeoForCausalLM", NEO | {"window_size": 5}, "decoder", "left"),
    "bloom": ("BloomForCausalLM", BLOOM, "decoder", "left"),
    "falcon": ("FalconForCausalLM", FALCON, "decoder", "left"),
    "falcon-alibi": ("FalconForCausalLM", FALCON | {"alibi": True}, "decoder", "left"),
}  # fmt: skip
SPECIAL = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "vocab_size": 97}


@functools.cache
def tiny(name):
    kind, settings, _, _ = ZOO[name]
    factory = getattr(transformers, kind)
    torch.manual_seed(0)
    config = factory.config_class(**settings, **SPECIAL)
    model = factory._from_config(config, attn_implementation="eager" if "alibi" in settings else None).eval()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() >= 2:
                weight.normal_(std=0.25)
    return model


def padded(name, examples=4, tokens=11, seed=1):
    draw = torch.Generator().manual_seed(seed)
    ids = torch.randint(3, 97, (examples, tokens), generator=draw)
    lengths = torch.linspace(3, tokens, examples).long()
    places = torch.arange(tokens)
    left = ZOO[name][3] == "left"
    mask = places >= tokens - lengths[:, None] if left else places < lengths[:, None]
    batch = {"input_ids": ids * mask, "attention_mask": mask.long()}
    if name in ("gpt-j", "gpt-neo"):  # their positions count from the first token only where they are told
        batch["position_ids"] = (mask.long().cumsum(1) - 1).clamp(min=0)
    return batch
