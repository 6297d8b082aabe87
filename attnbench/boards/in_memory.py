"""A model in memory as one that a run can load: saved for as long as it is measured."""

from __future__ import annotations

import contextlib
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from attnbench.errors import UserError
from attnbench.inputs.settings import EAGER_TOLERANCE

WORD = re.compile(r"[^\w.-]+")
FOLDER = "model"  # whatever its name is, it stays in a folder of its own


@contextlib.contextmanager
def saved(model: Any, tokenizer: Any = None, name: str | None = None) -> Iterator[str]:
    """Yield NAME=FOLDER of a model's weights, config and tokenizer, in a temporary folder.

    Its fingerprint is that of what is saved, so of its weights as they are now. Without a tokenizer it is
    that of the folder or Hub id that the model was loaded from. Raises UserError where there is none, and
    where what is saved answers otherwise than the model, as one does whose methods or hooks no file holds.
    """
    from transformers import PreTrainedModel

    from attnbench.engine.places import routing

    if not isinstance(model, PreTrainedModel):
        raise UserError(
            f"{type(model).__name__} is not a transformers model: attnbench needs a PreTrainedModel. Of one "
            "of peft's that is what its merge_and_unload() returns"
        )
    label = WORD.sub("-", name or type(model).__name__)
    if not label.strip(".-"):
        raise UserError(f"name={name!r} holds no letter or digit")
    if routing.serving(model) is not None:
        raise UserError(
            f"methods are applied to this {type(model).__name__}, and a run applies its own: leave that "
            "block first, and name the methods: run(model, METHODS, …)"
        )
    origin = str(getattr(model.config, "name_or_path", "") or "")
    if tokenizer is None:
        from transformers import AutoTokenizer

        try:
            tokenizer = AutoTokenizer.from_pretrained(origin)
        except (OSError, ValueError) as error:
            raise UserError(
                f"{type(model).__name__}: no tokenizer is known of it. Give one: run(model, …, tokenizer=…)"
            ) from error
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder, FOLDER)
        model.save_pretrained(place)
        tokenizer.save_pretrained(place)
        _require_same(model, place)
        yield f"{label}={place}"


def _require_same(model: Any, place: Path) -> None:
    """Raise UserError where transformers, of what was saved, loads a model that answers otherwise."""
    import transformers

    from attnbench.engine.places import probing

    own = (c for c in type(model).__mro__ if getattr(transformers, c.__name__, None) is c)
    cls = next((c for c in own if c is not transformers.PreTrainedModel), None)
    if cls is None or getattr(model, "is_quantized", False):
        return  # its code, or its packed weights, are what was saved
    again = cls.from_pretrained(
        place, dtype=model.dtype, attn_implementation=model.config._attn_implementation,
        ignore_mismatched_sizes=True,
    ).to(model.device)  # fmt: skip
    batch = probing.probe_batch(model, examples=2)
    expected, found = (probing.answer(each, batch).to_tuple()[0].float() for each in (model, again))
    gap = float((found - expected).abs().max() / expected.abs().max().clamp(min=1))
    if not gap <= EAGER_TOLERANCE[str(model.dtype).removeprefix("torch.")]:
        raise UserError(
            f"{type(model).__name__} answers otherwise, by {gap:.2g}, when it is loaded as {cls.__name__} "
            "from what it saves: its weights and its config do not tell all that it does. Take off hooks and "
            "modules of your own, or merge them into its weights"
        )
