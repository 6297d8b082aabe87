"""What each command does with its parsed options."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from attnbench import console, models, plan
from attnbench.errors import UserError, unknown
from attnbench.plugins import registry


def run(options: argparse.Namespace) -> int:
    """Measure the matrix; the table or JSON goes to stdout, all else to stderr."""
    cells = plan.plan(options.models, options.methods, options.tasks, options.repeats, options.seed)
    if options.dry_run:
        for cell in cells:
            print(f"{models.label(cell.model)} {cell.task} {cell.method}")
        print(f"{len(cells)} cells", file=sys.stderr)
        return 0
    console.quiet(options.verbose)
    for name in plan.split(options.models):
        _say_what_a_short_name_is(name)
    from attnbench import runner

    listener = console.Console()
    try:
        result = runner.run(
            options.models, options.methods, options.tasks,
            repeats=options.repeats, records=options.records, force=options.force,
            fail_fast=options.fail_fast, debug=options.debug, listener=listener,
            limit=options.limit, batch_size=options.batch_size, seed=options.seed,
            device=options.device or _device(), dtype=options.dtype, calibration=options.calibration,
            trust_remote_code=options.trust_remote_code,
        )  # fmt: skip
    finally:
        listener.close()
    if options.json:
        from attnbench import leaderboard

        print(json.dumps(leaderboard.to_json(result.records), indent=1, ensure_ascii=False))
    else:
        print(result.table())
        print(
            f"next: attnbench leaderboard --records {options.records}   attnbench methods   attnbench tasks",
            file=sys.stderr,
        )
    return 1 if result.failed else 0


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


def leaderboard(options: argparse.Namespace) -> int:
    """Render records to stdout or a file."""
    from attnbench import record
    from attnbench.leaderboard import render

    records = list(record.read_all(options.records))
    if not records:
        raise UserError(
            f"--records {options.records}: no record there. `attnbench run --records DIR ...` makes them."
        )
    text = render(records, format=options.format)
    if options.output:
        Path(options.output).write_text(text + "\n", encoding="utf-8")
    else:
        print(text)
    return 0


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
    """List the bundled tasks."""
    from attnbench import tasks as known

    for task in known.available().values():
        print(f"{task.name:18} {task.head:15} {task.description}")
    return 0
