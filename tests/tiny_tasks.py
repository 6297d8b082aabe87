"""Tiny checkpoints of words w0 to w59 and task files, for the tests of the encoders' tasks."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from attnbench.inputs.models import Checkpoint

WORDS = [f"w{k}" for k in range(60)]
SPECIAL = {
    "bert": {"pad": "[PAD]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]", "unk": "[UNK]"},
    "roberta": {"cls": "<s>", "pad": "<pad>", "sep": "</s>", "mask": "<mask>", "unk": "<unk>"},
}


def tokenizer(family: str = "bert", mask: bool = True) -> Any:
    """Make a tokenizer of words between its family's special tokens."""
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    named = {key: token for key, token in SPECIAL[family].items() if mask or key != "mask"}
    vocabulary = {token: k for k, token in enumerate([*named.values(), *WORDS])}
    raw = Tokenizer(models.WordLevel(vocabulary, unk_token=named["unk"]))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    start, end = named["cls"], named["sep"]
    pair = f"{start} $A {end} $B:1 {end}:1" if family == "bert" else f"{start} $A {end} {end} $B {end}"
    raw.post_processor = processors.TemplateProcessing(
        single=f"{start} $A {end}",
        pair=pair,
        special_tokens=[(token, vocabulary[token]) for token in (start, end)],
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=raw,
        model_input_names=["input_ids", *["token_type_ids"] * (family == "bert"), "attention_mask"],
        **{f"{key}_token": token for key, token in named.items()},
    )


def checkpoint(
    folder: Path,
    family: str = "bert",
    head: str = "SequenceClassification",
    labels: tuple[str, ...] = ("no", "yes"),
    positions: int = 80,
    mask: bool = True,
    seed: int = 0,
) -> Checkpoint:
    """Save a tiny model with random weights that attends sharply, and its tokenizer."""
    import transformers

    words = tokenizer(family, mask)
    name = {"bert": "Bert", "roberta": "Roberta"}[family]
    config = getattr(transformers, f"{name}Config")(
        vocab_size=len(words), hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=positions + 2 * (family == "roberta"),
        pad_token_id=words.pad_token_id, type_vocab_size=2 if family == "bert" else 1,
        id2label=dict(enumerate(labels)),
    )  # fmt: skip
    torch.manual_seed(seed)
    model = getattr(transformers, f"{name}For{head}")(config)
    for weight in model.parameters():
        weight.data.normal_(std=0.4)
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    return Checkpoint("tiny", str(folder), "folder")


def built_once(factory: Any, save: Callable[..., Any]) -> Callable[..., Checkpoint]:
    """Return what gives the checkpoint that `save(folder, *choice)` makes, saved once for each choice."""

    @functools.cache
    def build(*choice: Any, **options: Any) -> Checkpoint:
        folder = factory.mktemp("tiny")
        save(folder, *choice, **options)
        return Checkpoint("tiny", str(folder), "folder")

    return build


def write(folder: Path, data: str, content: dict[str, str], name: str = "made") -> str:
    """Write a task's YAML beside the module of its data, and return the folder."""
    (folder / "made_up.py").write_text(data)
    lines = [f"{key}: {value}" for key, value in {"task": name, **content}.items() if value is not None]
    (folder / f"{name}.yaml").write_text("\n".join(lines) + "\n")
    return str(folder)
