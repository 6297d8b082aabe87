"""Tiny causal checkpoints of words w0 to w39, and tasks of lm-eval's stock form for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

WORDS = [f"w{k}" for k in range(40)]
DATA = """
import random
from datasets import Dataset, DatasetDict

def words(rng, low, high):
    return [f"w{rng.randrange(40)}" for _ in range(rng.randint(low, high))]

def document(rng):
    first, longest = words(rng, 3, 12), words(rng, 1, 90)
    choices = [" ".join(words(rng, 1, 4)) for _ in range(rng.randint(2, 4))]
    return {
        "good": " ".join(first), "bad": " ".join([*first[:-1], "w0"]), "page": " ".join(longest),
        "choices": choices, "label": rng.randrange(len(choices)), "last": rng.choice(first),
    }

def made(**ignored):
    splits = {name: random.Random(name) for name in ("train", "validation")}
    return DatasetDict(
        {name: Dataset.from_list([document(rng) for _ in range(12)]) for name, rng in splits.items()}
    )

def same(**ignored):
    return DatasetDict({"train": made()["validation"], "validation": made()["validation"]})

def spaced(**ignored):
    found = same()
    found["train"] = found["train"].map(lambda doc: {"good": "  ".join(doc["good"].split())})
    return found
"""
COMMON = {
    "custom_dataset": "!function made.made",
    "validation_split": "validation",
    "training_split": "train",
    "num_fewshot": 0,
}
ACC = "{metric: acc, aggregation: mean, higher_is_better: true}"
PERPLEXITY = "{metric: perplexity, aggregation: perplexity, higher_is_better: false}"
FORMS = {
    "pairs": {
        "output_type": "multiple_choice", "doc_to_text": '""', "doc_to_target": 0,
        "doc_to_choice": '"{{[good, bad]}}"', "metric_list": f"[{ACC}]",
    },
    "choices": {
        "output_type": "multiple_choice", "doc_to_text": "good", "doc_to_target": "label",
        "doc_to_choice": "choices", "metric_list": f"[{ACC}]",
    },
    "last": {
        "output_type": "loglikelihood", "doc_to_text": "good", "doc_to_target": '" {{last}}"',
        "target_delimiter": '""', "metric_list": f"[{PERPLEXITY}, {ACC}]",
    },
    "pages": {
        "output_type": "loglikelihood_rolling", "doc_to_text": '""', "doc_to_target": "page",
        "metric_list": "[{metric: word_perplexity}, {metric: byte_perplexity}, {metric: bits_per_byte}]",
    },
    "written": {
        "output_type": "generate_until", "doc_to_text": "good", "doc_to_target": "last",
        "generation_kwargs": "{until: [w7], max_gen_toks: 6, do_sample: false}",
        "metric_list": "[{metric: exact_match, aggregation: mean, higher_is_better: true}]",
    },
}  # fmt: skip


def build(
    folder: Path,
    family: str = "gpt2",
    positions: int = 32,
    special: tuple[str, ...] = ("pad", "bos", "eos"),
    vocabulary: int | None = None,
    chat_template: str | None = None,
) -> None:
    """Save a tiny model with random weights, and its tokenizer."""
    import transformers
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    known = {token: k for k, token in enumerate([*(f"<{name}>" for name in special), "[UNK]", *WORDS])}
    raw = Tokenizer(models.WordLevel(known, unk_token="[UNK]"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    raw.decoder = decoders.WordPiece()
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=raw, **{f"{name}_token": f"<{name}>" for name in special}
    )
    size = {"vocab_size": vocabulary or len(known), "bos_token_id": 1, "eos_token_id": 2}
    if family == "gpt2":
        config = transformers.GPT2Config(
            n_embd=16, n_layer=2, n_head=2, n_positions=positions,
            attn_pdrop=0.0, embd_pdrop=0.0, resid_pdrop=0.0, **size,
        )  # fmt: skip
        model = transformers.GPT2LMHeadModel(config)
    else:
        shape = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 24}
        config = transformers.LlamaConfig(
            num_key_value_heads=2, max_position_embeddings=positions, **shape, **size
        )
        model = transformers.LlamaForCausalLM(config)
    torch.manual_seed(0)
    for weight in model.parameters():
        if weight.dim() == 2:
            weight.data.normal_(std=0.5)
    model.generation_config.pad_token_id = 0
    tokenizer.chat_template = chat_template
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def tokenizer() -> Any:
    """Return a tokenizer of words alone, with a token for padding and one at either end of a text."""
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers

    known = {token: k for k, token in enumerate(["<pad>", "<s>", "</s>", "[UNK]", *WORDS])}
    raw = Tokenizer(models.WordLevel(known, unk_token="[UNK]"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=raw, pad_token="<pad>", bos_token="<s>", eos_token="</s>"
    )


def drawn(seed: int, count: int) -> str:
    """Draw a text of so many words."""
    draw = torch.Generator().manual_seed(seed)
    return " ".join(WORDS[k] for k in torch.randint(len(WORDS), (count,), generator=draw).tolist())


def write(folder: Path, form: str = "pairs", name: str = "made", **changes: Any) -> str:
    """Write a task's YAML beside its data, and return the folder."""
    (folder / "made.py").write_text(DATA)
    content = {"task": name, **COMMON, **FORMS[form], **changes}
    lines = [f"{key}: {value}" for key, value in content.items() if value is not None]
    (folder / f"{name}.yaml").write_text("\n".join(lines))
    return str(folder)
