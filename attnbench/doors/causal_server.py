"""A causal checkpoint with a method that answers another framework's requests by lm-eval's three verbs."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

from attnbench.backends.alone import ALONE
from attnbench.backends.kinds import kind
from attnbench.doors.asking import asked, loaded, one_by_one
from attnbench.doors.frameworks import check_names
from attnbench.engine.learning.fit import learn, placed
from attnbench.engine.places.sites import require_reached
from attnbench.errors import NotApplicable, UserError
from attnbench.inputs import models
from attnbench.inputs.settings import EAGER_TOLERANCE, Settings
from attnbench.methods import spec
from attnbench.methods.protocol import Method, needs_fit

KNOWN = {
    "pretrained": "", "method": "dense", "task": "", "include_path": "", "calibration": "",
    "batch_size": "32", "device": "cpu", "dtype": "float32", "seed": "0", "trust_remote_code": "False",
}  # fmt: skip


class CausalServer:
    """A causal model with methods; its weights are loaded once, and methods fitted, when first asked.

    What has to be fitted is fitted on the calibration split of a task, one of `attnbench run`'s, or on
    `settings.calibration`. Raises UserError for a model that is no causal language model.
    """

    def __init__(self, name: str, methods: Sequence[Method], settings: Settings, task: str = "") -> None:
        self.name, self.methods, self.settings, self.task = name, methods, settings, task
        self.learns = any(map(needs_fit, methods))
        self._learnt: tuple[str | None, set[str]] = (None, set())  # the task last fitted on, and its texts
        self._stock: Any = None  # that task, which tells a document whatever its prompt is
        try:
            of = task or next(iter(models.tasks_of(name)), "")
            self.checkpoint = models.find(name, of, settings.trust_remote_code)
        except NotApplicable as reason:
            raise UserError(str(reason)) from reason
        config = self.checkpoint.config()
        if kind(config) != "causal":
            found = ", ".join(config.architectures or [config.model_type])
            raise UserError(
                f"model '{name}' is a {found}, no causal language model: it would see what it has to "
                "predict. `attnbench run` measures it."
            )

    @classmethod
    def of(cls, text: str) -> CausalServer:
        """Read `pretrained=gpt,method=prune80`: a model as `attnbench run --models` takes it, and a spec.

        Raises UserError for an argument, a method or a model that is none.
        """
        given = dict(part.partition("=")[::2] for part in text.split(",") if part)
        check_names(given, KNOWN)
        given = KNOWN | given
        settings = Settings(
            limit=1,  # of what the task evaluates nothing is asked
            batch_size=_number("batch_size", given["batch_size"]),
            seed=_number("seed", given["seed"]),
            device=given["device"],
            dtype=given["dtype"],
            calibration=given["calibration"] or None,
            include_path=given["include_path"] or None,
            trust_remote_code=_flag("trust_remote_code", given["trust_remote_code"]),
        )
        if not given["pretrained"]:
            raise UserError(f"'{text}' names no model: give pretrained=MODEL, as in pretrained=gpt")
        methods = spec.parse(given["method"])
        learning = [method for method in methods if needs_fit(method)]
        if learning and not given["task"]:
            raise UserError(
                f"method '{spec.format(learning)}' is fitted: name a task whose calibration split it learns "
                "from, as in task=pocket-agreement"
            )
        return cls(given["pretrained"], methods, settings, given["task"])

    @functools.cached_property
    def lm(self) -> Any:
        """The tokenised requests, of which a model is asked."""
        from attnbench.backends.causal.model import CausalLM

        return CausalLM(self.checkpoint.config(), self.checkpoint.tokenizer())

    @functools.cached_property
    def model(self) -> Any:
        """The model, held against what its own attention gives."""
        return loaded(self.name, self.checkpoint, "causal-lm", self.settings)

    def _fit(self, task: str) -> set[str]:
        """Fit the methods on a task's calibration split, once in a row. Returns the texts it has."""
        from attnbench.backends.lm_eval import prepare

        settings, model = self.settings, self.model
        if self._learnt[0] == task:
            return self._learnt[1]
        prepared: Any = prepare(task, self.checkpoint, settings) if self.learns else None
        if self.learns:
            prepared.check(model)
        learn(model, self.methods, settings.seed, lambda: placed(prepared.calibration(), settings.device))
        texts = {_text(each) for each in (prepared.calibration_documents() if self.learns else ())}
        self._learnt, self._stock = (task, texts), prepared.task if self.learns else None
        return texts

    def _was_learnt(self, request: Any, learnt: set[str]) -> bool:
        if _text(request.args) in learnt:
            return True
        known = learnt and request.doc and request.task_name in self._stock.tasks
        return bool(known and _text(self._stock.plainly(request).args) in learnt)

    def ask(self, verb: str, requests: Sequence[Any], task: str = "") -> list[Any]:
        """Answer lm-eval's requests with the methods applied, fitted on this task or on the one named first.

        Raises UserError where one is what a method was fitted on, or is longer than the model takes,
        RuntimeError where a method missed a place of the model.
        """
        from attnbench.backends.causal.prepared import require_room

        task = task or self.task
        try:
            learnt = self._fit(task)
        except NotApplicable as reason:
            raise UserError(str(reason)) from reason
        shared = [request for request in requests if self._was_learnt(request, learnt)]
        if shared:
            raise UserError(
                f"{len(shared)} of {len(requests)} requests are calibration samples of task '{task}', "
                f"such as {_text(shared[0].args)[:60]!r}. Give calibration=DATASET:SPLIT."
            )
        model = self.model
        require_room(model, self.lm, requests)
        with asked(model, self.methods, self.lm, self._asking(model, requests)) as lm:
            return list(getattr(lm, verb)(requests))

    def _asking(self, model: Any, requests: Sequence[Any]) -> Settings:
        """Return how these requests are asked: one at a time where padding changes answers, which is said.

        Raises UserError where a method would reach a part alone of what attends in them.
        """
        from attnbench.backends.causal import padding

        require_reached(model, placed(self.lm.extremes(model, requests), self.settings.device))
        with self.lm.serving(model, device=self.settings.device) as lm:
            gap = padding.gap(lm, requests)
        reason = None if gap <= EAGER_TOLERANCE[self.settings.dtype] else ALONE.format(gap)
        return one_by_one(self.name, reason, self.settings)


def _number(name: str, text: str) -> int:
    if not text.isdecimal():
        raise UserError(f"{name}={text} is no whole number, as {name}={KNOWN[name]} is")
    return int(text)


def _flag(name: str, text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise UserError(f"{name}={text} is neither True nor False")
    return text.lower() == "true"


def _text(arguments: Sequence[Any]) -> str:
    return " ".join(" ".join(part for part in arguments if isinstance(part, str)).split())
