"""How lm-eval's tasks become prompts: examples, a chat, generation settings. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from attnbench.errors import UserError

SWITCHES = ("apply_chat_template", "fewshot_as_multiturn")
TEXTS = ("system_instruction", "gen_kwargs")
SEED = 1234  # of the examples that are drawn: lm-eval's own


@dataclass(frozen=True)
class Prompting:
    """What lm-eval's command line says of prompts, under its own names.

    `num_fewshot` examples before each, as turns of a chat with `fewshot_as_multiturn`; the tokenizer's chat
    template, with a `system_instruction`; `gen_kwargs`, as in max_gen_toks=64,do_sample=false.
    """

    num_fewshot: int | None = None
    apply_chat_template: bool = False
    fewshot_as_multiturn: bool = False
    system_instruction: str | None = None
    gen_kwargs: str | None = None

    def __post_init__(self) -> None:
        if self.num_fewshot is not None and (type(self.num_fewshot) is not int or self.num_fewshot < 0):
            raise UserError(f"num_fewshot={self.num_fewshot!r} is not a whole number of at least 0.")
        for name in SWITCHES:
            if not isinstance(getattr(self, name), bool):
                raise UserError(f"{name}={getattr(self, name)!r} is neither true nor false.")
        for name in TEXTS:
            if getattr(self, name) is not None and not isinstance(getattr(self, name), str):
                raise UserError(f"{name}={getattr(self, name)!r} is no text.")
        if self.fewshot_as_multiturn and not self.apply_chat_template:
            raise UserError("--fewshot-as-multiturn makes turns of a chat: add --apply-chat-template")
        for part in (self.gen_kwargs or "").split(",") if self.gen_kwargs is not None else ():
            if not part.partition("=")[0].strip() or "=" not in part:
                raise UserError(
                    f"--gen-kwargs: '{part}' is no NAME=VALUE, as in max_gen_toks=64,do_sample=false"
                )

    def given(self) -> dict[str, Any]:
        """Return what was set, as a record keeps it."""
        plain = asdict(Prompting())
        return {name: value for name, value in asdict(self).items() if value != plain[name]}


NAMES = tuple(asdict(Prompting()))
