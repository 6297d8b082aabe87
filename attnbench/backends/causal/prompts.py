"""What a run says of prompts, told to lm-eval's tasks as its own command line tells it."""

from __future__ import annotations

from typing import Any

from lm_eval.utils import simple_parse_args_string

from attnbench.errors import Misfit, UserError
from attnbench.inputs import tasks
from attnbench.inputs.prompting import SEED, Prompting


def require_template(tokenizer: Any, model: str, task: str, option: str = "--apply-chat-template") -> None:
    """Raise Misfit where a chat is asked for and the tokenizer has no template."""
    if not getattr(tokenizer, "chat_template", None):
        raise Misfit(
            f"model '{model}' has no chat template in its tokenizer: it cannot be asked {task} as a chat. "
            f"Leave {option} out, or give a model that was trained for chats."
        )


def prompted(file: tasks.TaskFile, task: Any, prompting: Prompting) -> None:
    """Set how many examples stand before a task's prompts, and how it generates.

    Raises UserError where lm-eval would leave out what was asked for without a word.
    """
    fixed = task.get_config("num_fewshot")
    if prompting.num_fewshot is not None:
        if fixed == 0 and prompting.num_fewshot:
            raise UserError(
                f"{tasks.place(file.path, 'num_fewshot')}: task '{file.name}' says num_fewshot: 0, which "
                "lm-eval lets nothing overrule: take the key out, or leave --num-fewshot out"
            )
        task.set_config(key="num_fewshot", value=prompting.num_fewshot)
    task.set_fewshot_seed(seed=SEED)
    if prompting.gen_kwargs is None:
        return
    if task.get_config("output_type") != "generate_until":
        raise UserError(f"task '{file.name}' generates nothing: leave --gen-kwargs out")
    given = simple_parse_args_string(prompting.gen_kwargs)
    task.set_config(key="generation_kwargs", value=given, update=True)
