"""attnbench as a model of lm-eval: `--model attnbench --model_args pretrained=…,method=…`."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from typing import Any

import torch
from lm_eval.api.model import LM

from attnbench.backends.causal.prompts import require_template
from attnbench.backends.kinds import kind
from attnbench.backends.lm_eval import prepare
from attnbench.backends.served import BATCH_SIZE
from attnbench.doors.asking import asked, loaded, one_by_one
from attnbench.doors.causal_server import CausalServer
from attnbench.doors.frameworks import check_names
from attnbench.engine.learning.fit import learn, placed
from attnbench.errors import NotApplicable, UserError
from attnbench.inputs import models
from attnbench.inputs.settings import Settings
from attnbench.matrix.bench import made_ready
from attnbench.methods import spec

# the folder of tasks that lm-eval's command line was given, and the tasks
INCLUDE_PATH: ContextVar[str | None] = ContextVar("include_path", default=None)
TASKS: ContextVar[Sequence[str]] = ContextVar("tasks", default=())
ARGUMENTS = (
    "pretrained", "method", "batch_size", "device", "dtype", "seed", "calibration", "include_path",
    "trust_remote_code",
)  # fmt: skip
# of the tasks of ours, beside lm-eval's three
VERBS = ("classify", "regress", "span", "pseudo_loglikelihood", "translate")


class AttnbenchLM(LM):
    """A checkpoint with a method, loaded when a task's first request tells which head it needs.

    `pretrained` is a model as `attnbench run --models` takes it, `method` a spec. What has to be fitted is
    fitted on the task's calibration split, or on `calibration`, DATASET:SPLIT. `attnbench run` agrees. A
    causal model is asked whatever lm-eval makes of a task: few-shot, as a chat, with other generation
    settings.
    """

    def __init__(
        self,
        pretrained: str,
        method: str = "dense",
        *,
        batch_size: int | str = BATCH_SIZE,
        device: str = "cpu",
        dtype: str = "float32",
        seed: int = 0,
        calibration: str | None = None,
        include_path: str | None = None,
        trust_remote_code: bool = False,
        **ignored: Any,
    ) -> None:
        check_names(sorted(set(ignored) - {"max_batch_size"}), ARGUMENTS)
        automatic = str(batch_size).startswith("auto")  # which is lm-eval's: ours does not depend on memory
        # lm-eval's command line asks for cuda:0 where nobody asked for anything
        absent = device.startswith("cuda") and not torch.cuda.is_available()
        self.settings = Settings(
            limit=1,  # one document is enough: lm-eval has built the requests itself
            batch_size=BATCH_SIZE if automatic else _whole(batch_size),
            seed=int(seed),
            device="cpu" if absent else device,
            dtype=dtype,
            calibration=calibration,
            include_path=include_path or INCLUDE_PATH.get(),
            trust_remote_code=trust_remote_code,
        )
        super().__init__()
        self.batch_size, self._device = self.settings.batch_size, self.settings.device
        self._model: tuple[tuple[str, str], Any] | None = None
        self.pretrained, self.methods = str(pretrained), spec.parse(method)

    @functools.cached_property
    def _causal(self) -> CausalServer | None:
        """What answers for a causal model, None for any other."""
        try:
            of = next(iter(models.tasks_of(self.pretrained)), "")
            config = models.find(self.pretrained, of, self.settings.trust_remote_code).config()
        except NotApplicable as reason:
            raise UserError(str(reason)) from reason
        return (
            CausalServer(self.pretrained, self.methods, self.settings) if kind(config) == "causal" else None
        )

    # what lm-eval asks before it makes a request of a chat

    @property
    def tokenizer_name(self) -> str:
        return str(self._chat.tokenizer_name)

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        """Return the chat template that is used. Raises UserError where the model has none."""
        return self._chat.chat_template(chat_template) if chat_template else ""

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        return str(self._chat.apply_chat_template(chat_history, add_generation_prompt))

    @property
    def _chat(self) -> Any:
        server = self._causal
        if server is None:
            raise UserError(
                f"model '{self.pretrained}' is no language model: leave --apply_chat_template out"
            )
        asked = f"task {', '.join(map(repr, TASKS.get()))}" if TASKS.get() else "any task"
        require_template(server.lm.tokenizer, self.pretrained, asked, "--apply_chat_template")
        return server.lm

    def _by_task(self, verb: str, requests: Sequence[Any]) -> list[Any]:
        found: list[Any] = [None] * len(requests)
        server = self._causal
        for task in dict.fromkeys(request.task_name for request in requests):
            places = [k for k, request in enumerate(requests) if request.task_name == task]
            own = [requests[k] for k in places]
            if server is not None:
                models.find(self.pretrained, task)  # a pocket model is for its own tasks
                answers = server.ask(verb, own, task)
            else:
                with self._ready(task, own) as lm:
                    answers = getattr(lm, verb)(own)
            for place, answer in zip(places, answers, strict=True):
                found[place] = answer
        return found

    def __getattr__(self, verb: str) -> Any:
        if verb not in VERBS:
            raise AttributeError(verb)
        return functools.partial(self._by_task, verb)

    def loglikelihood(self, requests: Sequence[Any]) -> list[Any]:
        return self._by_task("loglikelihood", requests)

    def loglikelihood_rolling(self, requests: Sequence[Any]) -> list[Any]:
        return self._by_task("loglikelihood_rolling", requests)

    def generate_until(self, requests: Sequence[Any]) -> list[Any]:
        return self._by_task("generate_until", requests)

    @contextlib.contextmanager
    def _ready(self, task: str, requests: Sequence[Any] | None = None) -> Iterator[Any]:
        settings = self.settings
        checkpoint = models.find(self.pretrained, task, settings.trust_remote_code)
        prepared = prepare(task, checkpoint, settings)
        model = self._loaded(checkpoint, prepared.head)
        alone = made_ready(self.pretrained, model, prepared, settings, requests)
        size = 1 if alone else BATCH_SIZE
        learn(model, self.methods, settings.seed, lambda: placed(prepared.calibration(size), settings.device))
        with asked(model, self.methods, prepared, one_by_one(self.pretrained, alone, settings)) as lm:
            yield lm

    def _loaded(self, checkpoint: models.Checkpoint, head: str) -> Any:
        key = (checkpoint.path, head)
        if self._model is None or self._model[0] != key:  # the tasks of a group share it
            self._model = (key, loaded(self.pretrained, checkpoint, head, self.settings))
        return self._model[1]


def _whole(value: Any) -> Any:
    text = str(value)
    return int(text) if text.removeprefix("-").isdecimal() else value
