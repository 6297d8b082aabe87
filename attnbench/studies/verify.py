"""Look again at what a record of a look is of, and hold the two against each other."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from attnbench.errors import UserError
from attnbench.inputs.settings import Settings
from attnbench.matrix.verify import SAME, model_of, require_named
from attnbench.methods import spec
from attnbench.records.record import Record
from attnbench.studies import looks
from attnbench.studies.looking import MEASURED, look_at
from attnbench.studies.opening import Opened

if TYPE_CHECKING:
    from pandas import DataFrame

CLOSE = 5e-3  # of the largest number of a column: a mean in which rounding elsewhere moves one value in 200


def verify(
    path: str | Path,
    *,
    model: str | None = None,
    task: str | None = None,
    include_path: str | None = None,
    calibration: str | None = None,
    files: Sequence[str] = (),
    trust_remote_code: bool = False,
) -> tuple[list[str], bool]:
    """Return what was found, as lines, and whether the record of a look stands.

    It stands where weights and texts are the same, and every table has the same rows and, up to 0.5 % of a
    column's largest number, the same numbers. `model`, `task` and `calibration` say where the files are that
    a record only knows by name, `files` which of those that its study or method names may be read. Raises
    UserError where one cannot be had.
    """
    try:
        old = looks.read(path)
    except ValueError as error:
        raise UserError(str(error)) from None
    record = Record(old.cell, old.status, provenance=old.provenance)
    require_named(record, path, files)
    settings = Settings(
        **{key: old.settings[key] for key in SAME if key in old.settings},
        calibration=calibration or old.settings.get("calibration"),
        include_path=include_path,
        trust_remote_code=trust_remote_code,
    )
    opened = Opened(
        model or model_of(record), None if old.texts else task or old.cell["task"], old.texts, settings
    )
    name = " ".join(old.cell.values())
    lines, stands = [], True
    then = old.provenance.get("fingerprints", {})
    for key, now, words in (
        ("checkpoint", opened.checkpoint.fingerprint, "the weights are others"),
        ("dataset", opened.fingerprints["dataset"], "the texts are others"),
    ):
        if then.get(key) != now:
            lines.append(f"{name}: {key}: {words}")
            stands = False
    method = old.cell["method"]
    applied = spec.parse(method)
    look = look_at(opened, [spec.parse_study(old.cell["study"])], {method: applied} if applied else {})
    found = look.found[old.cell["study"]]
    if MEASURED not in (old.status, found.status) or old.status != found.status or method not in found.tables:
        told = found.error or look.left_out.get(method) or look.failed.get(method, "")
        now = found.status if method in found.tables or found.error else "not measured"
        lines.append(f"{name}: recorded as {old.status}, now {now}" + (f": {told}" if told else ""))
        return lines, stands and old.status == now
    for table in sorted({*old.tables, *found.tables[method]}):
        said, same = _compared(old.tables.get(table), found.tables[method].get(table))
        lines.append(f"{name}: {table}: {said}: {'agrees' if same else 'DISAGREES'}")
        stands &= same
    return lines, stands


def _compared(then: DataFrame | None, now: DataFrame | None) -> tuple[str, bool]:
    if then is None or now is None:
        return "a table then or now alone", False
    if [*then.columns] != [*now.columns] or set(then.index) != set(now.index):
        return "other rows or columns", False
    a, b = (each.astype(float).to_numpy() for each in (now, then.reindex(now.index)))
    if not len(a):
        return "no rows, now as then", True
    real = np.isfinite(a) & np.isfinite(b)
    size = np.maximum(np.abs(np.where(real, b, 0)).max(0), np.finfo(float).tiny)
    gap = float((np.abs(np.where(real, a - b, 0)) / size).max())
    same = bool((np.isfinite(a) == np.isfinite(b)).all()) and gap <= CLOSE
    return f"{a.size} numbers, by at most {gap:.1g} of the largest of a column", same
