"""Find the tasks: lm-eval YAML files, bundled or in the user's folder. Imports nothing heavy."""

from __future__ import annotations

import functools
import importlib.util
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

from attnbench.errors import UserError, near_file, tell
from attnbench.inputs import endings, task_yaml, unfound
from attnbench.inputs.files import expanded

# the head a checkpoint needs, by the class that a task's YAML names
HEADS = {
    "attnbench.backends.classification.Classify": "classification",
    "attnbench.backends.classification.Regress": "classification",
    "attnbench.backends.spans.Span": "qa",
    "attnbench.backends.masked.MinimalPairs": "masked-lm",
    "attnbench.backends.masked.PseudoPerplexity": "masked-lm",
    "attnbench.backends.seq2seq.Translate": "seq2seq",
    "attnbench.backends.long.scoring.Questions": "causal-lm",
}
place, read_yaml = task_yaml.place, task_yaml.read_yaml
PARQUET = ".parquet"  # for language models alone
OWN = (".csv", ".jsonl", PARQUET)  # files of the user's, each a task
PLAIN = ".txt"  # of texts alone, to calibrate on
YAML = (".yaml", ".yml")
FITS = {"causal": ("causal-lm",), "seq2seq": ("seq2seq",)}  # kind of checkpoint -> heads; encoder: all others


@dataclass(frozen=True)
class TaskFile:
    """What a task's YAML says, without its data.

    `head` is None for a class that HEADS does not know, causal-lm for a task in lm-eval's stock form.
    """

    name: str
    path: str
    head: str | None
    dataset: str
    metrics: tuple[str, ...]
    calibration: str | None
    description: str
    licence: str = ""
    samples: int | None = None
    configurations: tuple[str, ...] = ()  # of its dataset, each a task of its own too
    configuration: str | None = None  # the one that this task is
    any_length: bool = False  # its name may say how long its contexts are
    length: int | None = None  # in tokens, of the contexts of a task whose name says it: needles_1024
    ending: endings.Ending = field(default_factory=endings.Ending)  # of its prompts, as its name says

    @property
    def plain(self) -> str:
        """Return its name without what it says of prompts."""
        return self.name.removesuffix(self.ending.recorded)

    def parts(self) -> dict[str, TaskFile]:
        """Return the tasks of single configurations by name: xquad_de is xquad's xquad.de."""
        named = {f"{self.name}_{each.removeprefix(f'{self.name}.')}": each for each in self.configurations}
        return {
            name: replace(self, name=name, configurations=(), configuration=each, samples=None)
            for name, each in named.items()
        }

    def at_length(self, name: str) -> TaskFile | None:
        """Return the task of another length: needles_1024 is needles at 1,024 tokens."""
        said = re.fullmatch(rf"{re.escape(self.name)}_([1-9]\d{{0,6}})", name)
        return replace(self, name=name, length=int(said[1])) if said and self.any_length else None


def folder() -> Path:
    """Return the folder of the bundled tasks."""
    return Path(str(files("attnbench_tasks")))


def available(include_path: str | None = None, wanted: str | None = None) -> dict[str, TaskFile]:
    """List the tasks by name: the bundled ones, then a folder's, which win.

    A file with a mistake is named on stderr and left out. Raises UserError for one of the `wanted` name.
    """
    found: dict[str, TaskFile] = {}
    for place in (folder(), *([expanded(include_path)] if include_path else [])):
        if not place.is_dir():
            raise UserError(
                f"tasks folder '{place}' is not a folder. Give one that holds lm-eval task YAML files."
            )
        for file in sorted(place.rglob("*.yaml")):
            try:
                task = _read(file)
            except UserError as mistake:
                if wanted is not None and task_yaml.declared(file) == wanted:
                    raise
                _leave_out(str(mistake))
            else:
                found |= {task.name: task} if task else {}
    return found


@functools.cache
def _leave_out(mistake: str) -> None:
    tell(f"left out: {mistake}")


def find(name: str, include_path: str | None = None, kind: str | None = None) -> TaskFile:
    """Return a task by name or by the path of its YAML: the one for a kind of checkpoint, where two exist.

    A user's folder wins, then for a causal model lm-eval's stock task, then ours. What follows an @ says
    where its prompts end. Raises UserError with the near names.
    """
    plain, ending = endings.parted(name)
    found = _find(plain, include_path, kind)
    return replace(found, name=found.name + ending.recorded, ending=ending)


