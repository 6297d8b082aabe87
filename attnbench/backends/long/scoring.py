"""Score answers to questions about long texts; two questions of one context are one sample."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.task import ConfigurableTask


def scores(doc: dict[str, Any], results: Sequence[tuple[float, bool]]) -> dict[str, Any]:
    """Score a document by the (log-likelihood, greedy) of each of its answers.

    acc is the share of the questions whose answer greedy decoding gives, logp the mean log-likelihood of an
    answer, in nats; acc_middle is acc of what lies outside the context's first 4 and last 64 tokens, as
    (right, asked): where something is asked that has a place.
    """
    middle = doc["middle"] if isinstance(doc["middle"], list) else [doc["middle"]]
    right = [bool(greedy) for _, greedy in results]
    found: dict[str, Any] = {
        "acc": sum(right) / len(right),
        "logp": sum(value for value, _ in results) / len(results),
    }
    if doc["depth"] is not None:
        found["acc_middle"] = (sum(a and b for a, b in zip(right, middle, strict=True)), sum(middle))
    return found


def ratio(items: Sequence[tuple[float, float]]) -> float:
    """Return the sum of the first over the sum of the second, NaN where that is 0."""
    right, asked = (sum(column) for column in zip(*items, strict=True))
    return right / asked if asked else math.nan


class Questions(ConfigurableTask):
    """Ask each question of a document by itself, after the same context.

    A document is one sample whatever it is asked: intervals are over contexts.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(config={key: value for key, value in config.items() if key != "class"})

    def construct_requests(self, doc: dict[str, Any], ctx: str, **options: Any) -> list[Instance]:
        """Return a request a question: the first one's text, at the end of what is rendered, gives way."""
        first, prefix = doc["question"][0].strip(), doc["prefix"][0]
        start = ctx.rindex(first)
        return [
            Instance(
                request_type="loglikelihood",
                doc=doc,
                arguments=(
                    ctx[:start] + ctx[start:].replace(first, question.strip(), 1).replace(prefix, own, 1),
                    answer,
                ),
                idx=number,
                metadata=options["metadata"],
            )
            for number, (question, own, answer) in enumerate(
                zip(doc["question"], doc["prefix"], doc["answer"], strict=True)
            )
        ]
