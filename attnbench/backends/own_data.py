"""The user's own data: texts and labels in a CSV or JSON Lines file. Every mistake is named by its line."""

from __future__ import annotations

import csv
import difflib
import io
import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from attnbench.backends.data import SAMPLES
from attnbench.errors import UserError, near, unknown
from attnbench.inputs import tasks
from attnbench.inputs.files import expanded
from attnbench.inputs.json_lines import json_rows
from attnbench.records.inert import clean

COLUMNS = ("text", "text2", "label", "split")  # text2 and split where wanted; other columns are passed over
ALIKE = 0.75  # of two names, of which one is likely meant for the other: txt and text, not target and text
FIRST = " The first line names the columns, as in text,label."
FITTED, EVALUATED = "calibration", "evaluation"
SPLITS = {
    **dict.fromkeys(("train", FITTED), FITTED),
    **dict.fromkeys(("validation", "valid", "dev", "test", EVALUATED), EVALUATED),
}
UNLABELLED = object()  # the label of a row that has none
LONGEST = 80  # characters of a value in a message


class Item(NamedTuple):
    """One row; `place` is the file and the line where it begins."""

    place: str
    text: str
    text2: str | None
    label: Any
    split: str


def read(path: str, each: Sequence[str] = (), labelled: bool = False) -> list[Item]:
    """Read a file's rows. Raises UserError with the line.

    `each` are labels that may have a column of their own, instead of one column `label`: a row's label is
    then the list of what they hold. Without labels in any row the label is UNLABELLED: enough to learn from
    for what reads texts alone, an error where they are to be `labelled`.
    """
    if path.lower().endswith(tasks.PARQUET):
        raise UserError(f"{path}: a .parquet file is for language models. Texts and labels: .csv or .jsonl.")
    try:
        content = expanded(path).read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise UserError(
            f"{path}, line {line}: not UTF-8: byte {error.object[error.start]:#04x}. Save it as UTF-8."
        ) from error
    read_rows = _json_lines if path.lower().endswith(".jsonl") else _csv
    rows = read_rows(path, content, each, ("text", "label") if labelled else ("text",))
    found = [_item(f"{path}, line {line}", row) for line, row in rows]
    if not found:
        raise UserError(f"{path}: holds no row. Columns: text and label; text2 and split are optional.")
    bare = [item for item in found if item.label is UNLABELLED]
    if bare and len(bare) < len(found):
        raise UserError(f"{bare[0].place}: no 'label', which other rows have")
    return found


def _csv(
    path: str, content: str, each: Sequence[str], needed: Sequence[str]
) -> Iterator[tuple[int, dict[str, Any]]]:
    def check(place: str, header: list[str]) -> None:
        _check_header(place, header, each, needed)

    for line, row in csv_rows(path, content, check):
        yield line, _gathered(row, each)


