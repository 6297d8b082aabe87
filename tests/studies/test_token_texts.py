"""Tokens as the texts that they stand for, of each kind of tokenizer; what is expected is written by hand."""

from __future__ import annotations

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from attnbench.studies.token_texts import text_of

WORDS = ("a", "the", "ing")


def byte_level() -> Tokenizer:
    found = Tokenizer(models.BPE({name: k for k, name in enumerate(("a", "Ġ", "Ġa", "<s>"))}, [("Ġ", "a")]))
    found.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    found.decoder = decoders.ByteLevel()
    return found


def sentence_piece() -> Tokenizer:
    vocabulary = {name: k for k, name in enumerate(("<s>", "▁", "a", "▁a", "▁the", "<0x0A>"))}
    found = Tokenizer(models.BPE(vocabulary, [("▁", "a")]))
    found.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    found.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return found


def word_piece() -> Tokenizer:
    names = ("[UNK]", *WORDS, "##ing")
    found = Tokenizer(models.WordPiece({name: k for k, name in enumerate(names)}, unk_token="[UNK]"))
    found.pre_tokenizer = pre_tokenizers.Whitespace()
    found.decoder = decoders.WordPiece()
    return found


@pytest.mark.parametrize(("made", "texts"), [
    (byte_level, {
        "the": "the", "Ġthe": "␣the", "Ġ": "␣", "Ċ": "↵", "ĠĊ": "␣↵", "ĉ": "⇥", "ĠcafÃ©": "␣café",
        "æľ¬": "本", "æĹ": "<0xE6><0x97>", "ĠÃ": "␣<0xC3>", "<s>": "<s>",
    }),
    (sentence_piece, {"a": "a", "▁the": "␣the", "▁": "␣", "▁▁": "␣␣", "<0x0A>": "↵", "<s>": "<s>"}),
    (word_piece, {"the": "the", "##ing": "##ing", "[UNK]": "[UNK]"}),
])  # fmt: skip
def test_a_token_is_shown_as_its_text(made, texts):
    named = {"unk_token": "[UNK]"} if made is word_piece else {"bos_token": "<s>"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=made(), **named)
    written = text_of(tokenizer)
    assert {name: written(name) for name in texts} == texts
    assert len({*texts.values()}) == len(texts)  # no two become one
