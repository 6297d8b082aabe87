"""The pocket encoders' tokenizers: WordPiece or byte-level BPE, from all of their tasks' text."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from string import ascii_letters, digits, punctuation
from typing import TYPE_CHECKING, Any

from attnbench.pocket.text import documents

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

VOCABULARY = 1500
TOKENS = 256
WORDPIECE = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
SPECIAL = {
    "bert": WORDPIECE,
    "electra": WORDPIECE,
    "roberta": {"cls": "<s>", "pad": "<pad>", "sep": "</s>", "unk": "<unk>", "mask": "<mask>"},
}


def texts() -> Iterator[str]:
    """Give every text field of some training documents, each task with about as many words."""
    for task, count in (("qa", 2000), ("sentiment", 10_000)):
        for document in documents(task, "train", count):
            yield from (document[key] for key in ("text", "question", "context") if key in document)


def wordpieces() -> dict[str, int]:
    """Number the most frequent words, and every character so that any other word can be spelled.

    The tokenizers library's own trainer numbers them anew in every process: no run would repeat.
    """
    words = Counter(word for text in texts() for word in re.findall(r"\w+|[^\w\s]", text.lower()))
    characters = sorted({*ascii_letters.lower(), *digits, *punctuation})
    pieces = [*WORDPIECE.values(), *characters, *(f"##{character}" for character in characters)]
    ranked = sorted(words.keys() - {*characters}, key=lambda word: (-words[word], word))
    return {piece: number for number, piece in enumerate([*pieces, *ranked][:VOCABULARY])}


def build(family: str) -> PreTrainedTokenizerFast:
    """Train a family's tokenizer."""
    from tokenizers import (
        AddedToken,
        Tokenizer,
        decoders,
        models,
        normalizers,
        pre_tokenizers,
        processors,
        trainers,
    )
    from transformers import PreTrainedTokenizerFast

    special = SPECIAL[family]
    pieces = special is WORDPIECE
    if pieces:
        tokenizer = Tokenizer(models.WordPiece(wordpieces(), unk_token=special["unk"]))
        tokenizer.add_special_tokens(list(special.values()))
        tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        tokenizer.decoder = decoders.WordPiece()
        sep, cls = ((special[end], tokenizer.token_to_id(special[end]) or 0) for end in ("sep", "cls"))
        tokenizer.post_processor = processors.BertProcessing(sep, cls)
    else:
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=VOCABULARY,
            special_tokens=list(special.values()),
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        )
        tokenizer.train_from_iterator(texts(), trainer)
        sep, cls = ((special[end], tokenizer.token_to_id(special[end]) or 0) for end in ("sep", "cls"))
        tokenizer.post_processor = processors.RobertaProcessing(sep, cls, trim_offsets=True)
    names: dict[str, Any] = {f"{name}_token": token for name, token in special.items()}
    if not pieces:
        names["mask_token"] = AddedToken("<mask>", lstrip=True, special=True)
    inputs = ["input_ids", *(["token_type_ids"] if pieces else []), "attention_mask"]
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=TOKENS, model_input_names=inputs, **names
    )
