"""What each command does with its parsed options."""

from __future__ import annotations

import argparse
import sys

from attnbench.cli.reports import compare, leaderboard, verify
from attnbench.cli.run import run
from attnbench.errors import NotApplicable, UserError
from attnbench.inputs import models
from attnbench.matrix import console, plan
from attnbench.matrix.bench import check_device, default_device
from attnbench.methods import spec
from attnbench.methods.plugins import option, registry

DENSE = "The unmodified model."

__all__ = ["compare", "leaderboard", "run", "verify"]


def heads(options: argparse.Namespace) -> int:
    """Score the heads of every model on every task; tables go to stdout, CSV and heat maps to a folder."""
    from attnbench.cli import head_tables
    from attnbench.studies import importance as importance

    by, names = importance.chosen(options.by), plan.split(options.models)
    if not names:
        raise UserError("no model: give --models, as in attnbench heads --models bert")
    plan.check_tasks(plan.split(options.tasks), options.include_path)
    wanted = {name: plan.split(options.tasks) or models.tasks_of(name) for name in names}
    for name, tasks in wanted.items():
        models.label(name)
        if not tasks:
            raise UserError(
                f"model '{name}' names no task of its own: give --tasks. `attnbench tasks` lists them."
            )
    check_device(options.device or "cpu")
    head_tables.prepare(options.output)
    console.quiet(options.verbose)
    failed = shown = scored = 0
    for name, tasks in wanted.items():
        console.introduce(name)
        for task in tasks:
            try:
                found = importance.study(
                    name, task, by, ablate=options.ablate, limit=options.limit, batch_size=options.batch_size,
                    seed=options.seed, device=options.device or default_device(),
                    calibration=options.calibration, include_path=options.include_path,
                )  # fmt: skip
            except NotApplicable as reason:
                print(f"{models.label(name)} · {task}: not applicable: {reason}", file=sys.stderr)
                continue
            except ArithmeticError as reason:
                print(f"{models.label(name)} · {task}: failed: {reason}", file=sys.stderr)
                failed += 1
                continue
            print(("\n" if shown else "") + head_tables.describe(found), flush=True)
            failed, shown = failed + len(found.failed), shown + 1
            if found.tables:
                print(f"written to {head_tables.write(found, options.output)}", file=sys.stderr)
                scored += 1
    if not (scored or failed):
        raise UserError("nothing was scored: nothing applies. `attnbench tasks` says what fits what.")
    method = importance.criteria()[by[0]]
    example, file = method.examples[0] if method.examples else method.name, option(method)
    print(
        f"next: attnbench methods {method.name}{file}   attnbench run --methods {example}{file} ...",
        file=sys.stderr,
    )
    return 1 if failed else 0


def methods(options: argparse.Namespace) -> int:
    """List every method with its first line, or show one whole."""
    known = registry().methods
    if options.examples:
        print(",".join(example for name in sorted(known) for example in known[name].examples))
    elif options.name:
        from attnbench.methods.describe import describe

        if options.name == "dense":
            print(DENSE)
        elif options.name not in known:
            variants = [name for name in sorted(known) if name.partition(":")[0] == options.name]
            print("\n\n".join(describe(name) for name in variants or _named(options.name)))
        else:
            print(describe(options.name))
    else:
        rows = [
            (known[name].examples[0] if known[name].examples else name, _first_line(known[name]))
            for name in sorted(known)
        ]
        width = max(len(example) for example, _ in rows)
        for example, text in [("dense", DENSE), *rows]:
            print(f"{example:{width}}  {text}")
    return 0


def _named(text: str) -> list[str]:
    try:
        return list(dict.fromkeys(method.name for method in spec.parse(text)))
    except UserError:
        raise spec.unknown_method(text) from None


def _first_line(cls: type) -> str:
    return (cls.__doc__ or "").strip().partition("\n")[0]


def export(options: argparse.Namespace) -> int:
    """Write a checkpoint without the heads that a method removes."""
    from attnbench.matrix import export

    check_device(options.device or "cpu")
    console.quiet(options.verbose)
    console.introduce(options.model)
    content = export.export(
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
    from attnbench.methods import scaffold

    method, test = scaffold.write(options.name, options.kind, options.output)
    print(f"{method}\n{test}")
    print(f"next: edit, then attnbench check {options.name} --plugin {method}", file=sys.stderr)
    return 0


def tasks(options: argparse.Namespace) -> int:
    """List the tasks, bundled and in a folder, with the models that fit."""
    from attnbench.inputs import listing

    print("\n".join(listing.task_lines(options.include_path)))
    return 0


def list_models(options: argparse.Namespace) -> int:
    """List the models that have a short name."""
    from attnbench.inputs import listing

    print("\n".join(listing.model_lines()))
    print("Any Hub id (with a slash) and any folder (./NAME) is a model too.")
    return 0
