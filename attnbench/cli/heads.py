"""Score every head by every criterion, as CSV and heat map."""

from __future__ import annotations

import argparse
import dataclasses
import shlex

from attnbench.cli.parsing import MANY, Once, add_include_path, add_max_length, positive
from attnbench.cli.screen import laid_out, stdout
from attnbench.errors import NotApplicable, UserError, message, require_folder, say, screen_width
from attnbench.inputs import models
from attnbench.inputs.settings import default_device
from attnbench.matrix import console
from attnbench.matrix.plan import columns
from attnbench.matrix.request import Request
from attnbench.methods.plugins import option
from attnbench.records.record import RECORDS

STOPPED = "; the tables that were said to be written stay"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `attnbench heads`."""
    parser.add_argument("--models", **MANY, metavar="NAME", help="models, written as for `attnbench run`")
    parser.add_argument("--tasks", **MANY, metavar="TASK", help="tasks (default: the model's own)")
    parser.add_argument(
        "--by",
        **MANY,
        metavar="NAME",
        help="criteria, or all (entropy,gradient,l2)",
    )
    parser.add_argument(
        "--ablate",
        action="store_true",
        help="measure the task without each single head, and tell which effects differ from zero",
    )
    parser.add_argument(
        "--output",
        default="attnbench-heads",
        metavar="DIR",
        help="the folder for CSV tables and pictures (attnbench-heads)",
    )
    parser.add_argument(
        "--limit", type=positive, metavar="N", help="measure --ablate on the first N samples only"
    )
    parser.add_argument(
        "--batch-size", type=positive, default=32, metavar="N", help="samples in a forward pass (32)"
    )
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="the seed by which calibration samples are drawn (0)"
    )
    parser.add_argument("--device", default=None, metavar="NAME", help="cpu or cuda (cuda if there is a GPU)")
    parser.add_argument(
        "--calibration", metavar="DATASET:SPLIT", help="the samples to score on, as for `attnbench run`"
    )
    add_max_length(parser)
    parser.add_argument("--records", action=Once, metavar="DIR", help=f"the folder of records ({RECORDS})")
    parser.add_argument("--force", action="store_true", help="score again what is recorded already")
    add_include_path(parser)


def execute(options: argparse.Namespace) -> int:
    """Score the heads of every model on every task; tables go to stdout, CSV and heat maps to a folder."""
    console.quiet(options.verbose)
    from attnbench.cli.looking import head_tables
    from attnbench.studies import ranking
    from attnbench.studies.importance import criteria

    by = ranking.chosen(options.by)
    asked = Request.of(
        options.models, tasks=options.tasks, limit=options.limit, batch_size=options.batch_size,
        seed=options.seed, device=options.device or "cpu", calibration=options.calibration,
        include_path=options.include_path, max_length=options.max_length,
    )  # fmt: skip
    wanted = columns(asked, "--output")
    settings = asked.settings
    if options.device is None:
        settings = dataclasses.replace(settings, device=default_device())
    folder = options.records or RECORDS
    require_folder("--records", folder)
    head_tables.prepare(options.output)
    failed = shown = scored = 0
    found_first: tuple[str, str, str] | None = None
    for name in asked.models:
        console.introduce(name)
        for task in (task for model, task in wanted if model == name):
            try:
                with stdout.aside():
                    found, look = ranking.ranked(
                        name, task, by, settings, options.ablate, folder, options.force
                    )
            except NotApplicable as reason:
                say(message(f"{models.label(name)} · {task}: not applicable: {reason}"))
                continue
            except ArithmeticError as reason:
                say(message(f"{models.label(name)} · {task}: failed: {reason}"))
                failed += 1
                continue
            print(("\n" if shown else "") + head_tables.describe(found, screen_width()), flush=True)
            failed, shown = failed + len(found.failed), shown + 1
            if found.tables:
                say(f"written to {head_tables.write(found, look, options.output)}")
                scored += 1
                first = next((each for each in by if each in found.tables), None)
                found_first = found_first or (first and (name, task, first)) or None
    if not (scored or failed):
        raise UserError("nothing was scored: nothing applies. `attnbench tasks` says what fits what.")
    if found_first:
        name, task, criterion = found_first
        method = criteria()[criterion]
        example, file = method.examples[0] if method.examples else method.name, option(method)
        run = shlex.join(["attnbench", "run", "--models", name, "--tasks", task, "--methods", example])
        laid_out.follow(f"attnbench methods {method.name}{file}", f"{run}{file}")
    return 1 if failed else 0
