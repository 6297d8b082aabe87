"""The option `--treebank`: files for those studies that have a field of that name."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from attnbench.errors import UserError, near_file
from attnbench.inputs.files import expanded
from attnbench.matrix.request import split
from attnbench.methods import spec
from attnbench.methods.plugins import registry
from attnbench.methods.study import Study

FIELD = "treebank"
MOST = 2  # files: one to choose on, one to report on


def given(studies: Sequence[Study], files: Sequence[str]) -> list[Study]:
    """Return studies with the treebank's files, where no study is named those that read a treebank.

    Raises UserError where none of those named does, one names files itself, or a file is not to be had.
    """
    paths = split(files)
    if not paths:
        return list(studies)
    if len(paths) > MOST:
        raise UserError(f"--treebank: {len(paths)} files; give one, or two: DEV,TEST")
    for path in paths:
        if not expanded(path).is_file():
            raise UserError(f"--treebank {path}: no such file.{near_file(path, ('.conllu',))}")
    readers = [name for name, cls in sorted(registry().studies.items()) if _reads(cls)]
    if not studies:
        studies = [spec.parse_study(registry().studies[name].examples[0]) for name in readers]
    if not any(map(_reads, map(type, studies))):
        raise UserError(f"--treebank: no study named reads one. Name {' or '.join(readers)} in --studies.")
    return [_with(study, paths) if _reads(type(study)) else study for study in studies]


def _reads(cls: type[Study]) -> bool:
    return any(each.name == FIELD for each in dataclasses.fields(cls))


def _with(study: Study, paths: Sequence[str]) -> Study:
    text = spec.format([study])
    if getattr(study, FIELD):
        raise UserError(f"{text}: names a treebank, and so does --treebank. Leave one out.")
    return spec.parse_study(":".join([text, *(f"{FIELD}={path}" for path in paths)]))
