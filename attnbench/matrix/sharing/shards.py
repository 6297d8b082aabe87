"""The share of a matrix that one of several runs measures: columns, by what was asked for alone."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from attnbench.errors import UserError, require_folder
from attnbench.inputs import tasks
from attnbench.inputs.settings import Settings

MARK = ".shards.json"  # in a folder of records: which shards it is filled by, until all cells are there
USUAL = 1000  # samples of a task that does not say how many it has
SLURM = ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_MIN", "SLURM_ARRAY_TASK_MAX", "SLURM_ARRAY_TASK_COUNT")
STEP = "SLURM_ARRAY_TASK_STEP"
Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class Shard:
    """The k-th share of n, from 1."""

    number: int
    of: int

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"


def parse(text: str, variables: Mapping[str, str] = os.environ) -> Shard:
    """Read K/N, or the variables of a Slurm array's task for `slurm`. Raises UserError."""
    if text == "slurm":
        return _slurm(variables)
    found = re.fullmatch(r"(\d+)/(\d+)", text)
    if found is None or not 1 <= int(found[1]) <= int(found[2]):
        raise UserError(f"--shard {text}: give K/N, as in 1/4 to 4/4, or slurm within a job array")
    return Shard(int(found[1]), int(found[2]))


def _slurm(variables: Mapping[str, str]) -> Shard:
    missing = next((name for name in SLURM if not variables.get(name, "").isdecimal()), None)
    if missing is not None:
        raise UserError(f"--shard slurm: {missing} is no number here: `sbatch --array=1-4` sets it")
    number, first, last, count = (int(variables[name]) for name in SLURM)
    step = max(1, int(variables.get(STEP) or 1))
    if (last - first) // step + 1 != count or (number - first) % step:
        raise UserError(
            f"--shard slurm: task {number} of {count} from {first} to {last}: an array with gaps has no "
            f"shares: give --array=1-{count}, or --shard K/N"
        )
    return Shard((number - first) // step + 1, count)


def share(shard: Shard, sizes: Mapping[Key, int]) -> set[Key]:
    """Return a shard's columns: the largest first, each to the shard that has least so far.

    Every shard finds the same for itself, whenever and wherever it begins: nothing counts but the columns
    and their sizes, in particular no recorded time, which the others change meanwhile.
    """
    loads = [0] * shard.of
    mine = set()
    for key in sorted(sizes, key=lambda key: -sizes[key]):  # stable: of one size in the order given
        place = loads.index(min(loads))
        loads[place] += sizes[key]
        if place == shard.number - 1:
            mine.add(key)
    return mine


def size(task: str, cells: int, settings: Settings) -> int:
    """Return how large a column is: its cells times the samples that each is measured on."""
    samples = tasks.find(task, settings.include_path).samples or USUAL
    return cells * min(samples, settings.limit or samples)


def claim(folder: str | Path, shard: Shard, source: str, columns: Sequence[Sequence[str]]) -> None:
    """Note in a folder of records which shards fill it. Raises UserError where it is filled by others."""
    require_folder("--records", folder)
    mark = Path(folder) / MARK
    text = json.dumps({"of": shard.of, "source": source, "columns": sorted(map(list, columns))})
    part = mark.with_name(f"{MARK}-{os.getpid()}.part")
    try:
        mark.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(text, encoding="utf-8")
        try:
            os.link(part, mark)  # whole, and only where there is none
        except FileExistsError:
            _require_same(mark, text)
        except OSError:  # a file system without links
            if mark.exists():
                _require_same(mark, text)
            else:
                os.replace(part, mark)
    except OSError as error:
        raise UserError(f"--records {folder}: cannot be written: {error.strerror or error}") from error
    finally:
        part.unlink(missing_ok=True)


def _require_same(mark: Path, text: str) -> None:
    with contextlib.suppress(FileNotFoundError):  # the last shard has just ended
        if (found := mark.read_text(encoding="utf-8")) != text:
            raise UserError(
                f"--records {mark.parent} is being filled by {_told(found)}, and this is of {_told(text)}: "
                f"--records DIR keeps both. If it has changed since: rm {mark}, and all shards anew"
            )


def _told(text: str) -> str:
    try:
        body = json.loads(text)
        return f"{body['of']} shards of {body['source']}, {len(body['columns'])} columns"
    except (ValueError, TypeError, KeyError):
        return "shards that cannot be read"


def settle(folder: str | Path, paths: Iterable[Path]) -> None:
    """Remove the note once every cell of all shards has its record."""
    mark = Path(folder) / MARK
    if mark.exists() and all(path.exists() for path in paths):
        mark.unlink(missing_ok=True)
