"""Whether a task and a checkpoint fit each other: its head, its labels, the room for a text."""

from __future__ import annotations

from typing import Any

from attnbench.backends.classification import MULTI, NUMBERS, Classify, Regress, Texts
from attnbench.backends.encoders.tasks import EncoderTask
from attnbench.errors import Misfit, UserError
from attnbench.inputs import tasks
from attnbench.inputs.prompting import Prompting

ARCHITECTURES = {
    "classification": "ForSequenceClassification",
    "qa": "ForQuestionAnswering",
    "masked-lm": "ForMaskedLM",
}


def not_cut(file: tasks.TaskFile) -> UserError:
    """Build the error for a length that is asked of a task whose texts are not cut."""
    return UserError(
        f"--max-length cuts the texts of a classifier's task, which '{file.name}' is not: leave it out. A "
        "window's max_seq_length stands in the task's YAML."
    )


def not_prompted(file: tasks.TaskFile, prompting: Prompting) -> Misfit:
    """Build the error for prompts that are asked of a task which has none."""
    option = f"--{next(iter(prompting.given())).replace('_', '-')}"
    return Misfit(
        f"{option} is for lm-eval's own tasks of causal language models, which '{file.name}' is not with "
        "this model: leave it out"
    )


def not_ended(file: tasks.TaskFile) -> Misfit:
    """Build the error for an end of prompts that is asked of a task which has none."""
    return Misfit(
        f"{file.ending.option} is for lm-eval's own tasks of causal language models, which '{file.plain}' is "
        "not with this model: leave it out"
    )


def no_tokens(file: tasks.TaskFile) -> Misfit:
    """Build the error for a number of calibration tokens, by which only a language model's texts go."""
    return Misfit(
        f"--calibration-tokens is for language models, '{file.name}' learns from samples: give "
        "--calibration-samples"
    )


def require_room(tokenizer: Any, task: Texts) -> None:
    """Raise UserError where texts are cut to so few tokens that nothing of them is left."""
    added = tokenizer.num_special_tokens_to_add(pair=len(task.texts) > 1)
    if task.longest is not None and task.longest < added + len(task.texts):
        raise UserError(
            f"task '{task.task_name}': cut to {task.longest} tokens, of which the tokenizer adds {added}, "
            f"nothing of a text is left. Give at least {added + len(task.texts)}."
        )


def require_distinct(task: EncoderTask) -> None:
    """Raise TaskMistake where two labels of a task have one name, unless they are told apart by number."""
    labels = task.labels if isinstance(task, Classify) else ()
    twice = [label for label in labels if labels.count(label) > 1]
    if twice and not task.settings.get("labels_by_number"):
        raise task.mistake(f"two of its labels are called '{twice[0]}'", "doc_to_choice")


def check_labels(name: str, config: Any, task: EncoderTask) -> None:
    """Raise Misfit where `problem_type` says that a head's outputs are no labels of which one is chosen."""
    said, outputs = getattr(config, "problem_type", None), len(config.id2label)
    if isinstance(task, Classify) and said == NUMBERS:
        raise Misfit(
            f"model '{name}' gives {outputs} numbers (config.json: problem_type: {NUMBERS}), no labels to "
            "choose among: such a head is not measured. Where it is none, write problem_type: "
            "single_label_classification."
        )
    if isinstance(task, Classify | Regress) and said == MULTI:
        raise Misfit(
            f"model '{name}' is a multi-label one (config.json: problem_type: {MULTI}), task "
            f"'{task.task_name}' has one label a text. Give a FILE.jsonl with lists of labels, or write "
            "problem_type: single_label_classification where it is one."
        )


def check_head(name: str, config: Any, head: str, task: str, loaded: str | None = None) -> None:
    found = [
        str(architecture)
        for architecture in getattr(config, "architectures", None) or ([loaded] if loaded else [])
    ]
    wanted = ARCHITECTURES[head]
    if found and not any(architecture.endswith(wanted) for architecture in found):
        raise Misfit(
            f"model '{name}' does not fit task '{task}': it is a {', '.join(found)}, "
            f"the task needs a …{wanted}."
        )
