"""What the pocket models that write are asked: agreement, perplexity, translation, by plain loops."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from attnbench.pocket import decoders
from attnbench.pocket.card import BATCH

if TYPE_CHECKING:
    from torch import Tensor

HEADS = {"language": "CausalLM", "translation": "Seq2SeqLM"}


@dataclass
class Score:
    """What a model has on a task: its metric, and a number for every sample, the higher the better."""

    value: float
    samples: Tensor


def load(task: str, folder: Path) -> tuple[Any, Any]:
    """Load a folder's model and tokenizer."""
    import transformers

    model = getattr(transformers, f"AutoModelFor{HEADS[task]}").from_pretrained(folder).eval()
    return model, transformers.AutoTokenizer.from_pretrained(folder)


def by_length(texts: list[str]) -> list[list[int]]:
    """Group the numbers of texts of like length."""
    numbers = sorted(range(len(texts)), key=lambda number: len(texts[number]))
    return [numbers[at : at + BATCH] for at in range(0, len(numbers), BATCH)]


def log_likelihoods(model: Any, tokenizer: Any, texts: list[str]) -> Tensor:
    """Return (texts,) sums of the tokens' log-probabilities after bos, as lm-eval has them."""
    rows = [[tokenizer.bos_token_id, *row] for row in tokenizer(texts)["input_ids"]]
    found = torch.zeros(len(rows), dtype=torch.double)
    for numbers in by_length(texts):
        chosen = [rows[number] for number in numbers]
        ids = decoders.pad(chosen, tokenizer.pad_token_id)
        there = decoders.pad([[1] * len(row) for row in chosen], 0)
        with torch.inference_mode():
            logits = model(input_ids=ids, attention_mask=there).logits[:, :-1]
        chances = logits.log_softmax(-1).gather(2, ids[:, 1:, None])[..., 0]
        found[numbers] = (chances * there[:, 1:]).sum(1).double()
    return found


def agreement(model: Any, tokenizer: Any, found: list[dict[str, Any]]) -> Score:
    good, bad = (
        log_likelihoods(model, tokenizer, [pair[f"sentence_{side}"] for pair in found])
        for side in ("good", "bad")
    )
    right = (good > bad).double()
    return Score(float(right.mean()), right)


def perplexity(model: Any, tokenizer: Any, found: list[dict[str, Any]]) -> Score:
    texts = [document["text"] for document in found]
    return per_word(texts, log_likelihoods(model, tokenizer, texts))


def per_word(texts: list[str], sums: Tensor) -> Score:
    """Return exp(-Σ log-likelihood / Σ words), with each text's log-likelihood."""
    return Score(math.exp(-float(sums.sum()) / sum(len(text.split()) for text in texts)), sums)


def translate(model: Any, tokenizer: Any, sources: list[str]) -> list[str]:
    """Translate greedily."""
    found = [""] * len(sources)
    for numbers in by_length(sources):
        batch = tokenizer([sources[number] for number in numbers], return_tensors="pt", padding=True)
        with torch.inference_mode():
            texts = tokenizer.batch_decode(model.generate(**batch), skip_special_tokens=True)
        for number, text in zip(numbers, texts, strict=True):
            found[number] = text.strip()
    return found


def bleu(found: list[str], references: list[str]) -> Score:
    """Return corpus BLEU as a fraction, with every sentence's."""
    import sacrebleu

    each = [
        sacrebleu.sentence_bleu(text, [reference]).score
        for text, reference in zip(found, references, strict=True)
    ]
    corpus = sacrebleu.corpus_bleu(found, [references]).score
    return Score(corpus / 100, torch.tensor(each, dtype=torch.double) / 100)


def translation(model: Any, tokenizer: Any, found: list[dict[str, Any]]) -> Score:
    texts = translate(model, tokenizer, [document["source"] for document in found])
    return bleu(texts, [document["target"] for document in found])


EXAMS: dict[str, dict[str, Callable[[Any, Any, list[dict[str, Any]]], Score]]] = {
    "language": {"pocket-agreement": agreement, "pocket-perplexity": perplexity},
    "translation": {"pocket-translation": translation},
}
