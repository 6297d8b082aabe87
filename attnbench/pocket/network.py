"""The pocket encoders: stock BERT, RoBERTa and ELECTRA, with initial weights that match words."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from attnbench.pocket.tokenizer import TOKENS

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

LAYERS, HEADS, WIDTH, INNER = 4, 4, 128, 256
LABELS = {0: "negative", 1: "positive"}
MATCH, NEAR = 1.4, 1.7
ENCODERS: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": ("Bert", {}),
    "electra": ("Electra", {"embedding_size": WIDTH}),
    "roberta": ("Roberta", {"type_vocab_size": 1}),
}


def build(family: str, task: str, tokenizer: PreTrainedTokenizerFast) -> PreTrainedModel:
    """Build an untrained model of a family with a task's head."""
    import transformers

    prefix, settings = ENCODERS[family]
    head = {"sentiment": "ForSequenceClassification", "qa": "ForQuestionAnswering"}[task]
    if task == "sentiment":
        settings = {
            **settings,
            "id2label": LABELS,
            "label2id": {name: label for label, name in LABELS.items()},
        }
    config = getattr(transformers, f"{prefix}Config")(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        intermediate_size=INNER,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        # RoBERTa counts its positions from pad_token_id + 1
        max_position_embeddings=TOKENS + (tokenizer.pad_token_id + 1 if family == "roberta" else 0),
        initializer_range=WIDTH**-0.5,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.cls_token_id,
        eos_token_id=tokenizer.sep_token_id,
        **settings,
    )
    model = getattr(transformers, prefix + head)._from_config(config, attn_implementation="sdpa")
    # the layer that sums up starts even, or it would see little but itself
    initialize(model, LAYERS - (task == "sentiment"))
    if task == "qa" and config.type_vocab_size > 1:
        # or a word of the question looks more like its neighbours than like itself in the paragraph
        model.base_model.embeddings.token_type_embeddings.weight.data.mul_(0.1)
    return model


def sinusoids(positions: int, width: int) -> torch.Tensor:
    """Return (positions, width) sines, then cosines, of frequencies 1 to 1/1000."""
    angles = torch.arange(positions)[:, None] * torch.logspace(0, -3, width // 2)[None]
    return torch.cat([angles.sin(), angles.cos()], dim=1)


@torch.no_grad()
def initialize(model: Any, layers: int) -> None:
    """Start positions as sinusoids, and queries and keys alike, so that attention begins as similarity.

    In the first `layers` half of the heads compare random projections of a token (equal words attend to each
    other), half compare the fast sinusoids of a position (neighbours do).
    """
    embeddings = model.base_model.embeddings
    positions = embeddings.position_embeddings.weight
    positions.copy_(sinusoids(len(positions), WIDTH) * WIDTH**-0.5)
    size = WIDTH // HEADS
    fast = torch.zeros(size, WIDTH)
    fast[torch.arange(size), torch.cat([torch.arange(size // 2), WIDTH // 2 + torch.arange(size // 2)])] = 1
    for layer in model.base_model.encoder.layer[:layers]:
        rows = []
        for head in range(HEADS):
            if head < HEADS // 2:
                rows.append(nn.init.orthogonal_(torch.empty(size, WIDTH)) * MATCH)
            else:
                rows.append(fast * NEAR)
        for linear in (layer.attention.self.query, layer.attention.self.key):
            linear.weight.copy_(torch.cat(rows))


def parameters(model: nn.Module) -> int:
    return sum(weight.numel() for weight in model.parameters())


def warm(step: int, steps: int, warmup: int) -> float:
    """Return the share of the learning rate at a step: linear up, then a half cosine down to 0."""
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))
