"""Evaluate a checkpoint on a task through lm-eval, by the kind of checkpoint it is."""

from __future__ import annotations

from typing import Any

from attnbench.backends.encoders import checks
from attnbench.backends.encoders import prepared as encoders
from attnbench.backends.kinds import kind
from attnbench.errors import Misfit
from attnbench.inputs import tasks
from attnbench.inputs.settings import Settings


def prepare(task: str, checkpoint: Any, settings: Settings) -> Any:
    """Load a task's documents and build and tokenise its requests, once for all methods.

    Of the settings `limit` keeps the first documents, `seed` draws the calibration samples, `include_path` is
    a folder with more tasks, `calibration` is DATASET:SPLIT or DATASET:CONFIGURATION:SPLIT instead of the
    task's own split, `max_length` the tokens that a classifier's longer texts are cut to and a
    language model reads at a time. Raises UserError
    for an unknown task and data that cannot be had, Misfit for a head for another task.
    """
    found = kind(checkpoint.config())
    file = tasks.find(task, settings.include_path, found)
    causal = file.head == "causal-lm" and found == "causal"
    if settings.max_length is not None and file.head not in (None, "classification") and not causal:
        raise checks.not_cut(file)
    if settings.prompting.given() and not causal:
        raise checks.not_prompted(file, settings.prompting)
    if file.ending.option and not causal:
        raise checks.not_ended(file)
    if settings.calibration_tokens and not causal:
        raise checks.no_tokens(file)
    if causal:
        from attnbench.backends.causal import prepared

        return prepared.prepare(file, checkpoint, settings)
    if file.head == "seq2seq" and found == "seq2seq":
        from attnbench.backends.translation import prepared as translation

        return translation.prepare(file, checkpoint, settings)
    if file.head in ("causal-lm", "seq2seq"):
        architecture = ", ".join(checkpoint.config().architectures or ["model of no named architecture"])
        wanted = {"causal-lm": "a causal language model", "seq2seq": "an encoder-decoder"}[file.head]
        raise Misfit(
            f"model '{checkpoint.name}' does not fit task '{file.name}': it is a {architecture}, "
            f"the task needs {wanted}."
        )
    return encoders.prepare(file, checkpoint, settings)
