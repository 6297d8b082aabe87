"""What a run leaves on the screen: its records as a table or as JSON, its exit status."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attnbench.cli.parsing import plugin_folders
from attnbench.cli.screen import laid_out, stdout
from attnbench.errors import UserError, screen_width
from attnbench.inputs import models
from attnbench.inputs.settings import Settings, default_device
from attnbench.matrix import console
from attnbench.matrix.plan import Cell
from attnbench.records import provenance

if TYPE_CHECKING:
    from attnbench.boards.tables.text import Screen
    from attnbench.records.record import Record


def measured(
    options: argparse.Namespace, cells: Sequence[Cell], settings: Settings, folder: str
) -> tuple[list[Record], UserError | None]:
    """Return what was measured, and the mistake that kept the rest, or all, from it."""
    if not (options.suites or options.on):  # other machines have other folders
        for name in dict.fromkeys(cell.model for cell in cells):
            models.check_folder(name)
    from attnbench.matrix import runner
    from attnbench.matrix.sharing import workers

    if options.device is None and not options.on:
        settings = dataclasses.replace(settings, device=default_device())
    with stdout.aside(), contextlib.closing(console.Console()) as listener:
        how = {
            "force": options.force, "replace": options.replace, "cell_timeout": options.cell_timeout,
            "fail_fast": options.fail_fast, "debug": options.debug, "listener": listener,
        }  # fmt: skip
        try:
            more = workers.Start(options.plugin, plugin_folders(options.plugins_dir), options.verbose)
            if options.on:
                from attnbench.matrix.sharing import on_ray

                return on_ray.run(cells, settings, folder, options.on, options.device, more, **how), None
            if options.workers:
                return workers.run(cells, settings, folder, options.workers, more, **how), None
            return runner.run(cells, settings, folder, **how), None
        except runner.Incomplete as mistake:
            return mistake.records, mistake
        except UserError as mistake:
            return [], mistake


def recorded_before(folder: str | Path) -> bool:
    """Tell whether a folder has records: the first run of one explains its table."""
    return any(Path(folder).rglob("*.json"))


def require_reached(records: Sequence[Record]) -> None:
    """Raise UserError for a method whose `layers=` no model has that was asked for."""
    found: dict[str, list[Record]] = {}
    for item in records:
        found.setdefault(item.cell["method"], []).append(item)
    for method, mine in found.items():
        if ":layers=" in method and all(item.status == "not applicable" for item in mine):
            raise UserError(str(mine[0].error))


def show_json(records: Sequence[Record]) -> None:
    """Print records with their rows as one JSON array."""
    from attnbench.boards.tables import leaderboard

    print(json.dumps(leaderboard.to_json(records), indent=1, ensure_ascii=False))


def show_table(records: list[Record], options: argparse.Namespace, board: str, **words: Any) -> None:
    """Print the comparison, and on stderr the command that makes `board` of it."""
    from attnbench.boards.tables import leaderboard

    made_by = shlex.join(["attnbench", *provenance.unrepeated(options.typed)]) if options.typed else None
    screen = of_terminal(options, made_by)
    print(leaderboard.render(records, "text", sort=options.sort, screen=screen, **words))
    some = any(item.status == "measured" for item in records)
    laid_out.follow(board if some else "attnbench models", "attnbench methods", "attnbench tasks")


def of_terminal(options: argparse.Namespace, made_by: str | None = None) -> Screen:
    """Return what a table is written for: this terminal, and as much beside the table as is asked for."""
    from attnbench.boards.tables.text import Screen

    return Screen(screen_width(), options.legend, options.verbose, made_by, stdout.shown)


def status(records: Sequence[Record]) -> int:
    """Return the exit status of a run: 1 where a cell failed."""
    return int(any(item.status == "failed" for item in records))
