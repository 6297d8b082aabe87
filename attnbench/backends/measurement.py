"""What an evaluation returns, and the hashes that say what was evaluated."""

from __future__ import annotations

import ast
import hashlib
import inspect
import json
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from attnbench.methods.code import text_of


@dataclass
class Measurement:
    """What one evaluation found.

    `scores` holds doc_id and each metric by sample; `outputs` the raw answer by sample: the logits, for a
    span (first character, one past the last, score), log-likelihoods, or numbers that stand for a text.
    `likely` is what was expected in the place of each target token, where a task scores texts.
    """

    metrics: dict[str, dict[str, Any]]
    scores: dict[str, np.ndarray]
    outputs: list[np.ndarray]
    likely: dict[str, np.ndarray] = field(default_factory=dict)


def hash_of(content: Iterable[Any]) -> str:
    """Hash parts as JSON, in order: sha256."""
    digest = hashlib.sha256()
    for part in content:
        digest.update(json.dumps(part, sort_keys=True, ensure_ascii=False, default=str).encode())
        digest.update(b"\n")
    return digest.hexdigest()


def of_texts(texts: Sequence[str]) -> np.ndarray:
    """Return 8 numbers, 0 to 255, that stand for generated texts."""
    digest = hashlib.sha256("\n".join(texts).encode()).digest()
    return np.frombuffer(digest[:8], np.uint8).astype(np.float32)


def code_of(part: Any) -> str:
    """Return the source of a class, function or module without its docstrings and import lines."""
    return text_of(ast.parse(textwrap.dedent(inspect.getsource(part))))
