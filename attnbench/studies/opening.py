"""A model opened for looking: its weights, the texts it is shown, methods that have learned."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from attnbench.backends import kinds
from attnbench.backends.measurement import hash_of
from attnbench.engine.learning.fit import learn
from attnbench.engine.realised import sidecar
from attnbench.engine.serving.soundness import require_sound
from attnbench.errors import NotApplicable, UserError, described, said
from attnbench.inputs import models, names, tasks
from attnbench.inputs.settings import Settings
from attnbench.matrix.bench import Bench
from attnbench.methods import spec
from attnbench.methods.protocol import Method
from attnbench.methods.views import Measured
from attnbench.records import whereabouts
from attnbench.studies.reading import Reading

SAMPLES = 200  # of a task, unless somebody says how many
ENDINGS = {
    "ForSequenceClassification": "classification", "ForQuestionAnswering": "qa", "ForMaskedLM": "masked-lm",
    "ForPreTraining": "masked-lm", "ForCausalLM": "causal-lm", "LMHeadModel": "causal-lm",
    "ForConditionalGeneration": "seq2seq", "MTModel": "seq2seq",
}  # fmt: skip


@dataclass
class Opened:
    """One model with the texts that are given, or the first documents of a task; loaded when asked for.

    Raises UserError or NotApplicable where model and task do not fit.
    """

    name: str
    task: str | None
    texts: Sequence[str]
    settings: Settings
    asked: dict[str, tuple[Method, ...]] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)  # methods -> why
    failed: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.label = models.label(self.name)
        first = next(iter(names.tasks_of(self.name)), "text")
        if self.task is None:
            self.checkpoint = models.find(self.name, first, self.settings.trust_remote_code)
            digest = hash_of(self.texts)
            self.data, self.fingerprints = f"text-{digest[:8]}", {"dataset": digest}
            own = self.checkpoint.source in names.OWN
            self.places = {"checkpoint": whereabouts.digest(self.checkpoint.path)} if own else {}
        else:
            self.checkpoint = self._bench.checkpoint
            self.data = tasks.find(self.task, self.settings.include_path).name
            self.fingerprints = dict(self._bench.prepared.fingerprints)
            self.places = whereabouts.of(self.checkpoint, self.task, self.settings)

    @functools.cached_property
    def _bench(self) -> Bench:
        """Return the task made ready; of given texts, a task of the model's own, for what methods learn."""
        own = next(iter(names.tasks_of(self.name)), None)
        if self.task is None and own is None:
            raise NotApplicable("it learns from data: give --tasks instead of --text")
        return Bench(self.name, self.task or str(own), self.settings)

    @functools.cached_property
    def model(self) -> Any:
        """Load the weights, with the head that they were trained with."""
        if self.task is not None:
            return self._bench.model
        head = head_of(self.checkpoint.config())
        model = sidecar.loaded(self.checkpoint, head, self.settings)
        require_sound(self.name, model, self.settings.dtype)
        return model

    @functools.cached_property
    def reading(self) -> Reading:
        """Return what reads texts, with those that were given. Raises UserError for one that is too long."""
        found = Reading(
            self.model, self.checkpoint.tokenizer(), self.settings.device, self.settings.seed,
            self.settings.max_length,
        )  # fmt: skip
        found.learning = self._calibration
        if self.task is None:
            found.given = [found.sample(text) for text in self.texts]
        else:
            found.measuring = self._measured
            for inputs in self._bench.batches(self.settings.limit or SAMPLES):
                found.given = [*found.given, *found.taken(inputs, len(found.given)).samples]
        return found

    def learned(self, methods: Mapping[str, Sequence[Method]]) -> dict[str, Sequence[Method]]:
        """Let methods learn; one that cannot is in `left_out` or `failed`."""
        found: dict[str, Sequence[Method]] = {}
        for text, each in methods.items():
            fresh = copy.deepcopy(list(each))
            try:
                learn(self.model, fresh, self.settings.seed, self._calibration)
            except NotApplicable as reason:
                self.left_out[text] = str(reason)
            except UserError as mistake:
                self.failed[text] = said(mistake)
            except Exception as error:
                self.failed[text] = described(error)
            else:
                found[text] = fresh
        return found

    def _calibration(self) -> list[dict[str, Any]]:
        return self._bench.calibration()

    def _measured(self) -> Measured:
        found = self._bench.prepared.evaluate(self.model, **self._bench.serving)
        name, metric = next(iter(found.metrics.items()))
        return Measured(
            name, float(metric["value"]), bool(metric["higher_is_better"]), metric.get("aggregate", "mean"),
            found.scores[name],
        )  # fmt: skip


def head_of(config: Any) -> str:
    """Return which head a checkpoint was saved with, `body` for none that is known here."""
    for name in getattr(config, "architectures", None) or []:
        for ending, head in ENDINGS.items():
            if str(name).endswith(ending):
                return "masked-lm" if head == "masked-lm" and kinds.kind(config) == "encoder" else head
    return "body"


def parsed(texts: Sequence[str]) -> dict[str, tuple[Method, ...]]:
    """Return methods by their canonical specs, the dense model left out. Raises UserError."""
    return {spec.format(methods): methods for methods in map(spec.parse, texts) if methods}


Progress = Callable[[str, int], None]
