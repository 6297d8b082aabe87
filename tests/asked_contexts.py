"""Tasks of lm-eval's form whose documents have a passage, marked as context, and a question on it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from slow_caches import table

DATA = """
import random
from datasets import Dataset, DatasetDict

def words(rng, low, high):
    return " ".join(f"w{rng.randrange(36)}" for _ in range(rng.randint(low, high)))

def document(rng):
    return {
        "passage": words(rng, 9, 20), "ask": words(rng, 2, 4), "label": rng.randrange(2),
        "options": [words(rng, 1, 3) for _ in range(2)],
    }

def made(**ignored):
    splits = {name: random.Random(name) for name in ("train", "validation")}
    return DatasetDict(
        {name: Dataset.from_list([document(rng) for _ in range(6)]) for name, rng in splits.items()}
    )

def lost(**ignored):
    found = made()
    docs = found["validation"].to_list()
    docs[3]["passage"] = docs[3]["passage"].upper()
    return DatasetDict({**found, "validation": Dataset.from_list(docs)})
"""
MARKED = {"context": "passage", "question": "ask"}
ACC = "[{metric: acc, aggregation: mean, higher_is_better: true}]"
FORMS = {
    "chosen": {"output_type": "multiple_choice", "doc_to_target": "label", "doc_to_choice": "options",
               "metric_list": ACC},
    "written": {"output_type": "generate_until", "doc_to_target": '"{{options[0]}}"',
                "generation_kwargs": "{until: [w37], max_gen_toks: 5, do_sample: false}",
                "metric_list": ACC.replace("acc,", "exact_match,")},
}  # fmt: skip
CHAT = "{% for m in messages %}w39 {{ m['content'] | trim }} w38 {% endfor %}"


def write(folder: Path, form: str = "chosen", name: str = "asked", **changes: Any) -> str:
    """Write a task's YAML beside its data, and return the folder."""
    (folder / f"{name}_data.py").write_text(DATA)
    content = {
        "task": name, "custom_dataset": f"!function {name}_data.made", "validation_split": "validation",
        "training_split": "train", "fewshot_split": "train", "doc_to_text": '"{{passage}} {{ask}}"',
        "metadata": MARKED, **FORMS[form], **changes,
    }  # fmt: skip
    lines = [f"{key}: {value}" for key, value in content.items() if value is not None]
    (folder / f"{name}.yaml").write_text("\n".join(lines).replace("'", ""))
    return str(folder)


def first_and_last(n: int, heads: int) -> np.ndarray:
    """What `evict50:streamingllm` keeps of a prompt of n tokens."""
    k = n - n // 2
    sinks = min(4, k)
    return table([{*range(sinks), *range(n - k + sinks, n)}] * heads, n)
