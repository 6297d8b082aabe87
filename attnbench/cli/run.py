"""The command that measures: a matrix given by its options, or suites."""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attnbench.boards import suite
from attnbench.errors import UserError, require_folder
from attnbench.inputs import models
from attnbench.matrix import console, estimate, plan
from attnbench.matrix.bench import check_device, default_device
from attnbench.records.record import RECORDS

if TYPE_CHECKING:
    from attnbench.matrix import runner
    from attnbench.records.record import Record


def add_run(parser: argparse.ArgumentParser, positive: Callable[[str], int]) -> None:
    """Add the options of `attnbench run`."""
    parser.add_argument(
        "suites", nargs="*", metavar="SUITE.toml", help="run these instead; --models chooses among theirs"
    )
    parser.add_argument(
        "--models",
        **plan.MANY,
        metavar="NAME",
        help="bert, roberta, a Hub id, or a folder; comma lists work",
    )
    parser.add_argument(
        "--methods",
        **plan.MANY,
        metavar="SPEC",
        help="as in logquant3,prune80+logquant3; dense and uniform are always measured",
    )
    parser.add_argument(
        "--tasks",
        **plan.MANY,
        metavar="TASK",
        help="a name, a task's YAML, or your own FILE.csv or .jsonl; default: those a model names itself",
    )
    parser.add_argument("--limit", type=positive, metavar="N", help="the first N samples of each task only")
    parser.add_argument(
        "--batch-size",
        type=positive,
        default=32,
        metavar="N",
        help="samples a forward pass (32); results do not depend on it",
    )
    parser.add_argument(
        "--batch-tokens",
        type=positive,
        metavar="N",
        help="tokens a forward pass, padding included, instead of samples",
    )
    parser.add_argument("--seed", type=int, metavar="N", help="first seed of what draws (0)")
    parser.add_argument(
        "--repeats",
        type=positive,
        metavar="N",
        help=f"seeds a method that draws is measured with ({plan.REPEATS})",
    )
    parser.add_argument(
        "--device", default=None, metavar="NAME", help="cpu, cuda, cuda:1 (cuda where there is one)"
    )
    parser.add_argument(
        "--dtype",
        choices=["float32", "float64", "bfloat16", "float16"],
        help="of weights and activations (float32)",
    )
    parser.add_argument(
        "--calibration",
        metavar="DATASET:SPLIT",
        help="or FILE.csv: what fitted methods learn from, where the task names no split that is to be had",
    )
    parser.add_argument(
        "--records",
        metavar="DIR",
        help=f"where records are kept ({RECORDS}; a suite's: records/NAME beside it)",
    )
    parser.add_argument("--force", action="store_true", help="measure again what is recorded")
    parser.add_argument(
        "--measure",
        action="store_true",
        help="FLOPs too, and latency and peak memory of attention where a method is realised",
    )
    parser.add_argument("--fail-fast", action="store_true", help="stop at the first cell that fails")
    parser.add_argument("--dry-run", action="store_true", help="print the cells and stop")
    parser.add_argument(
        "--json", action="store_true", help="print the records as one JSON array instead of the table"
    )
    parser.add_argument(
        "--trust-remote-code", action="store_true", help="run a checkpoint's own Python; recorded"
    )


def run(options: argparse.Namespace) -> int:
    """Measure the matrix; the table or JSON goes to stdout, all else to stderr."""
    if options.suites:
        return _run_suites(options)
    repeats, seed = options.repeats or plan.REPEATS, options.seed or 0
    cells = plan.plan(options.models, options.methods, options.tasks, repeats, seed, options.include_path)
    if options.dry_run:
        for cell in cells:
            print(f"{models.label(cell.model)} {cell.task} {cell.method}")
        print(f"{len(cells)} cells", file=sys.stderr)
        return 0
    check_device(options.device or "cpu")
    folder = options.records or RECORDS
    require_folder("--records", folder)
    console.quiet(options.verbose)
    for name in plan.split(options.models):
        console.introduce(name)
    with _listening() as listener:
        result, mistake = _measure(
            options, listener, options.models, options.methods, options.tasks, folder,
            repeats=repeats, seed=seed, limit=options.limit, calibration=options.calibration,
            measure=options.measure,
        )  # fmt: skip
    if result.records or mistake is None:
        if options.json:
            _show_json(result.records)
        else:
            _show_table(result.table, f"attnbench leaderboard --records {folder}")
    if mistake is not None:
        raise mistake
    if all(item.status == "not applicable" for item in result.records):
        raise UserError("nothing was measured: no cell is applicable. `attnbench tasks` says what fits what.")
    return 1 if result.failed else 0


