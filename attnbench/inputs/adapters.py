"""Adapters that PEFT wrote: whose weights they change, and the model with that change in its own weights."""

from __future__ import annotations

import importlib.util
import json
import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attnbench.errors import UserError
from attnbench.inputs.files import expanded

CONFIG = "adapter_config.json"
WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
PREFIX = "base_model.model."  # of every weight's name in an adapter
OUTPUTS = re.compile(r"(?:^|\.)(?:score|classifier|out_proj)\.weight")  # of a classifier's head
# what puts vectors before a text, or between layers, and so has no weights to be added to a model's
UNMERGED = ("PROMPT_TUNING", "MULTITASK_PROMPT_TUNING", "PREFIX_TUNING", "P_TUNING", "ADAPTION_PROMPT", "CPT")


@dataclass(frozen=True)
class Adapter:
    """An adapter in a folder: `kind` as PEFT calls it, `base` the folder or Hub id of what it changes."""

    folder: Path
    kind: str
    base: str

    def place(self) -> str | None:
        """Return the folder of what it changes, None for a Hub id. Raises UserError where it is not here."""
        given = expanded(self.base)
        for place in (given, self.folder / self.base, self.folder.parent / self.base):
            if place.is_dir() and place.resolve() != self.folder.resolve():
                return str(place)
        if self.base.startswith((".", "/", "~")) or self.base.count("/") > 1:
            raise UserError(
                f"model '{self.folder}' is an adapter of '{self.base}', which is not here: put the folder "
                f"there, or write its place into {CONFIG}: base_model_name_or_path."
            )
        return None

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of each of its weights; a trained head's has the name it has in the model."""
        from safetensors import safe_open

        path = self.folder / WEIGHTS[0]
        if not path.is_file():
            import torch

            held = torch.load(self.folder / WEIGHTS[1], map_location="cpu", weights_only=True)
            return {name.removeprefix(PREFIX): tuple(value.shape) for name, value in held.items()}
        with safe_open(path, "pt") as file:
            names = list(file.keys())
            return {name.removeprefix(PREFIX): tuple(file.get_slice(name).get_shape()) for name in names}

    def labels(self) -> int | None:
        """Return how many outputs a classifier's head in it has, None where it holds none."""
        heads = [shape for name, shape in self.shapes().items() if OUTPUTS.search(name) and len(shape) == 2]
        return heads[-1][0] if heads else None

    def merge(self, model: Any) -> Any:
        """Add it to a model's weights.

        Raises UserError where PEFT cannot, and where it would leave out a part of it, or begin one anew.
        """
        from peft import PeftModel, get_peft_model_state_dict

        told = f"adapter '{self.folder}' ({self.kind}) cannot be merged into '{self.base}'"
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of what does not fit: refused below
                whole = PeftModel.from_pretrained(model, str(self.folder))
                wanted = {name.removeprefix(PREFIX) for name in get_peft_model_state_dict(whole)}
                if strange := wanted ^ self.shapes().keys():
                    side = "it lacks" if min(strange) in wanted else "the model has no"
                    raise UserError(f"{told}: {side} {min(strange)}")
                return whole.merge_and_unload(safe_merge=True)
        except (LookupError, ValueError, AttributeError, RuntimeError, TypeError) as error:
            raise UserError(
                f"{told}: {type(error).__name__}: {' '.join(str(error).split())[:200]}"
            ) from error


def find(folder: str) -> Adapter | None:
    """Return the adapter in a folder, None where there is none.

    Raises UserError for one that cannot be read or is of a kind that cannot be merged, and without PEFT.
    """
    path = Path(folder) / CONFIG
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        kind, base = str(content["peft_type"]), str(content["base_model_name_or_path"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} cannot be read: {type(error).__name__}: {error}") from error
    told = f"model '{folder}' holds an adapter ({CONFIG}: {kind} for '{base}')"
    if not any((Path(folder) / name).is_file() for name in WEIGHTS):
        raise UserError(f"{told} without its weights, {WEIGHTS[0]}. Put them there, or delete {CONFIG}.")
    if kind in UNMERGED:
        raise UserError(
            f"{told}: it puts vectors beside a text's own tokens, which methods would change too. Such an "
            "adapter is not measured."
        )
    if importlib.util.find_spec("peft") is None:
        raise UserError(
            f"{told}, which needs peft: pip install peft. Or merge it where peft is: "
            "PeftModel.from_pretrained(model, folder).merge_and_unload().save_pretrained(NEW)"
        )
    return Adapter(Path(folder), kind, base)
