"""How the doors to other frameworks ask a model: loaded and served as `attnbench run` does it."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

from attnbench.engine.realised import sidecar
from attnbench.engine.serving.soundness import require_hits, require_sound
from attnbench.errors import NotApplicable, UserError, say
from attnbench.inputs.models import Checkpoint
from attnbench.inputs.settings import Settings
from attnbench.methods.protocol import Method


def loaded(name: str, checkpoint: Checkpoint, head: str, settings: Settings) -> Any:
    """Load a checkpoint with a task's head. Raises UserError where either does not fit."""
    model = sidecar.loaded(checkpoint, head, settings)
    require_sound(name, model, settings.dtype)
    return model


@contextlib.contextmanager
def asked(model: Any, methods: Sequence[Method], server: Any, settings: Settings) -> Iterator[Any]:
    """Yield what answers lm-eval's requests with methods applied.

    Raises RuntimeError where a method missed a place of the model, UserError where the requests have no
    prompt whose cache a method could cut.
    """
    from attnbench.engine.serving.attention import apply

    options = {"batch_size": settings.batch_size, "device": settings.device}
    try:
        with apply(model, *methods) as applied, server.serving(model, **options) as lm:
            yield lm
    except NotApplicable as reason:
        raise UserError(str(reason)) from reason
    require_hits(applied)


def one_by_one(name: str, reason: str | None, settings: Settings) -> Settings:
    """Return settings that ask for one text at a time where there is a reason, which is said on stderr."""
    if reason is None:
        return settings
    say(f"warning: {name}: {reason}")
    return dataclasses.replace(settings, batch_size=1, batch_tokens=None)
