"""Measure models with methods on tasks and print the comparison."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attnbench.boards import chosen, shares, suite
from attnbench.cli.measured import measured, recorded_before, require_reached, show_json, show_table, status
from attnbench.cli.parsing import (
    MANY,
    Once,
    add_calibration,
    add_device,
    add_endings,
    add_include_path,
    add_max_length,
    add_prompting,
    add_sharing,
    add_table,
    positive,
    seconds,
)
from attnbench.cli.screen import stdout
from attnbench.errors import UserError, require_folder, say, tell
from attnbench.inputs import models
from attnbench.inputs.prompting import NAMES
from attnbench.inputs.settings import EAGER_TOLERANCE
from attnbench.matrix import console, estimate
from attnbench.matrix.ledger import recorded
from attnbench.matrix.plan import check_tasks, plan
from attnbench.matrix.request import REPEATS, Request, split_models
from attnbench.records.record import RECORDS

if TYPE_CHECKING:
    from attnbench.records.record import Record

STOPPED = "; what is recorded stays, the same command goes on from there"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `attnbench run`."""
    parser.add_argument(
        "suites",
        nargs="*",
        metavar="SUITE.toml",
        help="a suite to run instead of --methods; --models and --tasks then select among its own",
    )
    parser.add_argument(
        "--models",
        **MANY,
        metavar="NAME",
        help="a short name (bert), a Hub id, a folder or a .gguf file; several by blanks or commas; "
        "MINE=./FOLDER gives a folder the name MINE",
    )
    parser.add_argument(
        "--methods",
        **MANY,
        metavar="SPEC",
        help="specs, as in logquant3,prune80+logquant3; dense and uniform attention are always measured",
    )
    parser.add_argument(
        "--tasks",
        **MANY,
        metavar="TASK",
        help="a name, a task's YAML, or your own .csv, .jsonl, .parquet (default: the model's own tasks)",
    )
    parser.add_argument(
        "--limit", type=positive, metavar="N", help="measure the first N samples of each task only"
    )
    add_max_length(parser)
    parser.add_argument(
        "--batch-size", type=positive, default=32, metavar="N",
        help="samples in a forward pass (32); results do not depend on it",
    )  # fmt: skip
    parser.add_argument(
        "--batch-tokens", type=positive, metavar="N",
        help="tokens in a forward pass, padding included, instead of a number of samples",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, metavar="N", help="the first seed of sampled methods (0)")
    parser.add_argument(
        "--repeats", type=positive, metavar="N",
        help=f"how many seeds each sampled method is measured with ({REPEATS}; in a suite 5)",
    )  # fmt: skip
    add_device(parser)
    parser.add_argument(
        "--dtype", choices=[*EAGER_TOLERANCE], help="the type of weights and activations (float32)"
    )
    add_calibration(parser)
    parser.add_argument(
        "--records", action=Once, metavar="DIR",
        help=f"the folder of records ({RECORDS}; for a suite records/NAME beside it)",
    )  # fmt: skip
    parser.add_argument("--force", action="store_true", help="measure again what is recorded already")
    parser.add_argument(
        "--replace", action="store_true",
        help="overwrite records that were measured with other settings or on another model of that name",
    )  # fmt: skip
    parser.add_argument(
        "--cell-timeout", type=seconds, metavar="SECONDS",
        help="end the run, or replace the worker, where a cell takes longer; the same command goes on",
    )  # fmt: skip
    parser.add_argument(
        "--measure", action="store_true",
        help="measure FLOPs, and latency and memory of methods that really save work; of recorded cells too",
    )  # fmt: skip
    add_sharing(parser)
    parser.add_argument("--fail-fast", action="store_true", help="stop at the first cell that fails")
    parser.add_argument("--dry-run", action="store_true", help="print what would be measured, and stop")
    parser.add_argument(
        "--json", action="store_true", help="print the records as a JSON array instead of the table"
    )
    parser.add_argument(
        "--trust-remote-code",
        action="store_true",
        help="let a checkpoint run Python code of its own; this is recorded",
    )
    add_table(parser)
    add_prompting(parser)
    add_endings(parser)
    add_include_path(parser)


def execute(options: argparse.Namespace) -> int:
    """Measure the matrix; the table or JSON goes to stdout, all else to stderr."""
    if options.device_map and (options.device or options.workers or options.on):
        raise UserError("--device-map: one process has all devices: leave out --device, --workers, --on")
    if options.on and options.workers:
        raise UserError("--workers: are of this machine, and --on ray of a cluster: give one")
    if options.suites:
        return _suites(options)
    asked = Request.of(
        options.models, options.methods, options.tasks, options.repeats or REPEATS,
        limit=options.limit, seed=options.seed or 0, calibration=options.calibration,
        calibration_samples=options.calibration_samples, calibration_tokens=options.calibration_tokens,
        measure=options.measure, cache_after=options.cache_after, prompt=options.prompt, **_machine(options),
    )  # fmt: skip
    with stdout.aside():
        whole = plan(asked)
        cells = shares.of_cells(options.shard, whole, asked.settings)
    if options.dry_run:
        print("\n".join(f"{models.label(cell.model)} {cell.task} {cell.method}" for cell in cells))
        say(f"{len(cells)} cells")
        return 0
    folder = options.records or RECORDS
    require_folder("--records", folder)
    options.legend |= not recorded_before(folder)
    console.quiet(options.verbose)
    for name in asked.models:
        console.introduce(name)
    with shares.claimed(options.shard, folder, "--models", [*recorded(whole, asked.settings).values()]):
        records, mistake = measured(options, cells, asked.settings, folder)
    if records or mistake is None:
        if options.json:
            show_json(records)
        else:
            show_table(records, options, shlex.join(["attnbench", "leaderboard", "--records", folder]))
    if mistake is not None:
        raise mistake
    if all(item.status == "not applicable" for item in records) and not options.shard:
        raise UserError("nothing was measured: no cell is applicable. `attnbench tasks` says what fits what.")
    require_reached(records)
    return status(records)


