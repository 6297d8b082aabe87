"""What each command does with its parsed options."""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from attnbench import console, estimate, models, plan
from attnbench.errors import NotApplicable, UserError, unknown
from attnbench.plugins import registry
from attnbench.reports import RECORDS, compare, leaderboard, verify

if TYPE_CHECKING:
    from attnbench import runner
    from attnbench.record import Record

REPEATS = 3
__all__ = ["compare", "leaderboard", "verify"]


def run(options: argparse.Namespace) -> int:
    """Measure the matrix; the table or JSON goes to stdout, all else to stderr."""
    if options.suites:
        return _run_suites(options)
    repeats, seed = options.repeats or REPEATS, options.seed or 0
    cells = plan.plan(options.models, options.methods, options.tasks, repeats, seed, options.include_path)
    if options.dry_run:
        for cell in cells:
            print(f"{models.label(cell.model)} {cell.task} {cell.method}")
        print(f"{len(cells)} cells", file=sys.stderr)
        return 0
    console.quiet(options.verbose)
    for name in plan.split(options.models):
        _say_what_a_short_name_is(name)
    folder = options.records or RECORDS
    with _listening() as listener:
        result = _measure(
            options, listener, options.models, options.methods, options.tasks, folder,
            repeats=repeats, seed=seed, limit=options.limit, calibration=options.calibration,
            measure=options.measure,
        )  # fmt: skip
    _show(options, result.records, result.table, f"attnbench leaderboard --records {folder}")
    return 1 if result.failed else 0


def _run_suites(options: argparse.Namespace) -> int:
    from attnbench import suite

    suites = [suite.load(path) for path in options.suites]
    for name in ("methods", "tasks", "limit", "repeats", "seed", "calibration"):
        if getattr(options, name) and not (name in ("limit", "repeats") and options.records):
            also = " unless --records keeps the trial apart" if name in ("limit", "repeats") else ""
            raise UserError(f"--{name}: a suite holds its own{also}. Change {options.suites[0]}.")
    given = plan.split(options.models)
    if options.dry_run:
        for each in suites:
            known = [column for part in suite.chosen(each, given, locate=False) for column in part.columns()]
            cells = [(model, task, method) for model, task in known for method in each.specs()]
            for cell in cells:
                print(*cell)
            told = estimate.describe(options.records or each.records, cells)
            print(f"{each.path}: {told}", file=sys.stderr)
        return 0
    console.quiet(options.verbose)
    parts = [(each, part) for each in suites for part in suite.chosen(each, given)]
    failed = False
    for each, part in parts:
        folder = str(options.records or each.records)
        with _listening() as listener:
            result = _measure(
                options, listener, part.models, each.methods, part.tasks, folder,
                repeats=options.repeats or each.repeats, seed=each.seed,
                limit=options.limit or part.limit, calibration=each.calibration,
                measure=options.measure or each.measure,
            )  # fmt: skip
        table = functools.partial(result.table, margin=each.margin)
        board = f"attnbench leaderboard {each.path} --output {each.path.parent}"
        _show(options, result.records, table, board)
        failed |= bool(result.failed)
    return 1 if failed else 0


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
) -> runner.Run:  # fmt: skip
    from attnbench import runner

    return runner.run(
        models_, methods, tasks,
        records=folder, force=options.force, fail_fast=options.fail_fast, debug=options.debug,
        listener=listener, batch_size=options.batch_size, batch_tokens=options.batch_tokens,
        device=options.device or _device(),
        dtype=options.dtype, trust_remote_code=options.trust_remote_code,
        include_path=options.include_path, **settings,
    )  # fmt: skip


def _show(options: argparse.Namespace, records: list[Record], table: Callable[[], str], board: str) -> None:
    if options.json:
        from attnbench import leaderboard

        print(json.dumps(leaderboard.to_json(records), indent=1, ensure_ascii=False))
    else:
        print(table())
        print(f"next: {board}   attnbench methods   attnbench tasks", file=sys.stderr)


def _say_what_a_short_name_is(name: str) -> None:
    shown = models.label(name)
    if shown.startswith("pocket-") and shown != name:
        cards = [
            json.loads((folder / "card.json").read_text(encoding="utf-8"))
            for folder in models.pocket_families()[name].values()
        ]
        size = max(card["parameters"] for card in cards) / 1e6
        published = (
            f" The published model: --models {name}-base" if f"{name}-base" in models.PUBLISHED else ""
        )
        print(f"{name} → {shown}: {size:.1f}M parameters, generated text.{published}", file=sys.stderr)


