"""A model's architecture with other weights than its own."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch

from attnbench.errors import UserError
from attnbench.inputs.models import Checkpoint

PART_OF_METHODS = True  # what is found here is found by a study: its records' identity covers this file


def untrained(model: Any, seed: int = 0) -> Any:
    """Return a model of the same architecture with the random weights that its training began with.

    They are drawn by the architecture's own initialisation, from `seed`.
    """
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed)
        other = type(model)(copy.deepcopy(model.config))
    return other.to(device=model.device, dtype=model.dtype).eval()


def fingerprint(folder: str) -> str:
    """Hash a checkpoint's config and weights. Raises UserError for a folder that holds none."""
    return Checkpoint(Path(folder).name, str(Path(folder).expanduser()), "folder").fingerprint


def loaded(model: Any, folder: str) -> Any:
    """Return a model of the same architecture with the weights of a folder, as of a step of its training.

    A head that the folder does not have is new, as nothing here reads it. Raises UserError for a folder that
    is not of this architecture.
    """
    place = Checkpoint(Path(folder).name, str(Path(folder).expanduser()), "folder").folder
    try:
        other, found = type(model).from_pretrained(
            place, dtype=model.dtype, output_loading_info=True, local_files_only=True
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(f"checkpoint '{folder}' cannot be read: {str(error).splitlines()[0]}") from error
    layers = {name for name, module in model.named_modules() if isinstance(module, torch.nn.ModuleList)}
    inner = [key for key in found["missing_keys"] if any(key.startswith(f"{name}.") for name in layers)]
    shapes = {name: tuple(weight.shape) for name, weight in model.named_parameters()}
    unlike = [name for name, weight in other.named_parameters() if shapes.get(name) != tuple(weight.shape)]
    if wrong := [*inner, *unlike]:
        raise UserError(f"checkpoint '{folder}' is of another architecture: {wrong[0]} is missing or unlike")
    return other.to(model.device).eval()
