"""How a run measures, checked before anything is loaded. Imports nothing heavy."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from attnbench.errors import UserError, unknown
from attnbench.inputs import tasks
from attnbench.inputs.prompting import Prompting
from attnbench.methods.fields import SEEDS

WHERE_SET = ("max_length", "calibration_samples", "calibration_tokens")  # recorded where they are given
MAPS = ("auto",)
EAGER_TOLERANCE = {"float32": 1e-4, "float64": 1e-4, "bfloat16": 5e-2, "float16": 2e-2}


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
    max_length: int | None = None  # tokens that longer texts are cut to
    calibration_samples: int | None = None  # instead of as many as the task says
    calibration_tokens: int | None = None  # at most, of a language model's texts
    device_map: str | None = None  # how accelerate spreads the weights over what there is
    prompting: Prompting = field(default_factory=Prompting)  # of lm-eval's own tasks
    floor: tuple[str, ...] = ()  # canonical specs whose cells are measured twice

    def __post_init__(self) -> None:
        check_whole("seed", self.seed)
        check_whole("batch_size", self.batch_size, 1)
        for name in ("limit", "batch_tokens", *WHERE_SET):
            if getattr(self, name) is not None:
                check_whole(name, getattr(self, name), 1)
        if self.dtype not in EAGER_TOLERANCE:
            raise unknown("dtype", self.dtype, EAGER_TOLERANCE, f"Known: {', '.join(EAGER_TOLERANCE)}.")
        check_device(self.device)
        if self.device_map not in (None, *MAPS):
            raise unknown("device map", self.device_map, MAPS, f"Known: {', '.join(MAPS)}.")
        if not 0 <= self.seed < SEEDS:
            raise UserError(f"seed {self.seed} is no whole number from 0 to {SEEDS - 1}")

    @classmethod
    def of(cls, body: dict[str, Any]) -> Settings:
        """Return what `dataclasses.asdict` made a table of."""
        floor = tuple(body.get("floor", ()))
        return cls(**{**body, "floor": floor, "prompting": Prompting(**body.get("prompting", {}))})

    def recorded(self) -> dict[str, Any]:
        """Return what a record keeps: of a file its name, and no folder of this machine."""
        kept = dataclasses.asdict(self)
        kept.pop("include_path")
        kept.pop("prompting")
        kept.pop("floor")
        for name in (*WHERE_SET, "device_map"):
            if kept[name] is None:
                kept.pop(name)  # as in records from before it could be set
        return (
            kept
            | self.prompting.given()
            | {"calibration": self.calibration and tasks.shown(self.calibration)}
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


def check_whole(name: str, value: object, least: int | None = None) -> None:
    """Raise UserError for what is no whole number, or less than the least that makes sense."""
    if type(value) is not int or (least is not None and value < least):
        wanted = "a whole number" if least is None else f"a whole number of at least {least}"
        raise UserError(f"{name}={value!r} is not {wanted}.")
