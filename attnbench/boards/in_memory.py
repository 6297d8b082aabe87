"""A model in memory as one that a run can load: saved for as long as it is measured."""

from __future__ import annotations

import contextlib
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from attnbench.errors import UserError

WORD = re.compile(r"[^\w.-]+")


@contextlib.contextmanager
def saved(model: Any, tokenizer: Any = None, name: str | None = None) -> Iterator[str]:
    """Yield NAME=FOLDER of a model's weights, config and tokenizer, in a temporary folder.

    Its fingerprint is that of what is saved, so of its weights as they are now. Without a tokenizer it is
    that of the folder or Hub id that the model was loaded from. Raises UserError where there is none.
    """
    origin = str(getattr(model.config, "name_or_path", "") or "")
    if tokenizer is None:
        from transformers import AutoTokenizer

        try:
            tokenizer = AutoTokenizer.from_pretrained(origin)
        except (OSError, ValueError) as error:
            raise UserError(
                f"{type(model).__name__}: no tokenizer is known of it. Give one: run(model, …, tokenizer=…)"
            ) from error
    label = WORD.sub("-", name or type(model).__name__)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder, label)
        model.save_pretrained(place)
        tokenizer.save_pretrained(place)
        yield f"{label}={place}"
