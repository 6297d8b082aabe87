"""What methods are measured on: a checkpoint and a task made ready for each other."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from attnbench.errors import UserError, unknown
from attnbench.inputs import models, tasks
from attnbench.matrix.plan import check_whole
from attnbench.methods.fields import SEEDS
from attnbench.methods.protocol import Method, fitted, needs_fit

EAGER_TOLERANCE = {"float32": 1e-4, "float64": 1e-4, "bfloat16": 5e-2, "float16": 2e-2}
Batch = dict[str, Any]


@dataclass(frozen=True)
class Settings:
    """How a run measures. Only what changes a number enters a record's identity."""

    limit: int | None = None
    batch_size: int = 32
    batch_tokens: int | None = None
    seed: int = 0
    device: str = "cpu"
    dtype: str = "float32"
    calibration: str | None = None
    include_path: str | None = None
    trust_remote_code: bool = False
    measure: bool = False

    def __post_init__(self) -> None:
        check_whole("seed", self.seed)
        check_whole("batch_size", self.batch_size, 1)
        for name in ("limit", "batch_tokens"):
            if getattr(self, name) is not None:
                check_whole(name, getattr(self, name), 1)
        if self.dtype not in EAGER_TOLERANCE:
            raise unknown("dtype", self.dtype, EAGER_TOLERANCE, f"Known: {', '.join(EAGER_TOLERANCE)}.")
        check_device(self.device)
        if not 0 <= self.seed < SEEDS:
            raise UserError(f"seed {self.seed} is no whole number from 0 to {SEEDS - 1}")

    def recorded(self) -> dict[str, Any]:
        """Return what a record keeps: of a file its name, and no folder of this machine."""
        kept = dataclasses.asdict(self)
        kept.pop("include_path")
        return kept | {"calibration": self.calibration and tasks.shown(self.calibration)}


class Bench:
    """A checkpoint, and a task's requests built and tokenised for it; weights are loaded when asked for.

    Raises UserError or NotApplicable where the two do not fit.
    """

    def __init__(self, name: str, task: str, settings: Settings) -> None:
        from attnbench.backends import lm_eval

        self.name, self.settings = name, settings
        self.checkpoint = models.find(name, task, settings.trust_remote_code)
        self.prepared = lm_eval.prepare(
            task,
            self.checkpoint,
            limit=settings.limit,
            seed=settings.seed,
            calibration=settings.calibration,
            include_path=settings.include_path,
        )

    @functools.cached_property
    def model(self) -> Any:
        """Load the weights with the head that the task needs.

        Raises UserError where head, labels or architecture do not fit, ArithmeticError for a weight that is
        not finite.
        """
        model = self.checkpoint.load(self.prepared.head, self.settings.device, self.settings.dtype)
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


def require_sound(name: str, model: Any, dtype: str) -> None:
    """Compare a loaded model with its own eager attention.

    Raises UserError where they differ, ArithmeticError for a weight that is not finite.
    """
    from attnbench.engine.serving.attention import compare_with_eager

    strange = [path for path, weight in model.named_parameters() if not weight.isfinite().all()]
    if strange:
        raise ArithmeticError(f"{name}: {strange[0]} holds values that are not finite")
    difference = compare_with_eager(model)
    if not difference <= EAGER_TOLERANCE[dtype]:
        raise UserError(
            f"model '{name}' ({type(model).__name__}) differs from its eager attention "
            f"by {difference:.2g} under attnbench: this architecture is not supported."
        )


def require_hits(applied: Any) -> None:
    """Raise RuntimeError where methods ran at fewer sites than they act at."""
    if applied.hit < applied.expected:
        raise RuntimeError(
            f"the method ran at {applied.hit} of {applied.expected} sites: its numbers would be the dense "
            "model's in part"
        )


def placed(batches: Sequence[Batch], device: str) -> list[Batch]:
    """Return batches on a device."""
    return [{key: value.to(device) for key, value in batch.items()} for batch in batches]


def fit(model: Any, methods: Sequence[Method], batches: Sequence[Batch]) -> None:
    """Let each method that learns do so with the methods before it applied.

    Raises UserError where what it learned is nowhere to be found.
    """
    from attnbench.engine.serving.attention import apply

    for position, method in enumerate(methods):
        if needs_fit(method):
            before = set(vars(method))
            with apply(model, *methods[:position]) if position else contextlib.nullcontext():
                try:
                    method.fit(model, list(batches))
                except (Exception, SystemExit) as error:
                    error.add_note(f"{method.name}.fit")
                    raise
            if not fitted(method):
                others = ", ".join(sorted(set(vars(method)) - before))
                raise UserError(
                    f"{method.name or type(method).__name__}: its fit left no attribute that ends in an "
                    "underscore, where what it learned belongs" + (f"; it set {others}" if others else "")
                )


def check_device(name: str) -> None:
    """Raise UserError where torch has no such device on this machine."""
    if name == "cpu":
        return
    import torch

    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:  # the latter where torch was built without it
        here = ["cpu", *(f"cuda:{number}" for number in range(torch.cuda.device_count()))]
        raise UserError(f"no device '{name}' here. --device takes {', '.join(here)}.") from error


def default_device() -> str:
    """Return cuda where there is one, else cpu."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