def _run_suites(options: argparse.Namespace) -> int:
    """Measure the parts of suites, all of them unless the first that fails stops the rest."""
    suites = [suite.load(path) for path in options.suites]
    _refuse_overruling(options, suites)
    given = plan.split(options.models)
    if options.dry_run:
        for each in suites:
            _print_cells(options, each, given)
        return 0
    check_device(options.device or "cpu")
    console.quiet(options.verbose)
    parts = [(each, part) for each in suites for part in suite.chosen(each, given)]
    records: list[Record] = []
    mistake = None
    for each, part in parts:
        result, missing = _measure_part(options, each, part)
        records += result.records
        stop = options.fail_fast and (missing is not None or result.failed)
        mistake = mistake or missing
        if missing is not None and len(parts) > 1 and not stop:
            print(f"attnbench: {missing}", file=sys.stderr)
        if not options.json and (result.records or missing is None):
            table = functools.partial(result.table, margin=each.margin)
            _show_table(table, f"attnbench leaderboard {each.path} --output {each.path.parent}")
        if stop:
            break
    if options.json and (records or mistake is None):
        _show_json(records)
    if mistake is not None:
        raise mistake
    return 1 if any(item.status == "failed" for item in records) else 0


def _measure_part(
    options: argparse.Namespace, each: suite.Suite, part: suite.Part
) -> tuple[runner.Run, UserError | None]:
    folder = str(options.records or each.records)
    with _listening() as listener:
        return _measure(
            options, listener, part.models, [*each.methods, *part.methods], part.tasks, folder,
            repeats=options.repeats or each.repeats, seed=each.seed, limit=options.limit or part.limit,
            calibration=each.calibration, measure=options.measure or each.measure,
        )  # fmt: skip


def _refuse_overruling(options: argparse.Namespace, suites: Sequence[suite.Suite]) -> None:
    """Raise UserError for an option that a suite holds itself, and that no records keep apart."""
    apart = options.records and Path(options.records).resolve() not in [s.records.resolve() for s in suites]
    for name in ("methods", "tasks", "limit", "repeats", "seed", "calibration", "dtype"):
        trial = name in ("limit", "repeats", "dtype")
        if getattr(options, name) not in (None, []) and not (trial and apart):
            own = "its own, float32," if name == "dtype" else "its own"
            also = " unless --records keeps the trial apart" if trial else ""
            change = "" if name == "dtype" else f" Change {options.suites[0]}."
            raise UserError(f"--{name}: a suite holds {own}{also}.{change}")


def _print_cells(options: argparse.Namespace, each: suite.Suite, given: Sequence[str]) -> None:
    """Print what a suite measures, and on stderr how much of it is recorded."""
    chosen = suite.chosen(each, given, locate=False)
    for part in chosen:
        plan.check_tasks(part.tasks, options.include_path)
    known = [(*column, each.specs(part)) for part in chosen for column in part.columns()]
    cells = [(model, task, method) for model, task, specs in known for method in specs]
    for cell in cells:
        print(*cell)
    print(f"{each.path}: {estimate.describe(options.records or each.records, cells)}", file=sys.stderr)


@contextlib.contextmanager
def _listening() -> Iterator[console.Console]:
    listener = console.Console()
    try:
        yield listener
    finally:
        listener.close()


def _measure(
    options: argparse.Namespace, listener: console.Console, models_: Sequence[str], methods: Sequence[str],
    tasks: Sequence[str], folder: str, **settings: Any,
) -> tuple[runner.Run, UserError | None]:  # fmt: skip
    """Return what was measured, and the mistake that kept the rest, or all, from it."""
    from attnbench.matrix import runner

    try:
        return runner.run(
            models_, methods, tasks,
            records=folder, force=options.force, fail_fast=options.fail_fast, debug=options.debug,
            listener=listener, batch_size=options.batch_size, batch_tokens=options.batch_tokens,
            device=options.device or default_device(),
            dtype=options.dtype or "float32", trust_remote_code=options.trust_remote_code,
            include_path=options.include_path, **settings,
        ), None  # fmt: skip
    except runner.Incomplete as mistake:
        return mistake.run, mistake
    except UserError as mistake:
        return runner.Run(), mistake


def _show_json(records: Sequence[Record]) -> None:
    from attnbench.boards.tables import leaderboard

    print(json.dumps(leaderboard.to_json(records), indent=1, ensure_ascii=False))


def _show_table(table: Callable[[], str], board: str) -> None:
    print(table())
    print(f"next: {board}   attnbench methods   attnbench tasks", file=sys.stderr)