def _find(name: str, include_path: str | None, kind: str | None) -> TaskFile:
    if name.endswith(YAML) and expanded(name).is_file():
        task = _read(expanded(name))
        if task is None:
            raise UserError(
                f"task file '{name}' has no `task:` and `class:`. See tasks/sst2/sst2.yaml for one that has."
            )
        return task
    known = available(include_path, name)
    if is_own(name):
        return _own(name, known, kind)
    wholes = [each for each in known.values() if each.configurations and name.startswith(f"{each.name}_")]
    parts = (*(each.parts().get(name) for each in wholes), *(each.at_length(name) for each in known.values()))
    bundled = known.get(name) or next(filter(None, parts), None)
    if bundled and (kind is None or fits(bundled, kind) or Path(bundled.path).parent.parent != folder()):
        return bundled
    found = (stock(name) if kind != "encoder" or not bundled else None) or bundled
    if found is None and name.endswith(YAML):
        raise UserError(f"no file '{name}'.{near_file(name, YAML)} A task has `task:` and `class:` in YAML.")
    if found is None and (place := expanded(name)).exists():
        what = "a folder" if place.is_dir() else "a file of no kind known"
        raise UserError(
            f"task '{name}' is {what}: your own data are a .csv or .jsonl file, your own task a .yaml."
        )
    if found is None:
        raise unfound.unknown_task(name, known, OWN, YAML)
    return found


def is_own(name: str) -> bool:
    """Tell whether a task, or what to calibrate on, is a file of the user's: texts, labels, questions."""
    return name.lower().endswith(OWN)


def is_file_name(name: str) -> bool:
    """Tell whether a task, or what to calibrate on, is named by a path or by a file's ending."""
    file = is_texts(name.partition(":")[0]) or name.endswith(YAML)
    return file or name.startswith((".", "/", "~"))


def is_texts(name: str) -> bool:
    """Tell whether what to calibrate on is a file of the user's, with labels or of texts alone."""
    return is_own(name) or name.lower().endswith(PLAIN)


def _own(name: str, known: Collection[str], kind: str | None) -> TaskFile:
    place = expanded(name)
    if not place.is_file():
        raise UserError(
            f"no file '{name}'.{near_file(name, OWN)} A file of your own has the columns text and label."
        )
    if place.stem in known:
        raise UserError(f"'{name}' would share the name of task '{place.stem}' in records. Rename it.")
    head, metric = ("causal-lm", "string_match_all") if kind == "causal" else ("classification", "acc")
    return TaskFile(place.stem, str(place), head, f"file {place.name}", (metric,), None, "own data")


def recorded(name: str) -> str:
    """Return the name that records have for a task given by its name or its file. Raises UserError."""
    plain, ending = endings.parted(name)
    named = Path(plain).stem if is_own(plain) else find(plain).name if plain.endswith(YAML) else plain
    return named + ending.recorded


def shown(name: str) -> str:
    """Return what a record says of a task, a dataset or a file: of a file its last part, never its folder."""
    plain = endings.plain(name)
    return Path(name).name if is_texts(plain.partition(":")[0]) or plain.endswith(YAML) else name


def fits(task: TaskFile, kind: str) -> bool:
    """Tell whether a task is for a kind of checkpoint: encoder, causal or seq2seq."""
    others = [head for heads in FITS.values() for head in heads]
    return task.head in FITS[kind] if kind in FITS else task.head not in others


@functools.cache
def stock(name: str) -> TaskFile | None:
    """Find a task or group of lm-eval's own by name, its YAML in the folders that share its name first."""
    spec = importlib.util.find_spec("lm_eval")
    if spec is None or not spec.submodule_search_locations or not re.fullmatch(r"[\w.+-]+", name):
        return None
    root = Path(spec.submodule_search_locations[0]) / "tasks"
    declared = re.compile(rf"""^(task|group):\s*["']?{re.escape(name)}["']?\s*$""", re.MULTILINE)
    near = [place for place in root.iterdir() if place.is_dir() and name.startswith(place.name.split("_")[0])]
    for place in (*sorted(near, key=lambda each: (-len(each.name), each.name)), root):
        for file in sorted(place.rglob("*.yaml")):
            if declared.search(file.read_text(encoding="utf-8", errors="replace")):
                content = read_yaml(file)
                return TaskFile(
                    name=name,
                    path=str(file),
                    head="causal-lm",
                    dataset=_dataset(content),
                    metrics=tuple(_metrics(content)),
                    calibration=content.get("training_split"),
                    description="lm-eval's own",
                )
    return None


def _read(path: Path) -> TaskFile | None:
    content = read_yaml(path)
    if not isinstance(content.get("task"), str) or not {"class", "output_type", "include"} & set(content):
        return None
    task_yaml.check_shape(path, content)
    metadata = content.get("metadata") or {}
    calibration = metadata.get("calibration")
    return TaskFile(
        name=content["task"],
        path=str(path),
        head=HEADS.get(content["class"]) if "class" in content else "causal-lm",
        dataset=_dataset(content),
        metrics=tuple(_metrics(content)),
        calibration=f"{calibration['split']}[{calibration['samples']}]" if calibration else None,
        description=metadata.get("description", ""),
        licence=metadata.get("licence", ""),
        samples=metadata.get("samples"),
        configurations=tuple(metadata.get("configurations") or ()),
        any_length="length" in metadata,
    )


def _dataset(content: dict[str, Any]) -> str:
    source = content.get("dataset_path") or content.get("custom_dataset")
    return "/".join(filter(None, (source, content.get("dataset_name"))))


def _metrics(content: dict[str, Any]) -> Iterator[str]:
    for entry in content.get("metric_list") or []:
        yield entry["metric"]
