"""What methods are measured on: a checkpoint and a task made ready for each other."""

from __future__ import annotations

import functools
from typing import Any

from attnbench.engine.learning.fit import Batch, placed
from attnbench.engine.realised import sidecar
from attnbench.engine.serving.soundness import require_sound
from attnbench.inputs import models
from attnbench.inputs.settings import Settings


class Bench:
    """A checkpoint, and a task's requests built and tokenised for it; weights are loaded when asked for.

    Raises UserError or NotApplicable where the two do not fit.
    """

    def __init__(self, name: str, task: str, settings: Settings) -> None:
        from attnbench.backends import lm_eval

        self.name, self.settings = name, settings
        self.checkpoint = models.find(name, task, settings.trust_remote_code)
        self.prepared = lm_eval.prepare(task, self.checkpoint, settings)

    @functools.cached_property
    def model(self) -> Any:
        """Load the weights with the head that the task needs.

        Raises UserError where head, labels or architecture do not fit, ArithmeticError for a weight that is
        not finite.
        """
        model = sidecar.loaded(self.checkpoint, self.prepared.head, self.settings.device, self.settings.dtype)
        self.prepared.check(model)
        require_sound(self.name, model, self.settings.dtype)
        return model

    def forget(self) -> None:
        """Drop the model: the next who asks gets it loaded again."""
        vars(self).pop("model", None)

    def batches(self, n: int) -> list[Batch]:
        """Return the first n evaluation samples as model inputs on the run's device."""
        return placed(self.prepared.batches(n), self.settings.device)

    def calibration(self) -> list[Batch]:
        """Return what methods are fitted on, a copy each time. Raises NotApplicable where there is none."""
        return [{key: value.clone() for key, value in batch.items()} for batch in self._calibration]

    @functools.cached_property
    def _calibration(self) -> list[Batch]:
        return placed(self.prepared.calibration(), self.settings.device)