def _machine(options: argparse.Namespace) -> dict[str, Any]:
    """Return the settings that no suite holds itself."""
    prompting = {name: getattr(options, name) for name in NAMES if getattr(options, name) is not None}
    return {
        "batch_size": options.batch_size,
        "batch_tokens": options.batch_tokens,
        "device": (not options.dry_run and not options.on and options.device) or "cpu",
        "device_map": options.device_map,
        "dtype": options.dtype or "float32",
        "trust_remote_code": options.trust_remote_code,
        "include_path": options.include_path,
        "max_length": options.max_length,
        **prompting,
    }


def _suites(options: argparse.Namespace) -> int:
    """Measure the parts of suites, all of them unless the first that fails stops the rest."""
    suites = [suite.load(path) for path in options.suites]
    _refuse_overruling(options, suites)
    given = split_models(options.models)
    parts = [(each, part) for each in suites for part in chosen.parts(each, given, not options.dry_run)]
    if options.dry_run:
        for _, part in parts:
            check_tasks(part.tasks, options.include_path)
    columns = shares.of_suites(options.shard, parts, options.tasks, options.limit, options.include_path)
    if options.dry_run:
        for each in suites:
            _print_cells(options, each, [part for own, part in parts if own is each], columns[each.path].mine)
        return 0
    options.legend |= not any(recorded_before(options.records or each.records) for each in suites)
    console.quiet(options.verbose)
    settings = {"limit": options.limit, "measure": options.measure or None, **_machine(options)}
    records: list[Record] = []
    by_suite: dict[Path, list[Record]] = {}
    mistake = None
    for (each, part), (following, _) in zip(parts, [*parts[1:], (None, None)], strict=True):
        found: list[Record] = []
        missing: UserError | None = None
        try:
            asked = each.request(part, options.repeats, **settings)
            folder = str(options.records or each.records)
            cells = shares.kept(plan(asked), asked.settings, columns[each.path].mine)
            if cells:
                named = each.cells(columns[each.path].all)
                with shares.claimed(options.shard, folder, each.path.name, named):
                    found, missing = measured(options, cells, asked.settings, folder)
        except UserError as error:
            missing = error
        records += found
        stop = options.fail_fast and (missing is not None or status(found))
        mistake = mistake or missing
        if missing is not None and len(parts) > 1 and not stop:
            tell(missing)
        by_suite[each.path] = mine = [*by_suite.get(each.path, ()), *found]
        if mine and not options.json and (stop or following is not each):
            words = ["attnbench", "leaderboard", str(each.path), "--output", str(each.path.parent)]
            show_table(mine, options, shlex.join(words), margin=each.margin)
        if stop:
            break
    if options.json and (records or mistake is None):
        show_json(records)
    if mistake is not None:
        raise mistake
    return status(records)


def _refuse_overruling(options: argparse.Namespace, suites: Sequence[suite.Suite]) -> None:
    """Raise UserError for an option that a suite holds itself, and that no records keep apart."""
    apart = options.records and Path(options.records).resolve() not in [s.records.resolve() for s in suites]
    own = ("methods", "limit", "repeats", "seed", "calibration", "dtype", "max_length")
    for name in (*own, "calibration_samples", "calibration_tokens", "cache_after", "prompt", *NAMES):
        trial = name in ("limit", "repeats", "dtype", "max_length")
        if getattr(options, name) not in (None, []) and not (trial and apart):
            told = "its own, float32," if name == "dtype" else "its own"
            also = " unless --records keeps the trial apart" if trial else ""
            change = "" if name in ("dtype", "max_length") else f" Change {options.suites[0]}."
            raise UserError(f"--{name.replace('_', '-')}: a suite holds {told}{also}.{change}")


def _print_cells(
    options: argparse.Namespace,
    each: suite.Suite,
    parts: Sequence[suite.Part],
    columns: Collection[tuple[str, str]],
) -> None:
    """Print what is measured of a suite, and on stderr how much of it is recorded."""
    known = [(*column, each.specs(part)) for part in parts for column in part.columns() if column in columns]
    cells = [(model, task, method) for model, task, specs in known for method in specs]
    print("\n".join(" ".join(cell) for cell in cells))
    say(f"{each.path}: {estimate.describe(options.records or each.records, cells)}")
