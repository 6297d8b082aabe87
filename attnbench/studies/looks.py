"""Records of looks: one JSON a study and method, in a folder that no model's records can be in."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attnbench.errors import UserError
from attnbench.inputs import files
from attnbench.records import arrays, provenance, record
from attnbench.records.difference import changes

if TYPE_CHECKING:
    import numpy as np
    from pandas import DataFrame

FOLDER = ".looks"  # a model's folder never begins with a dot: see record.file_name
SCHEMA = 1
LARGEST = 1 << 28  # bytes of a JSON
HOLDS = ("measured", "not applicable")
NUMBERS = {"inf": math.inf, "-inf": -math.inf}


@dataclass
class Kept:
    """What one record of a look holds."""

    status: str
    error: str
    tables: dict[str, DataFrame]
    arrays: dict[str, np.ndarray]
    provenance: dict[str, Any]
    cell: dict[str, str]
    settings: dict[str, Any]
    texts: list[str]
    environment: dict[str, Any]
    seconds: dict[str, float]


def path_of(folder: str | Path, cell: Mapping[str, str]) -> Path:
    """Return `<folder>/.looks/<model>/<task>/<method>/<study>.json`."""
    parts = [record.file_name(cell[key]) for key in ("model", "task", "method", "study")]
    return Path(folder, FOLDER, *parts[:3], parts[3] + ".json")


def keep(
    folder: str | Path,
    sources: Mapping[str, Mapping[str, Any]],
    found: Any,
    left_out: Mapping[str, str],
    seconds: Mapping[str, float],
) -> None:
    """Write a record for each method that a study was measured with, or that is `left_out` as not applicable.

    `seconds` are of all that was looked at together: `look` on the clock, `cpu` of the process.

    One that failed has none. Raises UserError where it cannot be written.
    """
    for method, source in sources.items():
        status, error = found.status, found.error or None
        if found.tables and method not in found.tables:
            if method not in left_out:
                continue
            status, error = HOLDS[1], left_out[method]
        packed = arrays.pack(found.arrays.get(method, {}))
        body = {
            "schema": SCHEMA,
            "cell": source["cell"],
            "status": status,
            "error": error,
            "tables": {name: packed_table(table) for name, table in found.tables.get(method, {}).items()},
            "arrays": [*found.arrays.get(method, {})],
            "texts": source["texts"],
            "settings": source["settings"],
            "environment": source["environment"],
            "provenance": {**source["provenance"], "arrays": hashlib.sha256(packed).hexdigest()},
            "seconds": dict(seconds),
            "date": provenance.now(),
        }
        text = json.dumps(body, ensure_ascii=False, allow_nan=False) + "\n"
        try:
            record.put(path_of(folder, source["cell"]), packed, text.encode())
        except OSError as error:
            raise UserError(f"--records {folder}: cannot be written: {error.strerror or error}") from error


def held(folder: str | Path, sources: Mapping[str, Mapping[str, Any]]) -> dict[str, Kept] | None:
    """Return a study's records of all methods where every one of them still holds."""
    found: dict[str, Kept] = {}
    for method, source in sources.items():
        try:
            kept = read(path_of(folder, source["cell"]))
        except ValueError:  # none, or damaged: it is looked at again
            return None
        if kept.status not in HOLDS or not provenance.holds(kept.provenance, source["provenance"]):
            return None
        found[method] = kept
    return found


def why(folder: str | Path, sources: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Say in words why a study's records hold no more, nothing where there is none or all hold."""
    found: list[str] = []
    for source in sources.values():
        try:
            old = as_record(path_of(folder, source["cell"]))
        except ValueError:
            continue
        new = record.Record(
            source["cell"], "measured", settings=source["settings"], provenance=source["provenance"]
        )
        found += changes(old, new)
    return list(dict.fromkeys(found))


def clear_partial(folder: str | Path) -> None:
    """Remove temporaries that a killed look left behind; a look that still needs one writes it again."""
    for model in Path(folder, FOLDER).glob("*"):
        record.clear_partial(model)


def as_record(path: Path) -> record.Record:
    """Return what a record of a look says of itself, tables and arrays aside. Raises ValueError as `read`."""
    kept = read(path)
    return record.Record(
        kept.cell, kept.status, settings=kept.settings, provenance=kept.provenance, file=str(path)
    )


def read(path: str | Path) -> Kept:
    """Read one record of a look. Raises ValueError naming the file and what is wrong with it."""
    path = Path(path)
    try:
        body = json.loads(files.content(path, LARGEST, follow=False).decode("utf-8"))
        if not isinstance(body, dict) or body.get("schema") != SCHEMA:
            raise ValueError(f"not of schema {SCHEMA}, which this version reads")
        packed = files.content(path.with_suffix(".npz"), arrays.LARGEST, follow=False)
        if hashlib.sha256(packed).hexdigest() != body["provenance"]["arrays"]:
            raise ValueError("its arrays are not those that it was written with")
        tables = {name: unpacked_table(table) for name, table in body["tables"].items()}
        held = arrays.unpack(packed, body["arrays"])
        cell = {key: str(body["cell"][key]) for key in ("model", "task", "method", "study")}
        texts = list(map(str, body["texts"]))
        told = str(body["status"]), str(body["error"] or "")
        source, settings = dict(body["provenance"]), dict(body["settings"])
        made = dict(body["environment"]), dict(body["seconds"])
        return Kept(*told, tables, held, source, cell, settings, texts, *made)
    except (OSError, files.Unreadable, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path}: {error}") from error
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def packed_table(table: DataFrame) -> dict[str, Any]:
    """Return a table as JSON holds it: the names of its index and columns, and its rows."""
    names = [str(name) for name in table.index.names]
    rows = [
        [*(_plain(part) for part in (key if isinstance(key, tuple) else (key,))), *map(_plain, values)]
        for key, values in zip(table.index, table.to_numpy().tolist(), strict=True)
    ]
    return {"index": names, "columns": list(map(str, table.columns)), "rows": rows}


def unpacked_table(packed: Mapping[str, Any]) -> DataFrame:
    """Return a table from what JSON holds. Raises KeyError, TypeError or ValueError where it holds none."""
    import pandas as pd

    names, columns = list(packed["index"]), list(packed["columns"])
    table = pd.DataFrame(packed["rows"], columns=[*names, *columns])
    for name in columns:
        table[name] = [
            math.nan if value is None else NUMBERS.get(value, value) if isinstance(value, str) else value
            for value in table[name]
        ]
        table[name] = table[name].astype(float)
    return table.set_index(names)


def _plain(value: Any) -> Any:
    value = value.item() if hasattr(value, "item") else value
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    return value
