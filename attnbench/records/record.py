"""Records: one JSON a cell, measurements only, written so that a kill leaves no half of a file."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attnbench.errors import UserError, near_file, require_folder, tell
from attnbench.inputs import files
from attnbench.records import arrays, decoded, schema

if TYPE_CHECKING:
    import numpy as np

RECORDS = "attnbench-records"  # where records are kept unless somebody says where
SCHEMA = 1
NUMERICS = 2  # raise by hand when the core's numerics change: older records are then measured again
LONGEST_NAME = 100
MEANWHILE_S = 0.5  # more than another run takes between its two renames
LARGEST = 16 << 20  # bytes of a JSON
# arrays that no metric names: of every cell, of a dense one, of one with a method
ALWAYS = ("doc_id", "outputs", "likely ids", "likely logs", "likely sizes", *schema.FAITHFUL, *schema.PLACED)
ALIKE = ("doc_id", *schema.PLACED)  # what the records of a task have in common
APART = ("scores", "file")  # fields of a Record that are not in its JSON


@dataclass
class Record:
    """What was measured in one cell. `scores` holds doc_id and a per-sample array for every metric.

    `file` is where it was read from.
    """

    cell: dict[str, str]
    status: str
    error: str | None = None
    metrics: dict[str, dict[str, Any]] = field(default_factory=dict)
    receipt: dict[str, Any] = field(default_factory=dict)
    measured: dict[str, Any] = field(default_factory=dict)
    fitted: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    date: str = ""
    schema: int = SCHEMA
    scores: dict[str, np.ndarray] = field(default_factory=dict, repr=False, compare=False)
    file: str = field(default="", repr=False, compare=False)

    def body(self) -> dict[str, Any]:
        """Return what its JSON holds."""
        names = [each.name for each in dataclasses.fields(self) if each.name not in APART]
        return {name: getattr(self, name) for name in names}


KEYS = frozenset(each.name for each in dataclasses.fields(Record)) - {*APART}


def file_name(text: str) -> str:
    """Make a file name of a spec or model name: ',' for ':', '-' for '/', a hash at the end of a long one."""
    name = text.replace(":", ",").replace("/", "-").replace("\\", "-").lstrip(".") or "-"
    if len(name) > LONGEST_NAME:
        name = name[:LONGEST_NAME] + "-" + hashlib.sha256(text.encode()).hexdigest()[:8]
    return name


def path_of(folder: str | Path, cell: dict[str, str]) -> Path:
    """Return `<folder>/<model>/<task>/<method>.json`."""
    parts = [file_name(cell[key]) for key in ("model", "task", "method")]
    return Path(folder, *parts[:2], parts[2] + ".json")


def write(folder: str | Path, record: Record) -> Path:
    """Write a record: both files whole beside their places, then arrays and the JSON naming their hash moved.

    A full disk or Ctrl-C leaves the old record or the new one; so does a kill, but for one between the two
    moves, which leaves the old JSON beside new arrays: their hash tells, and the cell is measured again.
    Raises UserError where it cannot be written, ValueError for what JSON cannot hold.
    """
    path = path_of(folder, record.cell)
    packed = arrays.pack(record.scores)
    body = {"schema": record.schema} | record.body()
    body["provenance"] = {**record.provenance, "arrays": hashlib.sha256(packed).hexdigest()}
    text = json.dumps(body, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    try:
        put(path, packed, text.encode())
    except OSError as error:
        raise UserError(f"--records {folder}: cannot be written: {error.strerror or error}") from error
    return path


def require_readable(record: Record) -> None:
    """Raise ValueError where a record, once written, would be taken for a damaged one."""
    whole = {"schema": record.schema} | record.body()
    whole["provenance"] = {**record.provenance, "arrays": "0" * 64}
    body = json.loads(json.dumps(whole, allow_nan=False))
    if fault := schema.first_fault(body) or schema.array_problem(record.metrics, record.scores):
        raise ValueError(fault)


def put(path: Path, packed: bytes, text: bytes) -> None:
    """Write the two files of a record, arrays first, so that neither is there in part. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _replace({path.with_suffix(".npz"): packed, path: text})


def _replace(contents: dict[Path, bytes], tries: int = 3) -> None:
    # a temporary's name has no .json at its end: a reader never takes it for a record
    parts = {path: path.with_name(f".{path.stem[:40]}-{os.getpid()}{path.suffix}.part") for path in contents}
    try:
        for path, data in contents.items():
            with parts[path].open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        _move(parts)
    except FileNotFoundError:
        # another run that began meanwhile took it for a killed run's: see clear_partial
        if tries == 1:
            raise
        _replace(contents, tries - 1)
    except BaseException:
        for part in parts.values():
            part.unlink(missing_ok=True)
        raise


