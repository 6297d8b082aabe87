"""Where a number came from: versions, machine, fingerprints, command, identity."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import os
import platform
import re
import shlex
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attnbench.inputs import prompting
from attnbench.inputs.names import named
from attnbench.methods import verdicts
from attnbench.methods.code import code_of
from attnbench.methods.protocol import Method
from attnbench.records import record

if TYPE_CHECKING:
    from attnbench.inputs.models import Checkpoint
    from attnbench.inputs.settings import Settings

PACKAGES = ("attnbench", "torch", "transformers", "lm-eval", "datasets", "tokenizers", "numpy")
PATH = re.compile(r"=([/~][A-Za-z0-9._/~-]*)")  # a value within a spec: mask:file=/here/masks.json
MAIN = "__main__.py"
CHANGES_NUMBERS = ("limit", "seed", "dtype", "calibration")
CHANGES_WHERE_SET = (
    "max_length",
    "calibration_samples",
    "calibration_tokens",
    *prompting.NAMES,
)  # came later: records without them stay what they are
FILE = "file "  # begins the fingerprint of a file that a method's field names
COMPANIONS = "beside the weights"  # the tokenizer, its chat template, generation settings, a model's own code


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def of(
    cell: dict[str, str],
    methods: Sequence[Method],
    checkpoint: Checkpoint,
    documents: dict[str, Any],
    settings: Settings,
    places: dict[str, str],
) -> dict[str, Any]:
    """Return a record's provenance. Its identity covers what changes the number, not where or when."""
    code = code_of(methods)
    fingerprints = {
        "checkpoint": checkpoint.fingerprint,
        COMPANIONS: checkpoint.companions,
        **documents,
        **files(methods),
    }
    return {
        **origin(checkpoint),
        "places": places,
        "weights": checkpoint.weight_format,
        "fingerprints": fingerprints,
        "trust_remote_code": settings.trust_remote_code,
        "plugins": sorted({_plugin(type(method)) for method in methods}),
        "code": code,
        "check": verdicts.of(methods),
        "command": command(),
        "identity": identity(cell, fingerprints, settings.recorded(), code),
    }


def origin(checkpoint: Checkpoint) -> dict[str, str]:
    """Return what a record says of where a checkpoint is from: no folder."""
    hub = checkpoint.source in ("published", "hub")
    return {"model": checkpoint.path if hub else checkpoint.name, "source": checkpoint.source}


def files(methods: Sequence[Method]) -> dict[str, str]:
    """Hash the content of each file that a field of a method names."""
    common = {each.name for each in dataclasses.fields(Method)}
    fields = [(method, each) for method in methods for each in dataclasses.fields(method)]
    values = [getattr(method, each.name) for method, each in fields if each.init and each.name not in common]
    found = {}
    for name in (item for value in values for item in (value if isinstance(value, tuple) else (value,))):
        place = os.path.expanduser(name) if isinstance(name, str) else ""
        if os.path.isfile(place) and os.access(place, os.R_OK):
            with open(place, "rb") as file:
                found[FILE + name] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def identity(
    cell: dict[str, str], fingerprints: dict[str, Any], settings: dict[str, Any], code: str | None
) -> str:
    """Hash what a record says of all that changes its number."""
    chosen = {name: settings.get(name) for name in CHANGES_NUMBERS}
    chosen |= {name: settings[name] for name in CHANGES_WHERE_SET if settings.get(name) is not None}
    return record.identity({"cell": cell, "fingerprints": fingerprints, "settings": chosen, "code": code})


def holds(old: dict[str, Any], new: dict[str, Any]) -> bool:
    """Tell whether the provenance of a record is that of a cell to be measured now."""
    return bool(old.get("identity") == new["identity"])


def _plugin(cls: type[Method]) -> str:
    if cls.__module__.partition(".")[0] in ("attnbench", "attnbench_plugins"):
        return f"attnbench {metadata.version('attnbench')} ({cls.__module__})"
    file = getattr(sys.modules.get(cls.__module__), "__file__", None)
    return f"{Path(file).name if file else cls.__module__} ({cls.__qualname__})"


def command() -> str:
    """Return the command line of this process, absolute paths by their last part alone."""
    program = Path(sys.argv[0] or "python")
    name = program.parent.name if program.name == MAIN else program.name  # of `python -m attnbench`
    return shlex.join([name, *map(_without_folders, unrepeated(sys.argv[1:]))])


def unrepeated(arguments: Sequence[str]) -> list[str]:
    """Write each spec of --methods once: a shell makes of a{1,2},b{1,2} every a with every b."""
    start = next((k for k, each in enumerate(arguments) if each == "--methods"), len(arguments)) + 1
    end = next((k for k in range(start, len(arguments)) if arguments[k].startswith("-")), len(arguments))
    specs = [spec for word in arguments[start:end] for spec in word.split(",")]
    if len(set(specs)) == len(specs) or any("{" in spec for spec in specs):
        return list(arguments)
    return [*arguments[:start], ",".join(dict.fromkeys(filter(None, specs))), *arguments[end:]]


def written(command: str) -> str:
    """Return a record's command as one types it: older records have the file of `python -m attnbench`."""
    return "attnbench" + command.removeprefix(MAIN) if command.startswith(f"{MAIN} ") else command


def _without_folders(argument: str) -> str:
    name, place = named(argument)
    if name is not None and "=" not in place and place.startswith(("/", "~")):
        return f"{name}=./{Path(place).name}"  # a model with a name, commas and all
    option, equals, value = argument.partition("=") if argument.startswith("-") else ("", "", argument)
    return option + equals + ",".join(map(_without_folder, value.split(",")))


def _without_folder(part: str) -> str:
    if part.startswith(("/", "~")):
        return f"./{Path(part).name}"
    return PATH.sub(lambda found: f"=./{Path(found[1]).name}", part)


@functools.cache
def environment() -> dict[str, Any]:
    """Return versions and hardware."""
    import torch

    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return {
        "versions": versions,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "accelerator": torch.cuda.get_device_name(0) if torch.cuda.is_available() else None,
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or "unknown"
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown"
    )
