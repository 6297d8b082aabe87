"""What an exported checkpoint leaves out: the file beside its weights that says so, and what it does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attnbench.errors import UserError
from attnbench.inputs.models import SIDECAR as NAME

if TYPE_CHECKING:
    from torch import nn

    from attnbench.inputs.models import Checkpoint
    from attnbench.inputs.settings import Settings

__all__ = ["load"]

SCHEMA = 1
Layer = tuple[str, int]  # kind, layer


def silence(model: nn.Module, kept: dict[Layer, list[int]]) -> None:
    """Zero the output weights of the heads that go: then the whole model answers as the smaller one."""
    from attnbench.engine.places.sites import discover
    from attnbench.engine.realised.slicing import head_columns

    for site in discover(model):
        for head in set(range(site.heads)) - set(kept[site.kind, site.layer]):
            head_columns(model, site.path, head, site.head_dim).zero_()


def load(model: nn.Module, folder: str | Path) -> None:
    """Cut out of a loaded model the heads that its folder's sidecar does without, where it has a sidecar.

    Raises UserError where the sidecar does not fit the model.
    """
    path = Path(folder) / NAME
    if not path.is_file():
        return
    from attnbench.engine.places.sites import discover
    from attnbench.engine.realised.removal import shrink

    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["schema"] != SCHEMA:
            raise UserError(f"{path}: schema {content['schema']}, this version reads {SCHEMA}")
        kept, of = content["heads"], content["of"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} cannot be read: {error}") from error
    if not isinstance(kept, dict) or of != {
        f"{site.kind} {site.layer}": site.heads for site in discover(model)
    }:
        raise UserError(f"{path} is of another model: its layers and heads are not those of the weights")
    shrink(model, {(site.kind, site.layer): kept[f"{site.kind} {site.layer}"] for site in discover(model)})


def loaded(checkpoint: Checkpoint, head: str, settings: Settings) -> Any:
    """Load a checkpoint's weights, of an export without the heads that it does without.

    Raises UserError for a folder that cannot be read, Misfit where the head is missing.
    """
    model = checkpoint.load(head, settings.device, settings.dtype, settings.device_map)
    with checkpoint.readable():
        load(model, checkpoint.folder)
    return model