def _move(parts: dict[Path, Path]) -> None:
    try:
        for path, part in parts.items():
            os.replace(part, path)
    except OSError:
        raise
    except BaseException:  # Ctrl-C: where the first is in its place the others follow
        left = {path: part for path, part in parts.items() if part.exists()}
        if len(left) < len(parts):
            for path, part in left.items():
                os.replace(part, path)
        raise


def check_writable(folder: str | Path) -> None:
    """Raise UserError at once where no record could be written."""
    require_folder("--records", folder)
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(f"--records {folder}: cannot be written: {error.strerror or error}") from error


def clear_partial(folder: str | Path) -> None:
    """Remove temporaries that a killed run left behind; a run that still needs one writes it again."""
    for part in Path(folder).glob("*/*/.*.part"):
        part.unlink(missing_ok=True)


def read(path: str | Path) -> Record:
    """Read one record with the arrays that its metrics name and those of every record.

    Raises ValueError naming the file and what is wrong with it, whoever made it and whatever it holds.
    """
    path = Path(path)
    try:
        text = files.content(path, LARGEST, follow=False).decode("utf-8")
        body = decoded.of(text)
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file") from None
    except files.Unreadable as error:
        raise ValueError(f"{path}: {error}") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not readable as JSON: {error}") from None
    if decoded.deep(text, body):
        raise ValueError(f"{path}: nested more than {decoded.DEEPEST} levels deep")
    if not isinstance(body, dict) or body.get("schema") != SCHEMA:
        found = body.get("schema") if isinstance(body, dict) else type(body).__name__
        raise ValueError(f"{path}: schema {found}, this version reads {SCHEMA}")
    if set(body) != KEYS:
        raise ValueError(f"{path}: keys {sorted(set(body) ^ KEYS)} are missing or unknown")
    if (told := schema.problem(body)) is not None:
        raise ValueError(f"{path}: {told}")
    beside = path.with_suffix(".npz")
    try:
        packed = files.content(beside, arrays.LARGEST, follow=False)
        if hashlib.sha256(packed).hexdigest() != body["provenance"]["arrays"]:
            raise ValueError("not the arrays that the JSON was written with")
        scores = arrays.unpack(packed, [*ALWAYS, *body["metrics"]], ALIKE)
    except Exception as error:  # whatever numpy and zipfile make of what is no archive
        raise ValueError(f"{beside}: {error}") from None
    if (told := schema.array_problem(body["metrics"], scores)) is not None:
        raise ValueError(f"{beside}: {told}")
    return Record(**body, scores=scores, file=str(path))


def read_all(folder: str | Path) -> Iterator[Record]:
    """Read every record under a folder in path order; a damaged one is named on stderr and passed over."""
    require_folder("--records", folder)
    if not Path(folder).is_dir():
        raise UserError(
            f"--records {folder}: no such folder.{near_file(Path(folder))} `attnbench run` makes one."
        )
    root, paths = Path(folder).resolve(), sorted(Path(folder).glob("*/*/*.json"))
    links = {home for home in {p.parent for p in paths} if home.resolve() != root / home.relative_to(folder)}
    for path in paths:
        try:
            if path.parent in links:
                raise ValueError(f"{path}: in a folder that is a link, which is not followed")
            item = read(path)
            if path_of(folder, item.cell) != path:
                raise ValueError(f"{path}: holds {' · '.join(item.cell.values())}, whose file is another")
            yield item
        except ValueError as error:
            tell(f"record passed over: {error}")


def existing(folder: str | Path, cell: dict[str, str]) -> Record | None:
    """Return a cell's record, or None. A damaged one is set aside with a warning and measured again."""
    path = path_of(folder, cell)
    if not path.exists():
        return None
    try:
        try:
            return read(path)
        except ValueError:
            time.sleep(MEANWHILE_S)
            return read(path)
    except ValueError as error:
        aside = path.with_suffix(".json.damaged")
        with contextlib.suppress(FileNotFoundError):  # another run has set it aside
            os.replace(path, aside)
            tell(f"damaged record set aside as {aside.name}: {error}")
        return None


def identity(parts: dict[str, Any]) -> str:
    """Hash everything that changes a number, and nothing else."""
    text = json.dumps({"numerics": NUMERICS, **parts}, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()
