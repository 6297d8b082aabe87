"""The pocket models that write: stock GPT-2, Llama with grouped queries, Marian, and how they are taught."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from attnbench.pocket import subwords
from attnbench.pocket.batches import IGNORED, alike
from attnbench.pocket.network import HEADS, INNER, MATCH, NEAR, WIDTH, sinusoids
from attnbench.pocket.recipes import Lesson, Recipe
from attnbench.pocket.subwords import TOKENS
from attnbench.pocket.text import KEYS

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

LAYERS, KEY_HEADS = 4, 2
SIDES = {"encoder": 2, "decoder": 2}  # Marian's layers


def build(family: str, tokenizer: PreTrainedTokenizerFast) -> PreTrainedModel:
    """Build an untrained model of a family: gpt, llama or marian."""
    import transformers

    ends = {f"{end}_token_id": getattr(tokenizer, f"{end}_token_id") for end in ("pad", "bos", "eos")}
    common = {"vocab_size": len(tokenizer), "tie_word_embeddings": True, **ends}
    if family == "gpt":
        config: Any = transformers.GPT2Config(
            n_embd=WIDTH,
            n_layer=LAYERS,
            n_head=HEADS,
            n_inner=INNER,
            n_positions=TOKENS,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            initializer_range=WIDTH**-0.5,
            **common,
        )
        model: Any = transformers.GPT2LMHeadModel._from_config(config, attn_implementation="eager")
        near(model)
    elif family == "llama":
        config = transformers.LlamaConfig(
            hidden_size=WIDTH,
            num_hidden_layers=LAYERS,
            num_attention_heads=HEADS,
            num_key_value_heads=KEY_HEADS,
            intermediate_size=INNER,
            max_position_embeddings=TOKENS,
            initializer_range=WIDTH**-0.5,
            **common,
        )
        model = transformers.LlamaForCausalLM._from_config(config, attn_implementation="eager")
    else:
        config = transformers.MarianConfig(
            d_model=WIDTH,
            encoder_layers=SIDES["encoder"],
            decoder_layers=SIDES["decoder"],
            encoder_attention_heads=HEADS,
            decoder_attention_heads=HEADS,
            encoder_ffn_dim=INNER,
            decoder_ffn_dim=INNER,
            max_position_embeddings=TOKENS,
            dropout=0.0,
            init_std=WIDTH**-0.5,
            scale_embedding=True,
            activation_function="gelu",
            decoder_start_token_id=tokenizer.pad_token_id,
            forced_eos_token_id=None,
            decoder_vocab_size=len(tokenizer),
            **common,
        )
        model = transformers.MarianMTModel._from_config(config, attn_implementation="eager")
        model.generation_config = transformers.GenerationConfig(
            max_length=TOKENS // 4,
            num_beams=1,
            do_sample=False,
            decoder_start_token_id=tokenizer.pad_token_id,
            bad_words_ids=[[tokenizer.pad_token_id]],
            **ends,
        )
    return model


@torch.no_grad()
def near(model: Any) -> None:
    """Start GPT-2's positions as sinusoids; half of the heads match words, half attend to the token before.

    For the latter a query's sinusoids are turned by one position.
    """
    positions = model.transformer.wpe.weight
    positions.copy_(sinusoids(len(positions), WIDTH) * WIDTH**-0.5)
    size = WIDTH // HEADS
    half, speeds = size // 2, torch.logspace(0, -3, WIDTH // 2)[: size // 2]
    rows, sines, cosines = torch.arange(half), torch.arange(half), WIDTH // 2 + torch.arange(half)
    key, query = torch.zeros(size, WIDTH), torch.zeros(size, WIDTH)
    key[rows, sines] = key[half + rows, cosines] = 1.0
    query[rows, sines] = query[half + rows, cosines] = speeds.cos()
    query[rows, cosines], query[half + rows, sines] = -speeds.sin(), speeds.sin()
    for layer in model.transformer.h:
        for head in range(HEADS):
            match = nn.init.orthogonal_(torch.empty(size, WIDTH)) * MATCH
            pair = (match, match) if head < HEADS // 2 else (query * NEAR, key * NEAR)
            for part, matrix in enumerate(pair):
                at = part * WIDTH + head * size
                layer.attn.c_attn.weight[:, at : at + size] = matrix.T


def pad(rows: list[list[int]], fill: int) -> Tensor:
    """Return (rows, longest) token ids, padded on the right."""
    return nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], True, fill)


def encode(tokenizer: Any, task: str, documents: list[dict[str, Any]]) -> dict[str, Tensor]:
    """Tokenise documents as model inputs with labels: a text between its ends, or a pair."""
    filler = tokenizer.pad_token_id
    if task == "translation":
        sources, rows = (
            tokenizer([document[column] for document in documents])["input_ids"]
            for column in ("source", "target")
        )
        ids, labels = pad(sources, filler), pad(rows, IGNORED)
        return {"input_ids": ids, "attention_mask": (ids != filler).long(), "labels": labels}
    texts = tokenizer([document[KEYS[task]] for document in documents])["input_ids"]
    rows = [[tokenizer.bos_token_id, *row, tokenizer.eos_token_id] for row in texts]
    ids = pad(rows, filler)
    return {"input_ids": ids, "attention_mask": (ids != filler).long(), "labels": pad(rows, IGNORED)}


def stream(tokenizer: Any, task: str, size: int, first: int) -> Iterator[dict[str, Tensor]]:
    """Give the batches from number `first` on, of documents of like length."""
    for group in alike(task, size, first, lambda _: {}):
        yield encode(tokenizer, task, group)


def lesson(family: str, task: str, recipe: Recipe, steps: int) -> Lesson:
    """Set up an untrained model and its training: the next token's cross entropy, nothing else."""
    vocabulary = subwords.build(task)
    model = build(family, vocabulary).train()
    shift = 0 if task == "translation" else 1

    def loss(batch: dict[str, Tensor], done: float) -> Tensor:
        labels = batch["labels"]
        given = {"labels": labels} if task == "translation" else {}
        logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], **given).logits
        kept = logits[:, : logits.shape[1] - shift]
        return cross_entropy(kept.flatten(0, 1), labels[:, shift:].flatten(), ignore_index=IGNORED)

    source = "translation" if task == "translation" else "perplexity"
    return Lesson(
        model=model,
        vocabulary=vocabulary,
        tutor=nn.Module(),
        batches=lambda first: stream(vocabulary, source, recipe.batch, first),
        loss=loss,
    )
