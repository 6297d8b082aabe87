"""Texts scored as a whole, but for the first tokens of each window, which are a prompt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from attnbench.backends.causal.inputs import Inputs
from attnbench.errors import UserError
from attnbench.inputs.tasks import TaskFile
from attnbench.statistics import aggregates


def require_texts(file: TaskFile, form: str) -> None:
    """Raise UserError where a task's name says that windows of texts have a prompt, and it scores none."""
    if file.ending.prompt and form != "rolling":
        raise UserError(f"task '{file.plain}' scores no texts as a whole: leave {file.ending.option} out")


def require_scored(file: TaskFile, inputs: Inputs) -> None:
    """Raise UserError where every window ends in its prompt."""
    if file.ending.prompt and not inputs.scored:
        raise UserError(
            f"task '{file.name}': no window of its texts has more than {file.ending.prompt + 1} tokens, the "
            f"model takes {inputs.longest}: nothing would be scored. Give a smaller --prompt."
        )


def notes(file: TaskFile, inputs: Inputs) -> list[str]:
    """Say how many windows end in their prompt."""
    less = inputs.windows - inputs.scored
    told = f"{less} of {inputs.windows} windows of task '{file.name}' have at most"
    return [f"{told} {(file.ending.prompt or 0) + 1} tokens: nothing of them is scored"] * (less > 0)


def evaluate(instances: Sequence[Any], lm: Any, counts: Sequence[int]) -> dict[str, dict[str, Any]]:
    """Measure the perplexity a token of what is scored, so many tokens of each text, as `Stock.evaluate`.

    exp(-sum of log-likelihoods / sum of counts). lm-eval's own metrics count words and bytes of whole texts.
    """
    values = lm.loglikelihood_rolling(instances)
    for instance, value in zip(instances, values, strict=True):
        instance.resps = [value]
    scores = np.stack([values, counts], 1).astype(np.float64)
    value = aggregates.aggregate("perplexity", scores)
    lower = {"higher_is_better": False, "aggregate": "perplexity"}
    return {"token_perplexity": {"value": value, **lower, "scores": scores}}
