"""What a token stands for, by its tokenizer's own decoding: `Ġthe` and `▁the` are both `␣the`.

Tables and records hold tokens as the tokenizer writes them; pages and pictures show these texts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

VISIBLE = {" ": "␣", "\n": "↵", "\t": "⇥", "\r": "␍"}
ANCHOR = "a"  # stands before a token, whose blank at the begin of a text a decoder would drop
UNKNOWN = "\ufffd"  # what a decoder writes for a part of a character


def text_of(tokenizer: Any) -> Callable[[str], str]:
    """Return what writes the text of a token, its blanks visible.

    A special token is its name. Tokens of WordPiece, which mark what continues a word and no blanks, stay as
    they are; a part of a character is its bytes, as `<0xE6>`.
    """
    if not (hasattr(tokenizer, "tokenize") and hasattr(tokenizer, "convert_tokens_to_string")):
        return str  # ids, or names by a look-up of the caller's own
    marked = tokenizer.tokenize(f"{ANCHOR} {ANCHOR}")
    if len(marked) < 2 or marked[-1] == ANCHOR:
        return str
    special = {str(each) for each in tokenizer.all_special_tokens}
    first = tokenizer.tokenize(ANCHOR)
    before = len(tokenizer.convert_tokens_to_string(first))

    def text(name: str) -> str:
        if name in special:
            return name
        found = tokenizer.convert_tokens_to_string([*first, name])[before:]
        if UNKNOWN in found:
            found = _bytes(name)
        shown = "".join(VISIBLE.get(character, character) for character in found)
        return shown if shown.isprintable() and shown else name

    return text


def _bytes(name: str) -> str:
    """Write the bytes of a byte-level token; a token of another kind is its name."""
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    byte_of = {character: byte for byte, character in bytes_to_unicode().items()}
    if not all(character in byte_of for character in name):
        return name
    found = (byte_of[character] for character in name)
    return "".join(chr(byte) if byte < 0x80 else f"<0x{byte:02X}>" for byte in found)
