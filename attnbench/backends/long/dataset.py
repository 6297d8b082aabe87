"""Give lm-eval contexts of a length by a model's own tokenizer, with questions and answers.

As lm-eval's own generated tasks do, `dataset` takes what `--metadata` says and the arguments of the model.
"""

from __future__ import annotations

import functools
import random
from typing import Any

from attnbench.backends.long.contexts import Count, fitted, in_middle
from attnbench.backends.long.writers import KINDS
from attnbench.errors import UserError, unknown

EVALUATED = "validation"


def documents(
    kind: str, count: Count, split: str, samples: int, length: int = 512, hops: int = 1
) -> list[dict[str, Any]]:
    """Write the first `samples` documents of a split; `count` tells how many tokens a text has.

    {"id", "context", "length", "question", "prefix", "answer", "depth", "middle"}: the prompt is context,
    question and prefix, and middle tells whether what is asked for lies outside the context's first 4 and
    last 64 tokens. Where several questions are asked of a context, question to middle are lists. A document
    has a seed of its own, from the kind, the split, the length and its number. Raises UserError for too short
    a length.
    """
    if kind not in KINDS:
        raise unknown("long task", kind, KINDS, f"Known: {', '.join(KINDS)}.")
    found = []
    for number in range(samples):
        rng = random.Random(f"attnbench long {kind} {split} {length} {number}")
        draft = KINDS[kind].draft(rng, number, hops)
        text = fitted(draft, functools.partial(KINDS[kind].filler, draft), rng, count, length)
        asked = [
            {
                "question": each.text,
                "prefix": each.prefix,
                "answer": each.answer,
                "depth": None if each.fact is None else draft.facts[each.fact][1],
                "middle": in_middle(text, each.fact, count),
            }
            for each in draft.questions
        ]
        fields = {key: [each[key] for each in asked] for key in asked[0]}
        single = {key: values[0] for key, values in fields.items()} if len(asked) == 1 else fields
        found.append({"id": f"{split}-{number}", "context": text.context, "length": length, **single})
    return found


def dataset(
    kind: str,
    length: int = 512,
    samples: int = 500,
    hops: int = 1,
    calibration: dict[str, Any] | None = None,
    tokenizer: Any = None,
    pretrained: str | None = None,
    **metadata: Any,
) -> Any:
    """Give lm-eval's `custom_dataset` what it wants: the evaluated split, and the one to learn from.

    `tokenizer` is one, or the name of one, as `pretrained` is. Raises UserError without any.
    """
    from datasets import Dataset, DatasetDict

    count = counting(tokenizer or pretrained)
    sizes = {EVALUATED: samples}
    if calibration:
        sizes[calibration["split"]] = calibration["samples"]
    return DatasetDict(
        {name: Dataset.from_list(documents(kind, count, name, n, length, hops)) for name, n in sizes.items()}
    )


def counting(tokenizer: Any) -> Count:
    """Return how many tokens a text has, with those that a tokenizer puts around it."""
    if not tokenizer:
        raise UserError('a long text needs a tokenizer: name one by --metadata \'{"tokenizer": "NAME"}\'')
    if isinstance(tokenizer, str):
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(tokenizer)
    known = tokenizer

    @functools.lru_cache(1 << 16)
    def count(text: str) -> int:
        return len(known(text, verbose=False)["input_ids"])

    return count
