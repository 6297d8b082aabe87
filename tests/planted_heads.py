"""Models whose heads are built by hand, each for one role: a score is 0, or so large that its key wins.

Norms are taken out, so that a hidden state is what its embedding says: marks of the token, its position.
"""

from __future__ import annotations

import math

import torch
from torch import nn
from transformers import BertConfig, BertModel, GPT2Config, GPT2LMHeadModel

SHARP = 256.0  # a score that leaves every other key exactly nothing, in float32 too

# an encoder's tokens
PAD, CLS, SEP, SUBJECT, VERB, OBJECT, FILLER = 0, 1, 2, 3, 13, 23, 33  # first ids of words, ten each
RARE, WORDS = 540, 640  # from RARE on each token is rarer than all before
PLACES = 32
ENCODER = ("first", "separator", "previous", "next", "self", "rare", "nsubj", "obj")  # head 0, 1, ...

# a language model's: tokens and places are one-hot
BEGIN, ASKED, VALUE, PLAIN, TOKENS, LENGTH = 0, 1, 2, 10, 80, 96
DECODER = {(0, 0): "previous", (0, 1): "duplicate", (0, 2): "first", (0, 3): "retrieval", (1, 0): "induction"}


def encoder() -> BertModel:
    """Build one layer of eight heads, named by ENCODER."""
    size, heads = 256, len(ENCODER)
    config = BertConfig(
        vocab_size=WORDS, hidden_size=size, num_hidden_layers=1, num_attention_heads=heads,
        intermediate_size=8, max_position_embeddings=PLACES, attn_implementation="eager",
    )  # fmt: skip
    model = BertModel(config, add_pooling_layer=False).eval()
    for weight in model.parameters():
        nn.init.zeros_(weight)
    for module in model.modules():
        for name, child in module.named_children():
            if isinstance(child, nn.LayerNorm):
                setattr(module, name, nn.Identity())
    marks = {"first": [CLS], "separator": [SEP]} | {
        name: range(first, first + 10)
        for name, first in {"subject": SUBJECT, "verb": VERB, "object": OBJECT}.items()
    }
    column = {name: number for number, name in enumerate([*marks, "rare"])}
    place = len(column)
    with torch.no_grad():
        words = model.embeddings.word_embeddings.weight
        for name, ids in marks.items():
            words[list(ids), column[name]] = 1
        words[RARE:, column["rare"]] = torch.arange(WORDS - RARE) + 1.0
        model.embeddings.position_embeddings.weight[:, place : place + PLACES] = torch.eye(PLACES)
        attention, width = model.encoder.layer[0].attention.self, size // heads
        q, k, always = attention.query.weight, attention.key.weight, attention.query.bias
        sharp, head = SHARP * math.sqrt(width), {name: width * k for k, name in enumerate(ENCODER)}
        for name in ("first", "separator", "rare"):  # whatever asks, this mark is looked for
            always[head[name]], k[head[name], column[name]] = sharp, 1
        for name, shift in {"previous": -1, "self": 0, "next": 1}.items():
            for at in range(PLACES):
                k[head[name] + at, place + at] = 1
                if 0 <= at + shift < PLACES:
                    q[head[name] + at + shift, place + at] = sharp
        for name, asking, asked in (("nsubj", "subject", "verb"), ("obj", "verb", "object")):
            q[head[name], column[asking]], k[head[name], column[asked]] = sharp, 1
    return model


def decoder() -> GPT2LMHeadModel:
    """Build two layers of four heads, named by DECODER; the others attend to all keys alike.

    The previous-token head writes what it read beside the token: by that the induction head of the next layer
    finds the key whose previous token is its own.
    """
    heads, width = 4, TOKENS + LENGTH
    size, place, before = heads * width, TOKENS, TOKENS + LENGTH
    config = GPT2Config(
        vocab_size=TOKENS, n_positions=LENGTH, n_embd=size, n_layer=2, n_head=heads, n_inner=8,
        tie_word_embeddings=False, bos_token_id=BEGIN, eos_token_id=BEGIN, attn_implementation="eager",
    )  # fmt: skip
    model = GPT2LMHeadModel(config).eval()
    for weight in model.parameters():
        nn.init.zeros_(weight)
    for module in model.modules():
        for name, child in module.named_children():
            if isinstance(child, nn.LayerNorm):
                setattr(module, name, nn.Identity())
    sharp = SHARP * math.sqrt(width)
    with torch.no_grad():
        model.transformer.wte.weight[:, :TOKENS] = torch.eye(TOKENS)
        model.transformer.wpe.weight[:, place : place + LENGTH] = torch.eye(LENGTH)
        first, second = (block.attn for block in model.transformer.h)

        def start(part: int, head: int) -> int:
            return part * size + head * width  # of queries (0), keys (1), values (2)

        weight, bias = first.c_attn.weight, first.c_attn.bias  # (in, out)
        for at in range(LENGTH):  # 0: previous
            weight[place + at, start(1, 0) + at] = 1
            if at:
                weight[place + at, start(0, 0) + at - 1] = sharp
        for token in range(TOKENS):
            weight[token, start(2, 0) + token] = 1
            first.c_proj.weight[token, before + token] = 1
        for token in range(TOKENS):  # 1: duplicate, and not itself
            weight[token, start(0, 1) + token], weight[token, start(1, 1) + token] = sharp, 1
        for at in range(LENGTH):
            weight[place + at, start(0, 1) + TOKENS + at] = -sharp
            weight[place + at, start(1, 1) + TOKENS + at] = 1
        bias[start(0, 2)], weight[place, start(1, 2)] = sharp, 1  # 2: first
        weight[ASKED, start(0, 3)], weight[VALUE:PLAIN, start(1, 3)] = sharp, 1  # 3: retrieval
        for token in range(TOKENS):  # layer 1, 0: induction
            second.c_attn.weight[token, start(0, 0) + token] = sharp
            second.c_attn.weight[before + token, start(1, 0) + token] = 1
    return model
