"""What `attnbench look` is to look at: models on tasks or texts as options say, or the looks of files."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from attnbench.cli.looking import treebanks
from attnbench.errors import UserError, require_folder
from attnbench.inputs import models
from attnbench.inputs.settings import Settings
from attnbench.matrix.plan import columns, refuse_twins
from attnbench.matrix.request import Request, split
from attnbench.methods import spec
from attnbench.records.record import RECORDS

# options that a file of looks has its own for
OWN = (
    "text", "tasks", "studies", "treebank", "methods", "limit", "max_length", "seed", "calibration", "dtype",
    "output", "save_arrays",
)  # fmt: skip


@dataclass(frozen=True)
class Wanted:
    """One look: a model on a task, or None for given texts; studies and methods by their specs.

    `usual` adds all studies that need no data of their own.
    """

    model: str
    task: str | None
    texts: Sequence[str]
    studies: Sequence[str]
    methods: Sequence[str]
    settings: Settings
    records: str | Path
    usual: bool = False


def wanted(options: argparse.Namespace) -> list[Wanted]:
    """Return what is asked for. Raises UserError."""
    found = [*(_of_files(options) if options.files else _given(options))]
    for each in found:
        for text in each.studies:
            spec.parse_study(text)
        for text in each.methods:
            spec.parse(text)
        require_folder("--records", each.records)
    return found


def _given(options: argparse.Namespace) -> Iterator[Wanted]:
    if options.text and options.tasks:
        raise UserError("--text and --tasks: a look is at one or the other. Leave one out.")
    for text in options.text:
        if not text.strip():
            raise UserError("--text is empty: give a text with words, as in --text 'the soup was not good'")
    asked = _request(options, options.models, options.methods, options.tasks, options.limit)
    pairs: list[tuple[str, str | None]] = []
    if options.text:
        refuse_twins("models", {name: models.label(name) for name in asked.models})
        for name in asked.models:
            models.check_folder(name)
            pairs.append((name, None))
    else:
        pairs += columns(asked)
    named = [spec.parse_study(text) for text in split(options.studies)]
    studies = [spec.format([study]) for study in treebanks.given(named, options.treebank)]
    records = options.records or RECORDS
    for name, task in pairs:
        yield Wanted(
            name, task, options.text, studies, asked.methods, asked.settings, records, not options.studies
        )


def _request(
    options: argparse.Namespace, models: Sequence[str], methods: Sequence[str], tasks: Sequence[str],
    limit: int | None,
) -> Request:  # fmt: skip
    return Request.of(
        models, methods, tasks, limit=limit, seed=options.seed or 0, device=options.device or "cpu",
        dtype=options.dtype or "float32", calibration=options.calibration,
        include_path=options.include_path, max_length=options.max_length,
        trust_remote_code=options.trust_remote_code,
    )  # fmt: skip


def _of_files(options: argparse.Namespace) -> Iterator[Wanted]:
    """Yield the looks of files, of those of --models where some are given."""
    from attnbench.boards import chosen
    from attnbench.boards.findings import asked
    from attnbench.boards.suite import is_folder_name, shown

    for name in OWN:
        if getattr(options, name) not in (None, []):
            change = (
                f"`attnbench leaderboard {options.files[0]} --output DIR` renders it"
                if name in ("output", "save_arrays")
                else f"change {options.files[0]}"
            )
            raise UserError(f"--{name.replace('_', '-')}: a file of looks has its own; {change}")
    given = {name if is_folder_name(name) else models.label(name): name for name in split(options.models)}
    files = [asked.load(path) for path in options.files]
    known = list(dict.fromkeys(shown(look.model) for file in files for look in file.looks))
    for label in given:
        if label not in known:
            raise UserError(f"--models {label}: no look is of it; the file has {', '.join(known)}")
    for file in files:
        for look in file.looks:
            label = shown(look.model)
            if given and label not in given:
                continue
            model = chosen.place(file.path, look.model, given.get(label))
            request = _request(options, [model], look.methods, [look.task], look.limit)
            yield Wanted(
                model, look.task, [], look.studies, request.methods, request.settings,
                options.records or file.records,
            )  # fmt: skip
