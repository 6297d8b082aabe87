"""attnbench as a model of lm-eval: `--model attnbench --model_args pretrained=…,method=…`."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from lm_eval.api.model import LM

from attnbench import models, spec
from attnbench.backends.lm_eval import prepare
from attnbench.backends.served import BATCH_SIZE
from attnbench.bench import EAGER_TOLERANCE, fit, placed, require_sound
from attnbench.errors import UserError, unknown
from attnbench.method import needs_fit
from attnbench.plan import check_whole

# of the tasks of ours, beside lm-eval's three
VERBS = ("classify", "regress", "span", "pseudo_loglikelihood", "translate")


class AttnbenchLM(LM):
    """A checkpoint with a method, loaded when a task's first request tells which head it needs.

    `pretrained` is a model as `attnbench run --models` takes it, `method` a spec. What has to be fitted is
    fitted on the task's calibration split, or on `calibration`, DATASET:SPLIT. `attnbench run` agrees.
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
        strange = sorted(set(ignored) - {"max_batch_size"})
        if strange:
            raise UserError(
                f"unknown model argument '{strange[0]}'. Known: pretrained, method, batch_size, device, "
                "dtype, seed, calibration, include_path, trust_remote_code."
            )
        automatic = str(batch_size).startswith("auto")  # which is lm-eval's: ours does not depend on memory
        size = BATCH_SIZE if automatic else _whole(batch_size)
        check_whole("batch_size", size, 1)
        if dtype not in EAGER_TOLERANCE:
            raise unknown("dtype", dtype, EAGER_TOLERANCE, f"Known: {', '.join(EAGER_TOLERANCE)}.")
        # lm-eval's command line asks for cuda:0 where nobody asked for anything
        placed = "cpu" if device.startswith("cuda") and not torch.cuda.is_available() else device
        super().__init__()
        self.batch_size, self._device = size, placed
        self._model: tuple[tuple[str, str], Any] | None = None
        self.pretrained, self.dtype, self.seed = str(pretrained), dtype, int(seed)
        self.calibration, self.include_path, self.trust_remote_code = (
            calibration,
            include_path,
            trust_remote_code,
        )
        self.methods = spec.parse(method)

    def _by_task(self, verb: str, requests: Sequence[Any]) -> list[Any]:
        found: list[Any] = [None] * len(requests)
        for task in dict.fromkeys(request.task_name for request in requests):
            places = [k for k, request in enumerate(requests) if request.task_name == task]
            with self._ready(task) as lm:
                answers = getattr(lm, verb)([requests[k] for k in places])
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
    def _ready(self, task: str) -> Iterator[Any]:
        from attnbench.attention import apply

        checkpoint = models.find(self.pretrained, task, self.trust_remote_code)
        # one document is enough here: lm-eval has built the requests itself
        prepared = prepare(
            task,
            checkpoint,
            limit=1,
            seed=self.seed,
            include_path=self.include_path,
            calibration=self.calibration,
        )
        model = self._loaded(checkpoint, prepared.head)
        prepared.check(model)
        torch.manual_seed(self.seed)
        if any(map(needs_fit, self.methods)):
            fit(model, self.methods, placed(prepared.calibration(), str(self.device)))
        options = {"batch_size": self.batch_size, "device": self.device}
        with apply(model, *self.methods) as applied, prepared.serving(model, **options) as lm:
            yield lm
        if applied.hit < applied.expected:
            raise RuntimeError(
                f"the method ran at {applied.hit} of {applied.expected} sites of {self.pretrained}"
            )

    def _loaded(self, checkpoint: models.Checkpoint, head: str) -> Any:
        key = (checkpoint.path, head)
        if self._model is None or self._model[0] != key:  # the tasks of a group share it
            model = checkpoint.load(head, self.device, self.dtype)
            require_sound(self.pretrained, model, self.dtype)
            self._model = (key, model)
        return self._model[1]


def _whole(value: object) -> object:
    text = str(value)
    return int(text) if text.removeprefix("-").isdecimal() else value