def _device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def heads(options: argparse.Namespace) -> int:
    """Score the heads of every model on every task; tables go to stdout, CSV and heat maps to a folder."""
    from attnbench import heads as importance

    by, names = importance.chosen(options.by), plan.split(options.models)
    if not names:
        raise UserError("no model: give --models, as in attnbench heads --models bert")
    wanted = {name: plan.split(options.tasks) or models.tasks_of(name) for name in names}
    for name, tasks in wanted.items():
        models.label(name)
        if not tasks:
            raise UserError(
                f"model '{name}' names no task of its own: give --tasks. `attnbench tasks` lists them."
            )
    console.quiet(options.verbose)
    failed, first = 0, True
    for name, tasks in wanted.items():
        _say_what_a_short_name_is(name)
        for task in tasks:
            try:
                found = importance.study(
                    name, task, by, ablate=options.ablate, limit=options.limit, batch_size=options.batch_size,
                    seed=options.seed, device=options.device or _device(), calibration=options.calibration,
                    include_path=options.include_path,
                )  # fmt: skip
            except NotApplicable as reason:
                print(f"{models.label(name)} · {task}: not applicable: {reason}", file=sys.stderr)
                continue
            except ArithmeticError as reason:
                print(f"{models.label(name)} · {task}: failed: {reason}", file=sys.stderr)
                failed += 1
                continue
            print(("" if first else "\n") + importance.describe(found), flush=True)
            print(f"written to {importance.write(found, options.output)}", file=sys.stderr)
            failed, first = failed + len(found.failed), False
    print(
        f"next: attnbench methods heads:{by[0]}   attnbench run --methods heads50:{by[0]} ...",
        file=sys.stderr,
    )
    return 1 if failed and by != importance.criteria() else 0  # `all` holds some that never fit


def methods(options: argparse.Namespace) -> int:
    """List every method with its first line, or show one whole."""
    known = registry().methods
    if options.examples:
        print(",".join(example for name in sorted(known) for example in known[name].examples))
    elif options.name:
        from attnbench.describe import describe

        if options.name not in known:
            variants = [name for name in sorted(known) if name.partition(":")[0] == options.name]
            if not variants:
                raise unknown("method", options.name, known, "`attnbench methods` lists them.")
            print("\n\n".join(describe(name) for name in variants))
        else:
            print(describe(options.name))
    else:
        rows = [
            (known[name].examples[0] if known[name].examples else name, _first_line(known[name]))
            for name in sorted(known)
        ]
        width = max(len(example) for example, _ in rows)
        for example, text in [("dense", "The unmodified model."), *rows]:
            print(f"{example:{width}}  {text}")
    return 0


def _first_line(cls: type) -> str:
    return (cls.__doc__ or "").strip().partition("\n")[0]


def export(options: argparse.Namespace) -> int:
    """Write a checkpoint without the heads that a method removes."""
    from attnbench import sidecar

    console.quiet(options.verbose)
    _say_what_a_short_name_is(options.model)
    content = sidecar.export(
        options.model, options.task, options.method, options.folder,
        seed=options.seed, device=options.device, calibration=options.calibration,
        include_path=options.include_path,
    )  # fmt: skip
    for layer, heads in content["heads"].items():
        print(
            f"{layer}: {len(heads)} of {content['of'][layer]} heads left: {', '.join(map(str, heads)) or '-'}"
        )
    shown = options.folder if options.folder.startswith((".", "/", "~")) else f"./{options.folder}"
    own = f" --include-path {options.include_path}" if options.include_path else ""
    print(f"next: attnbench run --models {shown} --tasks {options.task}{own}", file=sys.stderr)
    return 0


def check(options: argparse.Namespace) -> int:
    """Check methods on tiny models. Returns 1 where one breaks a promise."""
    from attnbench import testing

    return testing.check(options)


def new_method(options: argparse.Namespace) -> int:
    """Write a method's plugin file and its test, and say what to do with them."""
    from attnbench import scaffold

    method, test = scaffold.write(options.name, options.kind, options.output)
    print(f"{method}\n{test}")
    print(f"next: edit, then attnbench check {options.name} --plugin {method}", file=sys.stderr)
    return 0


def tasks(options: argparse.Namespace) -> int:
    """List the tasks, bundled and in a folder, with the models that fit."""
    from attnbench import listing

    print("\n".join(listing.task_lines(options.include_path)))
    return 0


def list_models(options: argparse.Namespace) -> int:
    """List the models that have a short name."""
    from attnbench import listing

    print("\n".join(listing.model_lines()))
    print("Any Hub id (with a slash) and any folder (./NAME) is a model too.")
    return 0