def csv_rows(
    path: str, content: str, check: Callable[[str, list[str]], None]
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the rows of a CSV with the lines that they begin at; `check` is asked about the header.

    Raises UserError for a row of more or fewer fields than the header has, and for what is no CSV.
    """
    reader = csv.reader(io.StringIO(content, newline=""), strict=True)
    header: list[str] = []
    start = 1
    try:
        for fields in reader:
            if not header and fields:
                header = [field.strip() for field in fields]
                check(f"{path}, line {start}", header)
            elif fields:
                if len(fields) != len(header):
                    raise UserError(f"{path}, line {start}: {_miscounted(fields, header)}")
                yield start, dict(zip(header, fields, strict=True))
            start = reader.line_num + 1
    except csv.Error as error:
        what = "a quote is never closed" if "unexpected end" in str(error) else error
        raise UserError(f"{path}, line {start}: {what}") from error


def _miscounted(fields: list[str], header: list[str]) -> str:
    count = f"{len(fields)} field{'s' if len(fields) > 1 else ''}, the header has {len(header)}: "
    if len(fields) > len(header):
        return f"{count}{', '.join(header)}. A text with a comma goes in quotes."
    missing = header[len(fields) :]
    return (
        f"{count}{', '.join(header)}. No {', no '.join(missing)}: a line break in a text goes in quotes too."
    )


def _renamed(name: str, found: Iterable[str]) -> str:
    """Say which column is likely the one that is wanted."""
    alike = {each.casefold(): each for each in found if each not in COLUMNS}
    near = difflib.get_close_matches(name, alike, n=1, cutoff=ALIKE)
    return f" Rename {alike[near[0]]} to {name}." if near else ""


def _gathered(row: dict[str, Any], each: Sequence[str]) -> dict[str, Any]:
    """Make the label of a row that has a column for each label."""
    whole = each and "label" not in row and all(name in row for name in each)
    return {**row, "label": [row[name] for name in each]} if whole else row


def _check_header(place: str, header: list[str], each: Sequence[str], needed: Sequence[str]) -> None:
    for name in needed:
        if name not in _gathered(dict.fromkeys(header), each):
            hint = " It has to be separated by commas." if len(header) == 1 else ""
            hint += _renamed(name, header) or ("" if {*needed} & {*header} else FIRST)
            raise UserError(f"{place}: no column '{name}'. It has {', '.join(header)}.{hint}")
    twice = [name for name in COLUMNS if header.count(name) > 1]
    if twice:
        raise UserError(f"{place}: column '{twice[0]}' stands there twice")


def _json_lines(
    path: str, content: str, each: Sequence[str], needed: Sequence[str]
) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in json_rows(path, content):
        row = _gathered(line, each)
        for name in needed:
            if name not in row:
                raise UserError(
                    f"{path}, line {number}: no '{name}'. It has {', '.join(row)}.{_renamed(name, row)}"
                )
        yield number, row


def _item(place: str, row: dict[str, Any]) -> Item:
    for name in ("text", "text2"):
        text = row.get(name, "-")
        if not isinstance(text, str) or not text.strip():
            raise UserError(f"{place}: {name} is {'empty' if text in ('', None) else repr(text)}")
        try:
            text.encode()
        except UnicodeEncodeError:
            raise UserError(f"{place}: {name} has half a character (a lone surrogate)") from None
    split = row.get("split", EVALUATED)
    if not isinstance(split, str) or split.lower() not in SPLITS:
        raise UserError(f"{place}: split is {split!r}. Known: {', '.join(SPLITS)}.{near(str(split), SPLITS)}")
    given = row.get("label", UNLABELLED)
    label = given.strip() if isinstance(given, str) else given
    return Item(place, row["text"], row.get("text2"), label, SPLITS[split.lower()])


def split_of(name: str) -> str:
    """Return which of the two splits a name stands for. Raises UserError for one that stands for neither."""
    if name.lower() not in SPLITS:
        raise unknown("split", name, SPLITS, f"A file of your own has {', '.join(SPLITS)}.")
    return SPLITS[name.lower()]


def number_of(item: Item, labels: tuple[str, ...] | list[str]) -> Any:
    """Return the number of an item's label, given by name, in any case where that is one label, or by number.

    A name wins: where the labels are called 1 and 2, 1 is the first. Raises UserError for any other, and for
    a name that two labels have; returns None where there is none to be had.
    """
    if item.label is UNLABELLED:
        return None
    text = str(item.label)
    whole = re.sub(r"(?<=\d)\.0+$", "", text)  # as pandas writes a column with gaps
    for name in (text, whole) if isinstance(item.label, str | int | float) else ():
        same = [number for number, label in enumerate(labels) if label == name]
        if len(same) > 1:
            raise UserError(
                f"{item.place}: label {item.label!r} is the name of {len(same)} labels of the model, numbers "
                f"{', '.join(map(str, same))}: write its number"
            )
        if same:
            return same[0]
        alike = [number for number, label in enumerate(labels) if label.casefold() == name.casefold()]
        if len(alike) == 1:
            return alike[0]
    if re.fullmatch("0*[0-9]{1,9}", whole) and int(whole[-9:]) < len(labels):
        return int(whole[-9:])
    raise UserError(
        f"{item.place}: label {shown(item.label)} is none of {', '.join(labels)}, nor a number below "
        f"{len(labels)}"
        f"{near(text, labels) and '.' + near(text, labels)}"
    )


def value_of(item: Item) -> Any:
    """Return an item's label as a number. Raises UserError for what is none."""
    if item.label is UNLABELLED:
        return None
    try:
        number = math.nan if "_" in str(item.label) else float(item.label)  # Python's 1_5 is no one's 15
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if isinstance(item.label, bool) or not math.isfinite(number):
        raise UserError(f"{item.place}: label {shown(item.label)} is no number, which the model gives")
    return number


def shown(value: Any) -> str:
    """Write a value as it stands, cut where it is long."""
    return clean(repr(value), LONGEST)


def definition(name: str, items: list[Item], labels: list[str]) -> dict[str, Any]:
    """Return the configuration of the task that a file is, for a model with these labels, less its documents.

    A model with one label gives a number, and is compared by correlation.
    """
    pair = any(item.text2 is not None for item in items)
    fitted = any(item.split == FITTED for item in items)
    metrics = ["acc"] if len(labels) > 1 else ["spearman", "pearson"]
    return {
        "task": name,
        "validation_split": EVALUATED,
        "doc_to_text": ["text", "text2"] if pair else "text",
        "doc_to_target": "label",
        "doc_to_choice": labels if len(labels) > 1 else None,
        "metric_list": [{"metric": metric} for metric in metrics],
        # the labels are the model's, of which two may have one name: numbers tell them apart
        "metadata": {
            "labels_by_number": True,
            **({"calibration": {"split": FITTED, "samples": SAMPLES}} if fitted else {}),
        },
    }
