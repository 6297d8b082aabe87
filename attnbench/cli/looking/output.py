"""A look as files: a page, CSV tables, pictures, heads.json and arrays, in a folder of its own."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from attnbench.errors import UserError, require_folder
from attnbench.records.record import file_name
from attnbench.studies.compared import compared, heads_file
from attnbench.studies.passes import DENSE

if TYPE_CHECKING:
    from pandas import DataFrame

    from attnbench.studies.looking import Look

PAGE = "index.html"
MARK = "attnbench-look.json"  # says that a folder is ours to write into
DIGITS = "%.9g"


def prepare(folder: str) -> None:
    """Make the folder of a look. Raises UserError for one that holds something else, or cannot be made."""
    require_folder("--output", folder)
    place = Path(folder)
    try:
        if place.is_dir() and any(place.iterdir()) and not (place / MARK).is_file():
            raise UserError(f"--output {folder}: holds files of something else; give a new folder")
        place.mkdir(parents=True, exist_ok=True)
        mark = json.dumps({"format": "attnbench look", "version": 1})
        (place / MARK).write_text(f"{mark}\n", encoding="utf-8")
    except OSError as error:
        raise UserError(f"--output {folder}: cannot be written: {error.strerror or error}") from error


def write(look: Look, folder: str, samples: int = 0) -> Path:
    """Write a look: its page, a CSV a table with all methods, pictures, heads.json, and arrays of samples.

    Returns where the page is, beside which the others are. Raises UserError where they cannot be written.
    """
    from attnbench.boards.inside.document import to_html
    from attnbench.boards.pictures.looks import pictures

    target = Path(folder, file_name(look.model), file_name(look.data))
    try:
        target.mkdir(parents=True, exist_ok=True)
        for text, found in look.found.items():
            for name, table in compared(found.tables).items():
                place = target / f"{file_name(text)}.{name}.csv"
                place.write_text(table.to_csv(float_format=DIGITS, lineterminator="\n"), encoding="utf-8")
        for name, forms in pictures(look):
            for form, content in forms.items():
                (target / f"{file_name(name)}.{form}").write_bytes(content)
        heads = json.dumps(heads_file(look), indent=1, ensure_ascii=False) + "\n"
        (target / "heads.json").write_text(heads, encoding="utf-8")
        (target / PAGE).write_text(to_html(look), encoding="utf-8")
        if samples:
            _write_arrays(look, target / "arrays", samples)
    except OSError as error:
        raise UserError(f"--output {folder}: cannot be written: {error.strerror or error}") from error
    return target / PAGE


def write_models(models: Mapping[str, DataFrame], folder: str) -> None:
    """Write means over the heads of each layer, of all models: STUDY.models.csv. Raises UserError."""
    try:
        for text, table in models.items():
            place = Path(folder, f"{file_name(text)}.models.csv")
            place.write_text(table.to_csv(float_format=DIGITS, lineterminator="\n"), encoding="utf-8")
    except OSError as error:
        raise UserError(f"--output {folder}: cannot be written: {error.strerror or error}") from error


def _write_arrays(look: Look, place: Path, samples: int) -> None:
    """Write an .npz a method and sample: `stage.kind.layer`, and the token ids of the sample."""
    import numpy as np

    from attnbench.studies.keeping import kept

    opened = look.opened
    learned = opened.learned({name: opened.asked[name] for name in look.methods if name != DENSE})
    given = opened.reading.given[:samples]
    place.mkdir(exist_ok=True)
    for method, numbers in kept(opened.model, opened.reading, given, learned).items():
        for sample in given:
            held = {
                f"{stage}.{kind}.{layer}": array
                for stage, arrays in numbers[sample.number].items()
                for (kind, layer), array in arrays.items()
            }
            held["tokens"] = sample.source.ids
            if sample.target is not None:
                held["decoder tokens"] = sample.target.ids
            buffer = io.BytesIO()
            np.savez_compressed(buffer, **held)  # type: ignore[arg-type]
            (place / f"sample{sample.number}.{file_name(method)}.npz").write_bytes(buffer.getvalue())
