"""Texts to learn a language from: of a dataset's column, or of the user's file."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator

from attnbench.backends import data
from attnbench.errors import UserError
from attnbench.inputs import tasks
from attnbench.inputs.files import expanded

COLUMNS = ("text", "page", "sentence", "content")


def of(path: str, name: str | None = None, split: str = "") -> list[str]:
    """Load the texts of a dataset, or of a .csv or .jsonl file, of its first column of COLUMNS.

    Of a .txt file each part between empty lines is one. Raises UserError for none and for another form.
    """
    if not tasks.is_texts(path):
        docs = data.load(
            path, name, split, lambda there: [next((key for key in COLUMNS if key in there), COLUMNS[0])]
        )
        return [text for doc in docs for text in doc.values() if text.strip()]
    if path.lower().endswith(tasks.PARQUET):
        raise UserError(f"calibration {path}: give a .txt, .csv or .jsonl file, or DATASET:SPLIT")
    try:
        content = expanded(path).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError(f"calibration {path}: cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"calibration {path}: not UTF-8 at byte {error.start}. Save it as UTF-8.") from error
    if path.lower().endswith(tasks.PLAIN):
        found = re.split(r"\n\s*\n", content)
    else:
        found = list((_json_lines if path.lower().endswith(".jsonl") else _csv)(path, content))
    found = [text for text in found if text.strip()]
    if not found:
        raise UserError(f"calibration {path}: holds no text")
    return found


def _json_lines(path: str, content: str) -> Iterator[str]:
    for number, line in enumerate(content.splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UserError(f"calibration {path}, line {number}: not JSON: {error}") from None
        yield _text(f"{path}, line {number}", row)


def _csv(path: str, content: str) -> Iterator[str]:
    try:
        rows = csv.DictReader(io.StringIO(content, newline=""), strict=True)
        for row in rows:
            yield _text(f"{path}, line {rows.line_num}", row)
    except csv.Error as error:
        raise UserError(f"calibration {path}: {error}") from error


def _text(place: str, row: object) -> str:
    there = row if isinstance(row, dict) else {}
    key = next((key for key in COLUMNS if key in there), None)
    if key is None:
        found = ", ".join(map(str, there)) or type(row).__name__
        raise UserError(f"calibration {place}: no column 'text' ({', '.join(COLUMNS)}): it has {found}")
    if not isinstance(there[key], str):
        raise UserError(f"calibration {place}: {key} is {there[key]!r}, no text")
    return there[key]
