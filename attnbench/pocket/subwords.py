"""The tokenizers of the pocket models that write: byte-level BPE that marks ends, trained on their text."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from attnbench.pocket.text import documents

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

TOKENS = 256
SPECIAL = {"pad": "<pad>", "bos": "<s>", "eos": "</s>", "unk": "<unk>"}
VOCABULARY = {"language": 800, "translation": 800}
DOCUMENTS = {"perplexity": 2000, "agreement": 4000, "translation": 8000}
TASKS = {"language": ("perplexity", "agreement"), "translation": ("translation",)}
COLUMNS = ("text", "sentence_good", "source", "target")


def texts(task: str) -> Iterator[str]:
    """Give the text of some training documents."""
    for part in TASKS[task]:
        for document in documents(part, "train", DOCUMENTS[part]):
            yield from (document[column] for column in COLUMNS if column in document)


def build(task: str) -> PreTrainedTokenizerFast:
    """Train the tokenizer of "language", which adds no special token, or "translation", which adds eos."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY[task],
        special_tokens=list(SPECIAL.values()),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts(task), trainer)
    if task == "translation":
        eos = SPECIAL["eos"]
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"$A {eos}", special_tokens=[(eos, tokenizer.token_to_id(eos))]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=TOKENS,
        model_input_names=["input_ids", "attention_mask"],
        clean_up_tokenization_spaces=False,
        **{f"{name}_token": token for name, token in SPECIAL.items()},
    )
