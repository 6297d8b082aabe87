"""What methods are measured on: a checkpoint and a task made ready for each other."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from attnbench.engine.learning.fit import Batch, placed
from attnbench.engine.learning.fits import Fits
from attnbench.engine.places.sites import require_reached, settle
from attnbench.engine.realised import sidecar
from attnbench.engine.serving.soundness import require_sound
from attnbench.inputs import models
from attnbench.inputs.settings import EAGER_TOLERANCE, Settings

if TYPE_CHECKING:
    from attnbench.inputs.models import Checkpoint


class Loaded:
    """The weights that were loaded last: tasks of one checkpoint that follow each other share them.

    They share what methods learned of it, too.
    """

    def __init__(self) -> None:
        self._of: Any = None
        self._model: Any = None
        self.fits = Fits()

    def model(self, checkpoint: Checkpoint, head: str, settings: Settings) -> Any:
        """Return a checkpoint's model, loaded unless it is the last one that was asked for."""
        wanted = (checkpoint, checkpoint.fingerprint, head)
        if wanted != self._of:
            self.forget()  # two checkpoints in memory may be one too many
            self._model = sidecar.loaded(checkpoint, head, settings)
            self._of = wanted
        return self._model

    def forget(self) -> None:
        """Drop it: the next who asks gets it loaded again."""
        self._of = self._model = None
        self.fits = Fits()


class Bench:
    """A checkpoint, and a task's requests built and tokenised for it; weights are loaded when asked for.

    What is `loaded` is shared with other tasks. Raises UserError or NotApplicable where the two do not fit.
    """

    def __init__(
        self,
        name: str,
        task: str,
        settings: Settings,
        say: Callable[[str], None] | None = None,
        loaded: Loaded | None = None,
    ) -> None:
        from attnbench.backends import lm_eval

        self.say, self.loaded = say, loaded or Loaded()
        self.alone: str | None = None  # why the model has to read one text at a time
        self.name, self.settings = name, settings
        self.checkpoint = models.find(name, task, settings.trust_remote_code)
        self.prepared = lm_eval.prepare(task, self.checkpoint, settings)

    @functools.cached_property
    def model(self) -> Any:
        """Load the weights with the head that the task needs.

        Raises UserError where head, labels or architecture do not fit, ArithmeticError for a weight that is
        not finite.
        """
        model = self.loaded.model(self.checkpoint, self.prepared.head, self.settings)
        alone = made_ready(self.name, model, self.prepared, self.settings)
        if alone and not self.alone and self.say:
            self.say(alone)
        self.alone = alone
        return model

    def forget(self) -> None:
        """Drop the model: the next who asks gets it loaded again."""
        self.loaded.forget()
        vars(self).pop("model", None)

    def batches(self, n: int) -> list[Batch]:
        """Return the first n evaluation samples as model inputs on the run's device."""
        return placed(self.prepared.batches(n, **self._size), self.settings.device)

    @property
    def serving(self) -> dict[str, Any]:
        """Return how the model is asked: in batches of the run's size, or one text at a time."""
        size = {"batch_size": self.settings.batch_size, "batch_tokens": self.settings.batch_tokens}
        alone = {"batch_size": 1, "batch_tokens": None}
        return {**(alone if self.alone else size), "device": self.settings.device}

    @property
    def _size(self) -> dict[str, int]:
        return {"batch_size": 1} if self.alone else {}

    def calibration(self) -> list[Batch]:
        """Return what methods are fitted on, a copy each time. Raises NotApplicable where there is none."""
        return [{key: value.clone() for key, value in batch.items()} for batch in self._calibration]

    @functools.cached_property
    def _calibration(self) -> list[Batch]:
        return placed(self.prepared.calibration(**self._size), self.settings.device)


def made_ready(
    name: str, model: Any, prepared: Any, settings: Settings, asked: Sequence[Any] | None = None
) -> str | None:
    """Make a loaded model and a task's requests, or those that are `asked`, ready for each other.

    Returns why the model has to read one text at a time, None where it has not. Raises UserError where head,
    labels or architecture do not fit, or methods would reach only a part of what attends; ArithmeticError for
    a weight that is not finite.
    """
    prepared.check(model)
    requests = prepared.task.instances if asked is None else asked
    inputs = placed(prepared.extremes(model, requests), settings.device)
    settle(model, inputs[:1])
    require_reached(model, inputs)
    require_sound(name, model, settings.dtype)
    reason: str | None = prepared.suit(model, requests, EAGER_TOLERANCE[settings.dtype], settings.device)
    return reason
